"""A process that joins a running sandbox: what `exec` gives, and what the sandbox can do to it (S92)."""

from __future__ import annotations

import os
import platform
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from test_confinement import CALLS, LOADER, WRITER
from test_confinement import number as call
from test_limits import groups
from test_terminal import closing, read_all

from builder.sandbox import launcher as there
from builder.sandbox.run import Launcher, Running
from builder.sandbox.spec import Bind, Exit, File, Limits, Sandbox, Terminal, Tmpfs
from builder.sandbox.terminal import set_size

pytestmark = pytest.mark.root

LOOK = (
    "grep -E '^(Cap|Seccomp|NoNewPrivs|Groups|Uid|Gid)' /proc/self/status; cat /proc/self/limits;"
    "for n in mnt pid net ipc uts cgroup user; do readlink /proc/self/ns/$n; done; cat /proc/self/mountinfo"
)


class Container:
    """A sandbox that sleeps, and processes that join it."""

    def __init__(self, world: Any, running: Running) -> None:
        self.world = world
        self.running = running

    def join(self, *argv: str, **rest: Any) -> tuple[Exit, str]:
        return self.start(Sandbox(Bind("/nowhere"), argv, **({"env": (("PATH", "/bin"),)} | rest)))

    def start(self, sandbox: Sandbox, **more: Any) -> tuple[Exit, str]:
        """How it ended and what it printed, to its last process's end."""
        read, write = os.pipe()
        blocks: list[bytes] = []
        reader = threading.Thread(target=lambda: blocks.extend(iter(lambda: os.read(read, 65536), b"")))
        reader.start()
        try:
            with self.world.launcher.join(self.running, sandbox, output_fd=write, **more) as joined:
                exit_ = joined.wait()
        finally:
            os.close(write)
            reader.join()
            os.close(read)
        return exit_, b"".join(blocks).decode(errors="surrogateescape")

    def sh(self, script: str, **rest: Any) -> str:
        exit_, output = self.join("sh", "-c", script, **rest)
        assert exit_.status == 0, (exit_, output)
        return output

    def begin(self, *argv: str, output_fd: int | None = 2, **rest: Any) -> Running:
        rest = {"env": (("PATH", "/bin"),)} | rest
        joined = self.world.launcher.join(self.running, Sandbox(Bind("/"), argv, **rest), output_fd=output_fd)
        assert isinstance(joined, Running)
        return joined


@contextmanager
def contained(world: Any, *argv: str, cgroup: Any = None, **rest: Any) -> Iterator[Container]:
    sandbox = world.sandbox(*(argv or ("sleep", "8500")), **rest)
    with world.launcher.begin(sandbox, output_fd=2, cgroup=cgroup, tell_pid=True) as running:
        yield Container(world, running)


@pytest.fixture
def box(world: Any) -> Iterator[Container]:
    with contained(world, hostname="boxy", mounts=(Tmpfs("/own"), File("/etc/hosts", b"of the box\n"))) as it:
        yield it


def test_it_is_in_the_container(box: Container) -> None:
    """Processes, names, mounts and files are the container's; program, variables and status its own."""
    exit_, output = box.join("sh", "-c", "hostname; cat /etc/hosts; echo $X; ps; exit 7", env=(("X", "y"),
                             ("PATH", "/bin")))  # fmt: skip
    assert exit_.status == 7
    assert output.startswith("boxy\nof the box\ny\n")
    assert "1 0        sleep 8500" in output
    box.sh("echo kept > /own/file; echo root > /file")
    assert box.sh("cat /own/file /file; ls /sys/class/net") == "kept\nroot\nlo\n"


def test_s92_it_is_confined_like_a_first_process(world: Any) -> None:
    """The same capabilities, filter, ids, limits, namespaces and mounts as that has, and no others."""
    for who in ({}, {"uid": 7, "gid": 8, "groups": (8, 9)}, {"no_new_privileges": True}):
        read, write = os.pipe()
        sandbox = world.sandbox("sh", "-c", f"{LOOK}; echo; exec sleep 8500", **who)
        with world.launcher.begin(sandbox, output_fd=write, tell_pid=True) as running:
            os.close(write)
            first = b""
            while not first.endswith(b"\n\n"):
                first += os.read(read, 65536)
            joined = Container(world, running).sh(LOOK, **who)
        os.close(read)
        assert joined == first.decode()[:-1]
    assert "CapEff:\t00000000a80425fb" in world.sh(LOOK)


def test_s92_privileges_are_those_asked_for(world: Any) -> None:
    with contained(world) as box:
        assert "CapEff:\t0000000000000400" in box.sh(LOOK, capabilities=frozenset({"NET_BIND_SERVICE"}))
        assert "Seccomp:\t0" in box.sh(LOOK, unfiltered=True)
        assert "CapEff:\t0000000000000000" in box.sh(LOOK, uid=5)
        everything = box.sh("grep -E 'CapEff|Seccomp:' /proc/self/status", privileged=True)
        with open(f"/proc/{os.getpid()}/status") as status:
            (mine,) = (line for line in status if line.startswith("CapPrm"))
        assert everything == f"CapEff:\t{mine.split()[1]}\nSeccomp:\t0\n"
        limits = box.sh("cat /proc/self/limits", rlimits=(("nofile", 77, 88),))
        assert "Max open files            77                   88" in limits


def test_a_process_id_is_told(world: Any) -> None:
    with contained(world) as box:
        assert os.readlink(f"/proc/{box.running.pid}/ns/pid") != os.readlink("/proc/self/ns/pid")
        with open(f"/proc/{box.running.pid}/status") as status:
            (line,) = (line for line in status if line.startswith("NSpid"))
        assert line.split()[1:] == [str(box.running.pid), "1"]
        with box.begin("sleep", "8500") as joined:
            assert os.readlink(f"/proc/{joined.pid}/ns/pid") == os.readlink(f"/proc/{box.running.pid}/ns/pid")
    with world.launcher.begin(world.sandbox("true"), output_fd=2) as running:
        assert running.pid == 0
        assert running.wait().status == 0


def test_the_end_can_be_polled_for(world: Any) -> None:
    """Also where a terminal and a process id are told first, which nobody took yet."""
    sandbox = world.sandbox("sh", "-c", "exit 4", terminal=Terminal())
    with world.launcher.begin(sandbox, output_fd=None, tell_pid=True) as running:
        assert select.select([running], [], [], 30)[0] == [running]
        assert running.wait().status == 4
        assert running.pid > 0
        with closing(running.terminal()) as master:
            assert read_all(master) == ""
    broken = world.sandbox("true", root=Bind(world.path("missing")), terminal=Terminal())
    with world.launcher.begin(broken, output_fd=None, tell_pid=True) as running:
        assert select.select([running], [], [], 30)[0] == [running]
        assert running.wait().status == 125
        assert running.terminal() == -1


def test_a_terminal_of_its_own(world: Any) -> None:
    """In the container's own devpts; /dev/console stays that of its first process."""
    look = "readlink /proc/self/fd/0; busybox stty size; echo said > /dev/tty; ls /dev/pts"
    with contained(world) as box:
        for _ in range(2):
            with box.begin("sh", "-c", look, output_fd=None, terminal=Terminal(31, 97)) as joined:
                with closing(joined.terminal()) as master:
                    assert read_all(master).split() == ["/dev/pts/0", "31", "97", "said", "0", "ptmx"]
                assert joined.wait().status == 0
        script = "trap 'busybox stty size; exit' WINCH; echo up; while :; do sleep 0.05; done"
        with box.begin("sh", "-c", script, output_fd=None, terminal=Terminal(1, 2), uid=9) as joined:
            with closing(joined.terminal()) as master:
                assert os.read(master, 100) == b"up\r\n"
                set_size(master, 5, 6)
                assert read_all(master) == "5 6\n"


def test_its_streams(box: Container) -> None:
    reading, writing = os.pipe()
    errors, error_end = os.pipe()
    os.write(writing, b"typed\n")
    os.close(writing)
    sandbox = Sandbox(Bind("/"), ("sh", "-c", "cat; echo wrong >&2; echo again > /dev/stdout"),
                      env=(("PATH", "/bin"),), uid=33)  # fmt: skip
    exit_, output = box.start(sandbox, stdin_fd=reading, error_fd=error_end)
    os.close(error_end)
    assert (exit_.status, output, os.read(errors, 100)) == (0, "typed\nagain\n", b"wrong\n")
    for fd in (reading, errors):
        os.close(fd)


def test_s92_three_descriptors_and_no_more(box: Container) -> None:
    """S12, and with none given a standard input that is empty."""
    output = box.sh("ls /proc/$$/fd; readlink /proc/self/fd/0; cat")
    assert output.split() == ["0", "1", "2", "/dev/null"]
    assert box.sh("readlink /proc/self/fd/1; readlink /proc/self/fd/2").count("pipe:") == 2


def test_signals_do_what_they_do_anywhere(box: Container) -> None:
    for number, status in ((signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, 137)):
        reading, writing = os.pipe()
        with box.begin("sh", "-c", "echo up; exec sleep 8501", output_fd=writing) as joined:
            os.close(writing)
            os.read(reading, 10)
            joined.signal(number)
            assert joined.wait().status == status
        os.close(reading)


def test_it_ends_with_the_container(world: Any) -> None:
    with contained(world) as box, box.begin("sleep", "8502") as joined:
        assert joined.pid > 0
        box.running.signal(9)
        assert box.running.wait().status == 137
        assert joined.wait().status == 137
        late = box.join("true")[0]
        assert (late.status, late.error) == (125, "join: the container is not running")


def test_its_children_stay(box: Container) -> None:
    """As in Docker: they are the container's."""
    exit_, _ = box.join("sh", "-c", "sleep 8503 > /dev/null 2>&1 &")
    assert exit_.status == 0
    assert "sleep 8503" in box.sh("ps")
    with box.begin("sleep", "8504"):
        box.sh("until ps | grep -q '[8]504'; do sleep 0.01; done")
    assert "sleep 8504" not in box.sh("ps"), "nobody waited for it"


def test_a_killed_launcher_takes_it_along(world: Any) -> None:
    """SECURITY.md S96."""
    with contained(world) as box, box.begin("sleep", "8505") as joined:
        pids = (box.running.pid, joined.pid)
        os.kill(world.launcher.pid, signal.SIGKILL)
        with pytest.raises(OSError, match="launcher"):
            joined.wait()
        with pytest.raises(OSError, match="launcher"):
            box.running.wait()
    _until(lambda: not any(map(_command, pids)))


def _command(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def test_s92_nobody_joins_before_the_program_has_started(world: Any) -> None:
    """Until then the root directory may still be the host's: they wait, and are told when it never starts."""
    for _ in range(10):
        with contained(world) as box:
            assert box.sh("ls -d /proc/1/root/bin; cat /proc/1/cmdline").startswith("/proc/1/root/bin\nsleep")
    for broken, status in ((world.sandbox("nothing"), 127), (world.sandbox("true", root=Bind("/no")), 125)):
        with world.launcher.begin(broken, output_fd=2, tell_pid=True) as running:
            exit_, output = Container(world, running).join("true")
            assert (exit_.status, exit_.error, output) == (125, "join: the container is not running", "")
            assert running.wait().status == status


def test_who_cannot_be_joined(world: Any) -> None:
    sandbox = world.sandbox("sleep", "8506")
    with world.launcher.begin(sandbox, output_fd=2) as running, pytest.raises(ValueError, match="tell_pid"):
        world.launcher.join(running, sandbox, output_fd=2)
    with contained(world) as box:
        with pytest.raises(ValueError, match="namespaces"):
            box.begin("true", chroot=True)
        with box.begin("sleep", "8507") as joined, pytest.raises(ValueError, match="tell_pid"):
            world.launcher.join(joined, sandbox, output_fd=2)
        with Launcher() as other:
            with other.join(box.running, sandbox, output_fd=2) as joined:
                assert joined.wait().error == "join: the container is not running"


def test_what_cannot_be_executed(box: Container) -> None:
    assert box.join("nothing")[0].status == 127
    assert box.join("/proc")[0].status == 126


def test_working_directories(box: Container) -> None:
    """One that is missing is not made: so it is with `docker exec`, and who lives there is not served."""
    assert box.sh("pwd", cwd="/bin") == "/bin\n"
    exit_, _ = box.join("true", cwd="/missing/x")
    assert (exit_.status, exit_.error) == (127, "working directory /missing/x: no such file or directory")
    assert box.join("true", cwd="/bin/busybox")[0].status == 126
    assert "missing" not in box.sh("ls /")
    box.sh("mkdir -m 700 /closed")
    assert box.sh("pwd", cwd="/closed", uid=1000) == "/closed\n"


def test_s92_a_descriptor_is_no_working_directory(world: Any) -> None:
    """S13, CVE-2024-21626: by name and by a link of the image, of its own and of its neighbours."""
    for number in range(65):
        os.symlink(f"/proc/self/fd/{number}", world.path(f"image/fd{number}"))
    with contained(world) as box:
        for number in range(65):
            for cwd in (f"/proc/self/fd/{number}", f"/fd{number}"):
                assert box.join("true", cwd=cwd)[0].status in (126, 127), cwd
        for cwd in ("/proc/1/root/bin", "/proc/self/cwd", "/proc/self/root/bin"):
            assert box.sh("ls -d /bin/busybox", cwd=cwd) == "/bin/busybox\n"


def test_s92_its_program_is_the_containers(world: Any) -> None:
    """S45: neither the interpreter's modules nor the loader's list is the image's."""
    for name in ("etc/ld.so.preload", f"usr/lib/python3.{sys.version_info.minor}/os.py"):
        os.makedirs(os.path.dirname(world.path(f"image/{name}")))
        with open(world.path(f"image/{name}"), "w") as file:
            file.write("/evil.so\n")
    with contained(world) as box:
        assert box.sh("echo $0; cat /proc/1/comm") == "sh\nsleep\n"


def test_s92_nothing_of_the_image_is_opened(world: Any, tmp_path: Any) -> None:
    """S45, told by strace: from the container's mounts to execve it opens no file, and starts nothing."""
    trace = str(tmp_path / "trace")
    root = world.overlay()
    code = (
        "from builder.sandbox.run import Launcher\nfrom builder.sandbox.spec import *\n"
        f"root = Overlay({root.lowers!r}, {root.upper!r}, {root.work!r})\n"
        "env = (('PATH', '/bin'),)\nbox = Sandbox(root, ('sleep', '60'), env=env, network='none')\n"
        "more = Sandbox(root, ('true',), env=env, uid=7, cwd='/bin')\n"
        f"with Launcher({world.path('stubs2')!r}) as launcher:\n"
        "    with launcher.begin(box, output_fd=2, tell_pid=True) as running:\n"
        "        with launcher.join(running, more, output_fd=2) as joined:\n"
        "            assert joined.wait().status == 0\n"
    )
    subprocess.run(["strace", "-f", "-o", trace, sys.executable, "-c", code], check=True, capture_output=True)
    with open(trace) as file:
        rows = [line.split(" ", 1) for line in file]
    (pid,) = {pid for pid, text in rows if "setns(" in text and "CLONE_NEWNS" in text}
    calls = [text.strip() for each, text in rows if each == pid]
    first = next(at for at, text in enumerate(calls) if "CLONE_NEWNS" in text)
    last = next(at for at, text in enumerate(calls) if at > first and text.startswith("execve("))
    own = 'openat(AT_FDCWD, "/proc/self/fd", '
    names = [text.split("(")[0] for text in calls[first:last] if not text.startswith(own)]
    assert not {"open", "openat", "openat2", "execve", "clone", "fork", "vfork", "connect"} & {*names}
    entered = next(at for at, text in enumerate(calls[first:last]) if text.startswith('chdir("/bin"'))
    assert names.index("close_range") < entered
    assert names.index("seccomp") < names.index("setresuid")
    assert calls[last].startswith('execve("/bin/true"')


def _install(world: Any, program: str, name: str) -> None:
    os.makedirs(os.path.dirname(world.path(f"image/{name}")), exist_ok=True)
    shutil.copy(program, world.path(f"image/{name}"))
    os.chmod(world.path(f"image/{name}"), 0o755)


def test_s92_the_interpreter_cannot_be_written_to(
    world: Any, compiled: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """S10, CVE-2019-5736, which was found in `exec`: see test_confinement for what these programs do."""
    if platform.machine() != "x86_64":
        pytest.skip("the machine is no x86-64, for which the loader is written")
    python = world.path("python3")
    shutil.copy(os.path.realpath(sys._base_executable), python)  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "_base_executable", python)
    with open(python, "rb") as file:
        before = file.read()
    _install(world, compiled(WRITER), "bin/writer")
    flags = ["-nostdlib", "-static-pie", "-fPIE", "-fno-stack-protector", "-ffreestanding"]
    for name in ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-x86-64.so.2"):
        _install(world, compiled(LOADER, *flags), name)
    with open(world.path("image/again"), "w") as file:
        file.write("#!/proc/self/exe\n")
    os.chmod(world.path("image/again"), 0o755)
    with Launcher(world.path("stubs2")) as world.launcher, contained(world) as box:
        exit_, output = box.join("/again")
    assert exit_.status == 0 and output.split()[0] == "0", (exit_, output)  # written nothing
    with open(python, "rb") as file:
        assert file.read() == before


SPY = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
/* Watches for processes that come into this pid namespace, and tries to get hold of each at once. */
int main(void) {
    int next = getpid() + 1, refused = 0, caught = 0, seen = 0;
    char name[64], link[256];
    printf("up\n"); fflush(stdout);
    while (seen < 40) {
        int last = 0;
        FILE *load = fopen("/proc/loadavg", "r");
        if (load) { fscanf(load, "%*s %*s %*s %*s %d", &last); fclose(load); }
        for (int pid = next; pid <= last; pid++) {
            next = pid + 1; seen++;
            sprintf(name, "/proc/%d/comm", pid);
            if (access(name, F_OK)) continue;
            sprintf(name, "/proc/%d/exe", pid);
            for (;;) {
                long size = readlink(name, link, 255);
                if (size < 0 && errno != EACCES && errno != EPERM) break;
                if (size < 0) {
                    int held = 0;
                    refused++;
                    sprintf(link, "/proc/%d/fd/3", pid);
                    held += open(link, O_RDONLY) >= 0;
                    sprintf(link, "/proc/%d/mem", pid);
                    held += open(link, O_RDWR) >= 0;
                    if (ptrace(PTRACE_SEIZE, pid, 0, 0) == 0) {
                        held++;
                        ptrace(PTRACE_INTERRUPT, pid, 0, 0);
                        waitpid(pid, 0, __WALL);
                    }
                    if (held && readlink(name, link, 255) < 0 && errno == EACCES) caught++;
                    ptrace(PTRACE_DETACH, pid, 0, 0);
                }
                else { link[size] = 0; caught += strncmp(link, "/bin/", 5) != 0; break; }
            }
        }
    }
    printf("%d %d\n", refused > 0, caught);
    return 0;
}
"""


def test_s92_the_container_gets_no_hold_of_a_joining_process(
    world: Any, compiled: Callable[..., str]
) -> None:
    """S11: root of the container sees it come, and can neither trace it nor read its memory or descriptors
    before it is one of the container's own programs.
    """
    _install(world, compiled(SPY), "bin/spy")
    reading, writing = os.pipe()
    with world.launcher.begin(world.sandbox("spy"), output_fd=writing, tell_pid=True) as running:
        os.close(writing)
        assert os.read(reading, 10) == b"up\n"
        box = Container(world, running)
        while os.path.exists(f"/proc/{running.pid}/root/bin"):
            box.join("true")
        assert running.wait().status == 0
    assert os.read(reading, 100) == b"1 0\n"
    os.close(reading)


def test_s92_it_has_a_session_keyring_of_its_own(world: Any, compiled: Callable[..., str]) -> None:
    _install(world, compiled(CALLS), "bin/calls")
    look = ("calls", f"{call('keyctl')},0,-3,0")  # KEYCTL_GET_KEYRING_ID
    with contained(world) as box:
        first, second = (box.join(*look, unfiltered=True)[1] for _ in range(2))
    assert int(first) > 0 and int(second) > 0 and first != second


def test_s92_who_never_reached_its_program_is_joined_by_nobody() -> None:
    """A container that has failed and is not reaped yet: its root directory may be the host's."""
    launcher = there.Launcher.__new__(there.Launcher)
    begun: list[Any] = []
    launcher._begin = lambda plan, fds, answer, target=None: begun.append(target)  # type: ignore[method-assign]
    launcher.joining = {}
    for said, joined in (((b"R",), True), ((b"R", b"E"), False), ((b"E",), False), ((), False)):
        target = SimpleNamespace(
            number=7, begins=lambda: False, reported=lambda said=said: [(k, b"") for k in said]
        )
        launcher.by_pidfd = {9: target}  # type: ignore[dict-item]
        answer, told = socket.socketpair()
        begun.clear()
        launcher._join(SimpleNamespace(join=7), [], answer)  # type: ignore[arg-type]
        assert (begun == [target]) is joined, said
        answer.close()
        assert joined or b"the container is not running" in told.recv(200)
        told.close()


TRACER = r"""
#include <stdio.h>
#include <sys/ptrace.h>
#include <unistd.h>
/* Traces the next process that comes, as soon as it can, and never lets go. */
int main(void) {
    int pid = getpid() + 1;
    printf("up\n"); fflush(stdout);
    while (ptrace(PTRACE_SEIZE, pid, 0, 0)) ;
    printf("held\n"); fflush(stdout);
    for (;;) pause();
}
"""


def test_s92_who_traces_a_joined_process_holds_up_nobody_else(
    world: Any, compiled: Callable[..., str]
) -> None:
    """What is traced cannot be reaped when it ends: the launcher must not wait for that."""
    _install(world, compiled(TRACER), "bin/tracer")
    reading, writing = os.pipe()
    with world.launcher.begin(world.sandbox("tracer"), output_fd=writing, tell_pid=True) as running:
        os.close(writing)
        assert os.read(reading, 10) == b"up\n"
        box = Container(world, running)
        with box.begin("sleep", "8508") as joined:
            assert os.read(reading, 10) == b"held\n"
            joined.signal(signal.SIGKILL)
            _until(lambda: _state(joined.pid) == "Z")
            assert box.join("true")[0].status == 0
            running.signal(signal.SIGKILL)
            assert running.wait().status == 137
            assert joined.wait().status == 137
    os.close(reading)


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def _until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_s92_it_is_in_the_containers_cgroups(world: Any) -> None:
    """Where they bring it, it is born in them, and sees them as the top as its first process does."""
    with groups(each=Limits(pids=20)) as made, made.step() as group, contained(world, cgroup=group) as box:
        sandbox = Sandbox(Bind("/"), ("sh", "-c", "cat /proc/self/cgroup /proc/1/cgroup"),
                          env=(("PATH", "/bin"),))  # fmt: skip
        exit_, output = box.start(sandbox, cgroup=group)
        lines = output.split()
        assert exit_.status == 0 and lines[: len(lines) // 2] == lines[len(lines) // 2 :]
        assert any(line.endswith(":/") for line in lines)
        script = "for n in $(seq 30); do sleep 1 & done"
        assert box.start(replace(sandbox, argv=("sh", "-c", script)), cgroup=group)[0].status != 0
        assert group.used().refused > 0


def test_a_long_order(box: Container) -> None:
    output = box.sh("echo ${#X}", env=(("PATH", "/bin"), ("X", "x" * 100_000)))
    assert output == "100000\n"


def test_many_at_once(box: Container) -> None:
    failed: list[object] = []

    def several() -> None:
        for _ in range(15):
            exit_, output = box.join("sh", "-c", "echo $$; cat /proc/1/comm")
            if exit_.status or not output.endswith("sleep\n"):
                failed.append((exit_, output))

    threads = [threading.Thread(target=several) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
