"""What a step sees, may do and leaves behind: real namespaces, a real image, no stand-ins."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from holding import descriptors, no_descriptor_more_than
from naps import nap, sleeping, until

from builder.sandbox.plan import capability_mask
from builder.sandbox.run import Launcher
from builder.sandbox.spec import DEFAULT_CAPABILITIES, Bind, File, Overlay, Tmpfs

pytestmark = pytest.mark.root

FILES = (File("/etc/resolv.conf", b"nameserver 192.0.2.53\n"), File("/etc/hosts", b"127.0.0.1 localhost\n"))


def test_status_output_and_usage(world: Any) -> None:
    exit_, output = world.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (exit_.status, exit_.error, output) == (3, "", "out\nerr\n")
    assert 1 << 20 < exit_.max_rss < 1 << 30


def test_a_step_sees_three_descriptors(world: Any) -> None:
    careless = os.open("/etc", os.O_RDONLY)  # somebody else's, in the builder
    os.set_inheritable(careless, True)
    numbers = " ".join(map(str, range(64)))
    output = world.sh(f"for n in {numbers}; do [ -L /proc/$$/fd/$n ] && echo $n; done; true")
    os.close(careless)
    assert output.split() == ["0", "1", "2"]
    assert world.sh("readlink /proc/self/fd/0; cat | wc -c").split() == ["/dev/null", "0"]


def test_a_step_is_alone(world: Any) -> None:
    output = world.sh("echo $$; hostname; ls -d /proc/[0-9]* | wc -l; ip -o link | wc -l", hostname="box")
    assert output.split() == ["1", "box", "2", "1"] or output.split() == ["1", "box", "3", "1"]
    assert "lo: <LOOPBACK,UP" in world.sh("ip -o link")


def test_no_terminal_and_its_own_session(world: Any) -> None:
    """SECURITY.md S30."""
    exit_, _ = world.run("sh", "-c", "cat < /dev/tty")
    assert exit_.status != 0
    assert world.sh("cat /proc/1/stat").split()[5:7] == ["1", "0"]


def test_environment_is_the_given_one(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_TOKEN", "secret")
    _, output = world.run("cat", "/proc/1/environ", env=(("PATH", "/bin"), ("EMPTY", ""), ("ODD", "a\nb")))
    assert output == "PATH=/bin\0EMPTY=\0ODD=a\nb\0"


def test_host_tree_is_out_of_sight(world: Any) -> None:
    lines = [line.split(" - ") for line in world.sh("cat /proc/self/mountinfo", mounts=FILES).splitlines()]
    kinds = {right.split()[0] for _, right in lines}
    assert kinds == {"overlay", "proc", "sysfs", "tmpfs", "devpts", "mqueue", "devtmpfs"}
    for left, right in lines:
        point, options = left.split()[4:6]
        if right.startswith("devtmpfs"):
            assert point in {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty")}
        elif not point.startswith("/dev/pts"):
            assert "nodev" in options.split(","), left
        assert "master:" not in left
        assert "shared:" not in left


def test_mounts_of_a_step_stay_in_it(world: Any) -> None:
    def lines() -> list[str]:
        with open("/proc/self/mountinfo") as file:
            return [line for line in file if world.top in line]

    before = lines()
    with world.launcher.begin(world.sandbox("sleep", "100"), output_fd=2):
        time.sleep(0.1)
        assert lines() == before


_MASKED = ("acpi", "interrupts", "kcore", "keys", "timer_list", "latency_stats")
MASKED = [f"/proc/{name}" for name in _MASKED]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"]


def test_masked_and_read_only_paths(world: Any) -> None:
    for path in [path for path in [*MASKED, "/sys/firmware"] if os.path.exists(path)]:
        assert world.sh(f"if [ -d {path} ]; then ls -A {path}; elif [ -e {path} ]; then cat {path}; fi") == ""
    points = world.sh("cat /proc/self/mountinfo")
    for path in READ_ONLY:
        assert f" {path} ro," in points
    for path in ("/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper"):
        exit_, output = world.run("sh", "-c", f"echo x > {path}")
        assert exit_.status != 0
        assert "Read-only" in output or "nonexistent" in output


def test_capabilities(world: Any) -> None:
    """S100. SECURITY.md S23."""

    def sets(**rest: Any) -> dict[str, int]:
        lines = world.sh("grep Cap /proc/self/status", **rest).splitlines()
        return {line.split(":")[0]: int(line.split()[1], 16) for line in lines}

    mask = capability_mask(DEFAULT_CAPABILITIES)
    assert mask == 0xA80425FB  # what `docker run` shows
    assert sets() == {"CapInh": 0, "CapPrm": mask, "CapEff": mask, "CapBnd": mask, "CapAmb": 0}
    assert sets(uid=1000, gid=1000) == {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": mask, "CapAmb": 0}
    assert sets(capabilities=frozenset())["CapEff"] == 0


def test_devices(world: Any) -> None:
    nodes = ["full", "null", "random", "tty", "urandom", "zero"]
    assert (
        world.sh("cd /dev; for n in *; do [ -c $n ] && [ ! -L $n ] && echo $n; done; true").split() == nodes
    )
    for place in ("/tmp", "/dev", "/dev/shm"):
        made = f"mkdir -p /tmp; mknod {place}/disk b 8 0 && mknod {place}/mem c 1 1"
        exit_, output = world.run("sh", "-c", f"{made} && head -c1 {place}/mem")
        assert exit_.status != 0
        assert "Permission denied" in output
    assert world.sh(
        "head -c 4 /dev/zero | wc -c; echo x >/dev/null; head -c 1 /dev/urandom | wc -c"
    ).split() == ["4", "1"]
    assert "1777" in world.sh("stat -c %a /dev/shm /dev/mqueue; echo x > /dev/shm/x")


def test_identity_and_reopening_the_streams(world: Any) -> None:
    script = "id; echo one > /dev/stdout; echo two > /dev/stderr; echo three >> /proc/self/fd/1"
    output = world.sh(script, uid=1000, gid=50, groups=(7, 8, 50))
    assert output == "uid=1000 gid=50 groups=7,8,50\none\ntwo\nthree\n"


def test_signals_are_at_their_defaults(world: Any) -> None:
    status = world.sh("grep -E 'Sig(Ign|Blk)' /proc/self/status; umask")
    assert [line.split()[-1] for line in status.splitlines()] == ["0" * 16, "0" * 16, "0022"]


@pytest.mark.parametrize(
    ("argv", "status", "error"),
    [
        (("nope",), 127, 'exec: "nope": executable file not found in $PATH'),
        (("/bin/nope",), 127, 'exec: "/bin/nope": stat /bin/nope: no such file or directory'),
        (("/bin",), 126, 'exec: "/bin": is a directory'),
        (("/plain",), 126, 'exec: "/plain": permission denied'),
        (("/broken",), 126, "exec /broken: exec format error"),
        (("/no-interpreter",), 127, "exec /no-interpreter: no such file or directory"),
        (("",), 127, 'exec: "": executable file not found in $PATH'),
    ],
)
def test_what_cannot_be_executed(world: Any, argv: tuple[str, ...], status: int, error: str) -> None:
    for name, content, mode in (
        ("plain", "", 0o644),
        ("broken", "?", 0o755),
        ("no-interpreter", "#!/no\n", 0o755),
    ):
        path = world.path("image/" + name)
        with open(path, "w") as file:
            file.write(content)
        os.chmod(path, mode)
    exit_, output = world.run(*argv)
    assert (exit_.status, exit_.error, output) == (status, error, "")


def test_path_is_the_steps_own(world: Any) -> None:
    os.makedirs(world.path("image/opt"))
    os.symlink("/bin/busybox", world.path("image/opt/hostname"))
    assert world.run("hostname", env=(("PATH", "/nowhere:/opt"),))[0].status == 0
    assert world.run("hostname", env=(("PATH", "/nowhere"),))[0].status == 127
    assert world.run("hostname", env=())[0].status == 0


def test_working_directory(world: Any) -> None:
    os.makedirs(world.path("image/srv/app"))
    os.symlink("/srv/app", world.path("image/link"))
    assert world.sh("/bin/readlink /proc/self/cwd", cwd="/link") == "/srv/app\n"
    assert world.sh("pwd; stat -c %u:%a .", cwd="/new/er", uid=7) == "/new/er\n7:755\n"
    assert world.run("true", cwd="/bin/busybox")[0].status == 125


def test_working_directory_never_leaves_the_root(world: Any) -> None:
    """CVE-2024-21626: descriptors of the host must not be a way to name its directories."""
    for number in range(65):
        link = world.path(f"image/fd{number}")
        os.symlink(f"/proc/self/fd/{number}", link)
        for cwd in (f"/proc/self/fd/{number}", f"/fd{number}", f"/proc/1/fd/{number}/.."):
            if number % 8 == 0 or number < 16:
                assert world.run("true", cwd=cwd)[0].status == 125, cwd
    assert world.sh("/bin/readlink /proc/self/cwd", cwd="/proc/self/root/bin/../..") == "/\n"


def test_limits(world: Any) -> None:
    assert world.sh("ulimit -n; ulimit -c", rlimits=(("nofile", 100, 200), ("core", 0, -1))).split() == [
        "100",
        "0",
    ]
    with pytest.raises(ValueError, match="unknown limit 'files'"):
        world.run("true", rlimits=(("files", 1, 1),))


# --- what a step leaves behind


def test_mount_points_leave_no_trace(world: Any, tree_of: Callable[[str], Any]) -> None:
    """SECURITY.md S65."""
    target = Bind(world.path("image"), "/mnt/deep/er", read_only=True)
    sandbox = world.sandbox(
        "ls", "/mnt/deep/er/bin/sh", "/etc/hosts", mounts=(*FILES, target, Tmpfs("/scratch"))
    )
    before = os.stat(sandbox.root.upper).st_mtime_ns
    exit_, output = world.start(sandbox)
    assert (exit_.status, exit_.stubs) == (0, ()), output
    assert tree_of(sandbox.root.upper) == []
    assert os.stat(sandbox.root.upper).st_mtime_ns == before
    assert sorted(os.listdir(world.path("image"))) == ["bin"]


def test_only_the_steps_own_changes_stay(world: Any, tree_of: Callable[[str], Any]) -> None:
    sandbox = world.sandbox("sh", "-c", "echo x > /etc/new; mkdir /srv", mounts=FILES)
    assert world.start(sandbox)[0].status == 0
    assert [entry[0] for entry in tree_of(sandbox.root.upper)] == ["etc", "etc/new", "srv"]


def _hide_stubs(world: Any, how: str) -> str:
    """A layer that keeps what is below it from showing through."""
    layer = world.path("hiding")
    os.makedirs(layer + "/etc")
    os.utime(layer + "/etc", (1, 1))
    if how == "opaque":
        os.setxattr(layer + "/etc", "trusted.overlay.opaque", b"y")
    else:
        for path in ("/etc/resolv.conf", "/etc/hosts", "/proc", "/dev", "/sys"):
            os.mknod(layer + path, stat.S_IFCHR, os.makedev(0, 0))
        os.utime(layer + "/etc", (1, 1))
    return layer


@pytest.mark.parametrize("how", ["opaque", "whiteouts"])
def test_hidden_mount_points_are_made_and_removed(
    world: Any, tree_of: Callable[[str], Any], how: str
) -> None:
    root = world.overlay(_hide_stubs(world, how), world.path("image"))
    os.utime(root.upper, (5, 5))
    script = "stat -c %Y /etc; cat /etc/hosts; ls /proc/self/fd/1; ls /sys/kernel >/dev/null"
    output = world.sh(script, root=root, mounts=FILES)
    assert output.splitlines()[:2] == ["1", "127.0.0.1 localhost"]
    assert tree_of(root.upper) == []
    assert os.stat(root.upper).st_mtime == 5


def test_what_a_step_puts_beside_made_mount_points_stays(world: Any, tree_of: Callable[[str], Any]) -> None:
    root = world.overlay(_hide_stubs(world, "opaque"), world.path("image"))
    world.sh("echo > /etc/mine", root=root, mounts=FILES)
    assert [entry[0] for entry in tree_of(root.upper)] == ["etc", "etc/mine"]
    root = world.overlay(*root.lowers)
    world.sh("chmod 700 /etc", root=root, mounts=FILES)
    assert [(name, stat.S_IMODE(mode)) for name, mode, *_ in tree_of(root.upper)] == [("etc", 0o700)]


def test_a_directory_as_root(world: Any, tree_of: Callable[[str], Any]) -> None:
    image = world.path("image")
    os.mkdir(image + "/etc")
    before = tree_of(image)
    assert world.sh("cat /etc/hosts; echo $$", root=Bind(image), mounts=FILES).split()[-1] == "1"
    assert tree_of(image) == before
    world.sh("echo > /kept", root=Bind(image))
    assert os.path.exists(image + "/kept")
    exit_, _ = world.run("true", root=Bind(image, read_only=True))
    assert (exit_.status, "Read-only file system" in exit_.error) == (125, True)


def test_mounts(world: Any, tree_of: Callable[[str], Any]) -> None:
    cache = world.path("cache")
    os.mkdir(cache)
    with open(world.path("file"), "w") as file:
        file.write("content")
    mounts = (
        *FILES,
        Bind(cache, "/cache"),
        Bind(world.path("file"), "/made/name", read_only=True),
        Tmpfs("/run/small", size=65536, mode=0o700),
        File("/cache/sub/script", b"#!/bin/sh\necho ran\n", 0o755),
        File("/dev/pipes/here", b"echo piped\n"),
    )
    script = (
        "/cache/sub/script; sh /dev/pipes/here; cat /made/name; stat -c %a /run/small; echo > /cache/kept"
    )
    assert world.sh(script, mounts=mounts) == "ran\npiped\ncontent700\n"
    assert [entry[0] for entry in tree_of(cache)] == ["kept"]
    for command in (
        "echo > /etc/hosts",
        "rm /etc/resolv.conf",
        "echo > /made/name",
        "dd if=/dev/zero of=/run/small/x bs=1k count=99",
    ):
        assert world.run("sh", "-c", command, mounts=mounts)[0].status != 0, command


def test_a_long_order(world: Any) -> None:
    content = os.urandom(1000).hex().encode() * 200
    env = (("PATH", "/bin"), *((f"NAME{number}", "x" * 100) for number in range(1000)))
    assert world.sh("wc -c < /big", mounts=(File("/big", content),), env=env).strip() == str(len(content))


# --- layers


@pytest.mark.parametrize("overlay_by", [1, 2])
@pytest.mark.parametrize("count", [1, 130, 300])
def test_many_layers(top: str, world: Any, count: int, overlay_by: int) -> None:
    """SECURITY.md R20."""
    layers = []
    for number in range(count):
        layers.append(world.path(f"layer-with-a-name-of-some-length-{number}"))
        os.mkdir(layers[-1])
        with open(f"{layers[-1]}/f{number}", "w") as file:
            file.write("x")
    with Launcher(top + "/stubs", overlay_by=overlay_by) as world.launcher:
        assert world.sh("ls /f* | wc -l", root=world.overlay(*layers, world.path("image"))).strip() == str(
            count
        )


@pytest.mark.parametrize("overlay_by", [1, 2])
def test_names_that_are_options(top: str, world: Any, overlay_by: int) -> None:
    names = ["a:b", "c,upperdir=d", "e\\f", "g\nh", "i j", '"k"', "%s", "l\\:m", "n\udcff"]
    layers = [world.image(name) for name in names]
    for number, layer in enumerate(layers):
        os.mkdir(f"{layer}/d{number}")
    odd = world.path("up:p,e\\r\n")
    os.makedirs(odd + "/upper")
    os.mkdir(odd + "/work")
    with Launcher(top + "/stubs", overlay_by=overlay_by) as world.launcher:
        root = Overlay(tuple(layers), odd + "/upper", odd + "/work")
        assert world.sh("ls -d /d[0-9]* | wc -l; echo > /new", root=root).strip() == str(len(names))
    assert os.listdir(odd + "/upper") == ["new"]


def test_a_read_only_overlay(world: Any) -> None:
    root = Overlay((world.path("image"),))
    assert "Read-only" in world.run("sh", "-c", "echo > /x", root=root)[1]


def test_a_missing_layer_is_named(world: Any) -> None:
    exit_, _ = world.run("true", root=world.overlay("/no/such/layer", world.path("image")))
    assert exit_.status == 125
    assert exit_.error == "root file system: open layer: No such file or directory '/no/such/layer'"


# --- living and dying


def test_a_thousand_runs_leak_nothing(world: Any) -> None:
    world.run("true")
    time.sleep(0.1)
    open_there = lambda: len(os.listdir(f"/proc/{world.launcher.pid}/fd"))  # noqa: E731
    before, before_there = descriptors(), open_there()
    overlay = world.overlay()
    sandbox = replace(world.sandbox("true"), root=Overlay(overlay.lowers))
    failures: list[object] = []

    def some() -> None:
        for _ in range(250):
            exit_ = world.launcher.run(sandbox, output_fd=2)
            if exit_.status:
                failures.append(exit_)

    threads = [threading.Thread(target=some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    until(lambda: open_there() <= before_there)  # the answer comes before the launcher's last close
    no_descriptor_more_than(before)


def test_kill_all(world: Any) -> None:
    moment = nap()
    ends: list[Any] = []
    sandboxes = [world.sandbox("sh", "-c", f"sleep {moment} & sleep {moment}") for _ in range(3)]
    threads = [threading.Thread(target=lambda box=box: ends.append(world.start(box))) for box in sandboxes]
    for thread in threads:
        thread.start()
    until(lambda: sleeping(moment))
    begun = time.monotonic()
    while len(ends) < 3:
        world.launcher.kill_all()  # a step may be starting up yet
        time.sleep(0.01)
    assert [exit_.status for exit_, _ in ends] == [137] * 3
    assert time.monotonic() - begun < 60
    until(lambda: not sleeping(moment))
    for thread in threads:
        thread.join()
    assert world.run("true")[0].status == 0


def test_nobody_waits_any_more(world: Any) -> None:
    moment = nap()
    with world.launcher.begin(world.sandbox("sleep", moment), output_fd=2):
        until(lambda: sleeping(moment))
    until(lambda: not sleeping(moment))


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_killed_launcher_takes_its_steps_along(world: Any, uid: int) -> None:
    """SECURITY.md S96. A change of ids takes the parent's death away from a process."""
    moment = nap()
    step = world.sandbox("sh", "-c", f"sleep {moment}; true", uid=uid, gid=uid)
    with world.launcher.begin(step, output_fd=2) as running:
        until(lambda: sleeping(moment))
        os.kill(world.launcher.pid, signal.SIGKILL)
        with pytest.raises(OSError, match="launcher"):
            running.wait()
    until(lambda: not sleeping(moment))
    with pytest.raises(OSError):
        world.run("true")


def test_a_killed_builder_takes_everything_along(world: Any) -> None:
    """SECURITY.md S96."""
    moment, root = nap(), world.overlay()
    code = (
        "from builder.sandbox.run import Launcher; from builder.sandbox.spec import *\n"
        f"root = Overlay({root.lowers!r}, {root.upper!r}, {root.work!r})\n"
        f"script = 'sleep {moment} & sleep {moment}'\n"
        "Launcher().run(Sandbox(root, ('/bin/sh', '-c', script), (('PATH', '/bin'),)), output_fd=1)\n"
    )
    builder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    until(lambda: sleeping(moment))
    builder.kill()
    builder.wait()
    until(lambda: not sleeping(moment))
    assert builder.stdout is not None
    builder.stdout.read()  # ends only when no process of the step holds the pipe
    builder.stdout.close()


def test_interpreter_cannot_be_overwritten_through_proc(world: Any) -> None:
    """CVE-2019-5736: the launcher's program is seen through a read-only mount, whoever opens it, or is a copy
    (see test_s10_...).
    """
    world.run("true")
    program = f"/proc/{world.launcher.pid}/exe"
    copy = os.readlink(program) == "/memfd:pybuild (deleted)"
    assert copy or os.statvfs(program).f_flag & os.ST_RDONLY


def test_launcher_imports_little(world: Any) -> None:
    """Its start stands before the first RUN; each of these costs milliseconds (KERNEL.md 2.1)."""
    code = (
        "import sys\n"
        "for name, path in (('builder', sys.argv[1]), ('builder.sandbox', sys.argv[1] + '/sandbox')):\n"
        "    module = sys.modules[name] = type(sys)(name)\n"
        "    module.__path__ = [path]\n"
        "import builder.sandbox.launcher\n"
        "print(*sys.modules)\n"
    )
    import builder.sandbox.run as run

    folder = os.path.dirname(os.path.dirname(run.__file__))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, folder], capture_output=True, text=True, check=True
    )
    slow = {
        "socket",
        "signal",
        "typing",
        "dataclasses",
        "json",
        "subprocess",
        "re",
        "enum",
        "builder.sandbox.spec",
    }
    assert not slow & set(done.stdout.split())


def test_too_many_layers_say_so(world: Any) -> None:
    """SECURITY.md R20."""
    layers = [world.path(f"l{number}") for number in range(501)]
    for layer in layers:
        os.mkdir(layer)
    exit_, _ = world.run("true", root=world.overlay(*layers, world.path("image")))
    assert exit_.status == 125
    assert "500" in exit_.error


def test_a_used_work_directory_is_refused(world: Any) -> None:
    """`volatile` leaves its mark: a snapshot whose step ended is not mounted again by mistake."""
    root = world.overlay()
    assert world.run("true", root=root)[0].status == 0
    exit_, _ = world.run("true", root=root)
    assert exit_.status == 125
    assert exit_.error.startswith(("root file system: fsconfig", "root file system: mount overlay"))


def test_who_leaves_early_finds_it_gone(world: Any) -> None:
    """Killed, and waited for: nothing holds its files and memory any more when the block is left."""
    read, write = os.pipe()
    script = "head -c 300000000 /dev/zero > /dev/shm/big; echo here; exec sleep 8300"
    with world.launcher.begin(world.sandbox("sh", "-c", script, shm_size=400 << 20), output_fd=write):
        os.close(write)
        assert os.read(read, 100) == b"here\n"
        assert children(world.launcher.pid)
    assert not children(world.launcher.pid)
    os.close(read)


def children(pid: int) -> list[str]:
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()
