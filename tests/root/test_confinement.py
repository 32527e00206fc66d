"""What a process in a step cannot reach or change: one test per requirement of SECURITY.md, section 3."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

from builder.sandbox import abi, syscalls
from builder.sandbox import run as run_module
from builder.sandbox.run import Launcher
from builder.sandbox.spec import Bind, File, Layers, Overlay, Tmpfs

pytestmark = pytest.mark.root

Compiled = Callable[..., str]

CALLS = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
/* Each argument is a call: its number and its arguments, with commas; `@text` is a pointer to that text. */
int main(int argc, char **argv) {
    for (int at = 1; at < argc; at++) {
        long words[7] = {0}; int count = 0;
        for (char *word = strtok(argv[at], ","); word && count < 7; word = strtok(0, ","))
            words[count++] = *word == '@' ? (long)(word + 1) : strtol(word, 0, 0);
        long result = syscall(words[0], words[1], words[2], words[3], words[4], words[5], words[6]);
        printf("%ld\n", result < 0 ? -(long)errno : result);
    }
    return 0;
}
"""


def install(world: Any, program: str, name: str, mode: int = 0o755) -> None:
    shutil.copy(program, world.path(f"image/bin/{name}"))
    os.chmod(world.path(f"image/bin/{name}"), mode)


def number(name: str) -> int:
    """Of a system call of this machine."""
    return abi.numbers(abi.X86_64 if platform.machine() == "x86_64" else abi.AARCH64)[name]


def calls(world: Any, compiled: Compiled, *texts: str, **rest: Any) -> list[int]:
    """What system calls answer in a step: the result, or the errno below zero. Numbers are of x86-64."""
    if platform.machine() != "x86_64":
        pytest.skip("the machine is no x86-64, whose numbers of calls are used")
    install(world, compiled(CALLS), "calls")
    exit_, output = world.run("calls", *texts, **rest)
    assert exit_.status == 0, (exit_, output)
    return [int(line) for line in output.split()]


# --- S10, S11: the program that makes steps

LOADER = r"""
static long call(long n, long a, long b, long c) {
    long r; __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r; }
void _start(void) {
    /* The program that runs here is the builder's, its dynamic loader is ours: hold on to it by descriptor
       (O_PATH), for a program that opens it again when nobody executes it any more. */
    const char *argv[] = {"writer", 0}, *env[] = {0};
    long opened = 0;
    for (int turn = 0; turn < 1000; turn++)
        opened += call(2, (long)(turn & 1 ? "/proc/self/exe" : "/proc/1/exe"), 01 | 01000, 0) >= 0;
    call(33, call(2, (long)"/proc/self/exe", 010000000, 0), 9, 0);
    if (!opened) call(59, (long)"/bin/writer", (long)argv, (long)env);
    call(60, 1, 0, 0);
}
"""

WRITER = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
int main(void) {
    int written = 0, failed = 0;
    for (int turn = 0; turn < 20000; turn++) {
        int fd = open("/proc/self/fd/9", turn & 1 ? O_RDWR : O_WRONLY | O_TRUNC);
        if (fd < 0) failed = errno;
        else { written += write(fd, "#", 1) == 1; close(fd); }
    }
    int mode = chmod("/proc/self/fd/9", 06777) ? errno : 0;
    char name[256]; int size = readlink("/proc/self/fd/9", name, 255);
    printf("%d %d %d %.*s\n", written, failed, mode, size, name);
    return 0;
}
"""


@pytest.mark.parametrize("way", ["read-only mount", "sealed copy"])
def test_s10_the_interpreter_cannot_be_written_to(
    world: Any, compiled: Compiled, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """CVE-2019-5736 with all its steps: the image lets the kernel run the builder's program again, with a
    loader of its own, which opens that program for writing, also when it no longer runs.

    The program is a copy of the interpreter, so that only the copy is lost should this ever succeed.
    """
    if platform.machine() != "x86_64":
        pytest.skip("the machine is no x86-64, for which the loader is written")
    python = world.path("python3")
    shutil.copy(os.path.realpath(sys._base_executable), python)  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "_base_executable", python)
    if way == "sealed copy":
        monkeypatch.setattr(run_module, "_read_only_clone", lambda _: -1)
    install(world, compiled(WRITER), "writer")
    flags = ["-nostdlib", "-static-pie", "-fPIE", "-fno-stack-protector", "-ffreestanding"]
    for name in ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-x86-64.so.2"):
        os.makedirs(os.path.dirname(world.path(f"image/{name}")), exist_ok=True)
        shutil.copy(compiled(LOADER, *flags), world.path(f"image/{name}"))
    with open(world.path("image/again"), "w") as file:
        file.write("#!/proc/self/exe\n")
    os.chmod(world.path("image/again"), 0o755)
    before = _digests(python)
    with Launcher(world.path("stubs2")) as world.launcher:
        exit_, output = world.run("/again")
    written, failed, mode, name = output.split(" ", 3)  # so both ran: the loader and what it started
    assert (exit_.status, written, failed) == (0, "0", "26"), (
        output
    )  # ETXTBSY: the launcher still executes it
    assert (mode, name) == (
        ("30", "/\n") if way == "read-only mount" else ("0", "/memfd:pybuild (deleted)\n")
    )
    assert _digests(python) == before


def _digests(python: str) -> list[str]:
    """Of the interpreter and of every file the launcher is made of, and their modes."""
    folder = os.path.dirname(run_module.__file__)
    found = []
    for path in [
        python,
        *(os.path.join(folder, name) for name in sorted(os.listdir(folder)) if ".py" in name),
    ]:
        with open(path, "rb") as file:
            found.append(hashlib.sha256(file.read()).hexdigest() + oct(os.fstat(file.fileno()).st_mode))
    return found


def test_s11_the_launcher_cannot_be_traced(world: Any, tmp_path: Any) -> None:
    """By nobody with the same rights as it has; the same process without our measure can be."""
    folder = os.path.dirname(os.path.dirname(run_module.__file__))
    started = run_module._BOOT.replace(
        "main(int(sys.argv[2]))", "print(1, flush=True); main(int(sys.argv[2]))"
    )
    attach = textwrap.dedent(
        """
        import ctypes, os, socket, subprocess, sys, time
        libc = ctypes.CDLL(None, use_errno=True)
        boot, folder = sys.argv[1:]
        taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]  # 3 must be neither end of the pair
        def measured(pid):
            try:
                return not os.readlink(f"/proc/{pid}/exe")
            except PermissionError:
                return True
        def attempt(code, seconds):
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            os.dup2(theirs.fileno(), 3)
            argv = [sys.executable, "-I", "-S", "-c", code, folder, str(os.getpid())]
            with subprocess.Popen(argv, pass_fds=[3], stdout=subprocess.PIPE) as child:
                child.stdout.read(1)
                end = time.monotonic() + seconds
                while not measured(child.pid) and time.monotonic() < end:
                    time.sleep(0.01)
                assert child.poll() is None, "it has ended, and what has ended cannot be traced"
                print(libc.ptrace(0x4206, child.pid, 0, 0) and ctypes.get_errno())  # PTRACE_SEIZE
                child.kill()
        attempt(boot, 60)
        attempt("print(1, flush=True); import time; time.sleep(600)", 0.5)
        """
    )
    python = [sys._base_executable, "-I", "-S", "-c"]  # type: ignore[attr-defined]
    command = ["setpriv", "--bounding-set=-sys_ptrace", *python, attach, started, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    refused, allowed = done.stdout.split()
    assert (refused, allowed) == ("1", "0"), done.stderr


def test_s11_nothing_of_the_host_can_be_traced(world: Any, compiled: Compiled) -> None:
    world.run("true")
    attempts = [f"101,0x4206,{pid},0,0" for pid in (world.launcher.pid, os.getpid(), os.getppid(), 2)]
    assert set(calls(world, compiled, *attempts)) == {-3}  # ESRCH: no such process here


# --- S12, S13: descriptors and the working directory


def test_s12_the_launcher_keeps_no_descriptor_of_the_builder(world: Any) -> None:
    """Also of those that the builder, or what started it, forgot to close."""
    path = world.path("forgotten")
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.set_inheritable(fd, True)
    with Launcher(world.path("stubs2")) as world.launcher:
        world.sh("true")
        folder = f"/proc/{world.launcher.pid}/fd"
        assert path not in [os.readlink(f"{folder}/{each}") for each in os.listdir(folder)]
    os.close(fd)


def test_s12_a_step_has_three_descriptors(world: Any) -> None:
    careless = [os.open("/", os.O_RDONLY) for _ in range(40)]
    for fd in careless:
        os.set_inheritable(fd, True)
    with Launcher(world.path("stubs2")) as world.launcher:
        output = world.sh("ls /proc/$$/fd; for n in 0 1 2; do readlink /proc/self/fd/$n; done")
    for fd in careless:
        os.close(fd)
    assert output.split()[:3] == ["0", "1", "2"]
    assert output.split()[3] == "/dev/null"
    assert all(each.startswith("pipe:") for each in output.split()[4:])


def test_s13_a_descriptor_is_no_working_directory(world: Any) -> None:
    """CVE-2024-21626, by name and by a link in the image, for every number a leaked descriptor could have."""
    for number in range(65):
        os.symlink(f"/proc/self/fd/{number}", world.path(f"image/fd{number}"))
    read_only = Overlay((world.path("image"),))
    for number in range(65):
        for cwd in (f"/proc/self/fd/{number}", f"/fd{number}"):
            root = world.overlay() if number % 16 == 0 else read_only
            assert world.run("true", cwd=cwd, root=root)[0].status == 125, cwd


def test_s13_a_directory_outside_of_the_root_is_refused(world: Any) -> None:
    """Whatever led there: the last look, behind all that keeps a step from having such a descriptor."""
    code = textwrap.dedent(
        """
        import os, sys
        from types import SimpleNamespace
        from builder.sandbox.step import Step
        step = Step.__new__(Step)
        step.plan = SimpleNamespace(cwd=b".", owners=())
        os.chdir("/usr")
        os.chroot(sys.argv[1])
        try:
            step._working_directory()
        except OSError:
            print("refused")
        """
    )
    done = subprocess.run([sys.executable, "-c", code, world.path("image")], capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr


def test_s13_the_working_directory_is_inside(world: Any) -> None:
    for cwd in ("/proc/self/root/bin", "/proc/1/root", "/proc/self/cwd", "/proc/self/task/1/root/bin/.."):
        here = world.sh("/bin/readlink /proc/self/cwd; ls -d /bin/busybox", cwd=cwd).split()
        assert here[0].startswith("/") and here[1] == "/bin/busybox", cwd


# --- S20, S22: mounts


def test_s20_no_path_of_the_host_is_shown(world: Any) -> None:
    """Of its own layers a step sees numbers, of a mount that it asked for the place it shows, and no more."""
    os.makedirs(world.path("cache/part"))
    os.mkdir(world.path("second"))
    layers = (world.path("image"), world.path("second"))
    mounts = (
        File("/etc/resolv.conf", b"x"),
        Tmpfs("/tmp/t"),
        Layers("/from", layers),
        Layers("/part", layers, "bin"),
        Bind(world.path("cache"), "/cache"),
    )
    for overlay_by in (1, 2):
        with Launcher(world.path("stubs"), overlay_by=overlay_by) as world.launcher:
            output = world.sh("cat /proc/self/mountinfo /proc/mounts /proc/self/mountstats", mounts=mounts)
        name = os.path.basename(world.top)
        shown = [line for line in output.splitlines() if name in line or "stubs" in line or "upper/" in line]
        assert [line.split()[4] for line in shown] == ["/cache"], shown


def test_s20_the_old_root_is_gone(world: Any, compiled: Compiled) -> None:
    """No way up: neither by `..` nor through the mounts' own tree, also for a step that may chroot."""
    assert world.sh("cd /../../..; ls -d proc bin; ls -A /.oldroot 2>/dev/null; true").split() == [
        "bin",
        "proc",
    ]
    points = [line.split()[4] for line in world.sh("cat /proc/self/mountinfo").splitlines()]
    assert points.count("/") == 1
    climb = [f"80,@{'../' * 200}bin", "161,@bin", f"80,@{'../' * 200}", "21,@etc/passwd,0"]
    assert calls(world, compiled, "80,@/", *climb)[-1] == -2  # chdir, chroot, chdir, access: ENOENT


@pytest.mark.parametrize("shared_root", [False, True])
def test_s22_mounts_of_a_privileged_step_stay_in_it(world: Any, shared_root: bool) -> None:
    """Even where the host's mounts are shared with their peers, its root too (as systemd has it)."""
    code = textwrap.dedent(
        f"""
        import os
        from builder.sandbox import syscalls as s
        from builder.sandbox.run import Launcher
        from builder.sandbox.spec import *
        s.unshare(s.CLONE_NEWNS)
        s.mount(b"none", b"/", b"", s.MS_REC | s.MS_PRIVATE)
        shared = {world.path("shared")!r}
        os.mkdir(shared)
        s.mount(b"tmpfs", shared.encode(), b"tmpfs", 0)
        s.mount(b"none", shared.encode(), b"", 1 << 20)  # MS_SHARED
        os.mkdir(shared + "/in")
        if {shared_root}:
            s.mount(b"none", b"/", b"", 1 << 20)
        read = lambda: open("/proc/self/mountinfo").read()
        before = read()
        assert "shared:" in before
        box = Sandbox(Overlay(({world.path("image")!r},)), ("/bin/sh", "-c",
            "mount -t tmpfs x /shared/in && echo x > /shared/in/file && grep -c /shared/in /proc/mounts"),
            mounts=(Bind(shared, "/shared"),), network="none", privileged=True)
        with Launcher({world.path("stubs2")!r}) as launcher:
            assert launcher.run(box, output_fd=1).status == 0
        assert read() == before
        assert os.listdir(shared + "/in") == []
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


# --- S23: capabilities, no_new_privs, keys, limits


def test_s23_no_capability_is_inheritable(world: Any) -> None:
    """Nor ambient, whatever the builder itself was started with."""
    more = ["setpriv", "--inh-caps=+sys_admin,+net_admin", "--ambient-caps=+net_admin"]
    command = [*more, sys.executable, "-c", _SHOW, world.path("image"), world.path("stubs2")]
    inherited = subprocess.run(command, capture_output=True, text=True, check=True)
    sets = dict(line.split(":\t") for line in inherited.stdout.splitlines())
    assert (sets["CapInh"], sets["CapAmb"]) == ("0" * 16, "0" * 16)
    assert sets["CapEff"] == sets["CapPrm"] == sets["CapBnd"] == "00000000a80425fb"
    other = subprocess.run([*command, "1000"], capture_output=True, text=True, check=True)
    sets = dict(line.split(":\t") for line in other.stdout.splitlines())
    assert sets.pop("CapBnd") == "00000000a80425fb" and {*sets.values()} == {"0" * 16}


_SHOW = """
import sys
from builder.sandbox.run import Launcher
from builder.sandbox.spec import *
ids = {name: int(sys.argv[3]) for name in ("uid", "gid") if sys.argv[3:]}
box = Sandbox(Overlay((sys.argv[1],)), ("/bin/grep", "Cap", "/proc/self/status"), network="none", **ids)
with Launcher(sys.argv[2]) as launcher:
    assert launcher.run(box, output_fd=1).status == 0
"""


def test_setuid_programs_gain_nothing_with_no_new_privileges(world: Any, compiled: Compiled) -> None:
    install(world, compiled(CALLS), "calls", 0o4755)
    for wanted, value in ((False, "0"), (True, "1000")):
        exit_, output = world.run(
            "calls", str(number("geteuid")), uid=1000, gid=1000, no_new_privileges=wanted
        )
        assert (exit_.status, output) == (0, value + "\n")  # geteuid
        status = world.sh("grep -E 'NoNewPrivs|Seccomp:' /proc/self/status", no_new_privileges=wanted)
        assert status.split() == ["NoNewPrivs:", str(int(wanted)), "Seccomp:", "2"]


def test_a_step_without_a_filter(world: Any, compiled: Compiled) -> None:
    assert world.sh("grep Seccomp: /proc/self/status", unfiltered=True).split()[1] == "0"
    assert world.sh("grep -c Seccomp: /proc/self/status").strip() == "1"
    # What it may do without the filter is still bounded by its capabilities.
    assert calls(world, compiled, "165,@x,@/,@tmpfs,0,0", unfiltered=True) == [-1]


def test_keys_of_the_builder_are_not_a_steps(world: Any, compiled: Compiled) -> None:
    """Each step has a session keyring of its own. The filter refuses keyctl, so it is left out here."""
    install(world, compiled(CALLS), "calls")
    code = textwrap.dedent(
        f"""
        import ctypes
        from builder.sandbox.run import Launcher
        from builder.sandbox.spec import *
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall({number("keyctl")}, 1, None)  # a new session keyring
        assert libc.syscall({number("add_key")}, b"user", b"pybuild-canary", b"x", 1, -3) > 0
        assert libc.syscall({number("keyctl")}, 10, -3, b"user", b"pybuild-canary", 0) > 0
        look = ("/bin/calls", "{number("keyctl")},0,-3,0", "{number("keyctl")},10,-3,@user,@pybuild-canary,0")
        with Launcher({world.path("stubs2")!r}) as launcher:
            for more in ({{"unfiltered": True}}, {{"unfiltered": True}}, {{"privileged": True}}, {{}}):
                box = Sandbox(Overlay(({world.path("image")!r},)), look, network="none", **more)
                assert launcher.run(box, output_fd=1).status == 0
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = done.stdout.split()
    assert rows[1::2] == ["-126", "-126", "-126", "-1"]  # ENOKEY; refused
    assert len({*rows[:6:2]}) == 3 and all(int(number) > 0 for number in rows[:6:2])


def test_usual_limits(world: Any) -> None:
    def limits(**rest: Any) -> dict[str, list[str]]:
        lines = world.sh("cat /proc/self/limits", **rest).splitlines()
        return {line[:25].strip(): line[26:].split()[:2] for line in lines}

    import resource

    usual = limits()
    for name, number in (
        ("Max open files", resource.RLIMIT_NOFILE),
        ("Max processes", resource.RLIMIT_NPROC),
    ):
        hard = resource.getrlimit(number)[1]
        most = 1 << 20 if hard == resource.RLIM_INFINITY else min(1 << 20, hard)
        assert usual[name] == [str(most)] * 2
    assert usual["Max core file size"] == ["0", "0"]
    asked = limits(rlimits=(("core", -1, -1), ("nofile", 10, 20)))
    assert asked["Max core file size"] == ["unlimited", "unlimited"]
    assert asked["Max open files"] == ["10", "20"]


def test_s95_the_usual_limits_are_not_those_of_the_builder(world: Any) -> None:
    """Soft ones as high as the hard ones, no core files, whatever the builder itself was started with."""
    code = textwrap.dedent(
        """
        import contextlib, resource, sys
        from builder.sandbox.run import Launcher
        from builder.sandbox.spec import *
        for name, soft, hard in (("NPROC", 4000, 5000), ("NOFILE", 400, 500), ("CORE", 1000, -1)):
            with contextlib.suppress(ValueError):  # a hard limit that is lower already
                resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (soft, hard))
        box = Sandbox(Overlay((sys.argv[1],)), ("/bin/cat", "/proc/self/limits"), network="none")
        with Launcher(sys.argv[2]) as launcher:
            assert launcher.run(box, output_fd=1).status == 0
        """
    )
    words = [sys.executable, "-c", code, world.path("image"), world.path("stubs2")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    limits = {line[:25].strip(): line[26:].split()[:2] for line in done.stdout.splitlines()}
    assert limits["Max processes"] == ["5000", "5000"] and limits["Max open files"] == ["500", "500"]
    assert limits["Max core file size"] == ["0", "0"]


# --- S26 to S30: control groups, devices, network, terminal


def test_s26_control_groups_are_out_of_reach(world: Any) -> None:
    output = world.sh(
        "cd /sys/fs/cgroup; ls -A | wc -l; mkdir x 2>&1; for n in cgroup.procs memory.max; do"
        " if (echo 1 > $n) 2>/dev/null; then echo written; fi; done; cat /proc/self/cgroup"
    )
    lines = output.splitlines()
    assert lines[0] == "0"
    assert lines[1].endswith(("Read-only file system", "No such file or directory"))
    groups = [line for line in lines if line.count(":") >= 2 and line[0].isdigit()]
    assert groups and "written" not in output
    assert all(line.endswith(":/") for line in groups), groups


def test_s27_only_the_usual_devices(world: Any) -> None:
    test = "if [ -c $n ] || [ -b $n ]; then readlink -f $n; fi"
    found = world.sh(f"cd /dev; for n in * pts/* shm/*; do {test}; done").split()
    nodes = {each for each in found if each != "/dev/null"}  # which /dev/stdin leads to as well
    names = ("full", "pts/ptmx", "random", "tty", "urandom", "zero")
    assert sorted(nodes) == [f"/dev/{name}" for name in names]
    made = "mknod /bin/disk b 8 0; mknod /bin/mem c 1 1; head -c 1 /bin/disk; head -c 1 /bin/mem"
    assert world.run("sh", "-c", made)[1].count("Permission denied") == 2
    made = "for d in /dev /dev/shm; do mknod $d/mem c 1 1; head -c 1 $d/mem; done"
    assert world.run("sh", "-c", made)[1].count("Permission denied") == 2


def test_s27_no_mount_of_a_step_lets_a_device_work(world: Any) -> None:
    """A node that is made in it, or was there before, be it its root or a mount."""
    os.mkdir(world.path("cache"))
    for folder in (world.path("cache"), world.path("image")):
        os.mknod(f"{folder}/mem", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    layers = (world.path("image"), world.path("cache"))
    mounts = (
        Bind(world.path("cache"), "/cache"),
        Bind(world.path(""), "/part", path="cache"),
        Tmpfs("/tmp/t"),
        Layers("/from", layers),
    )
    script = "mknod /tmp/t/mem c 1 3; for d in / /cache /part /tmp/t /from; do head -c 0 $d/mem; done"
    for root in (world.overlay(), Bind(world.path("image"))):
        output = world.run("sh", "-c", script, mounts=mounts, root=root)[1]
        assert output.count("Permission denied") == 5, output
    opened = world.run("sh", "-c", script, mounts=mounts, privileged=True)[1]
    assert opened.count("Permission denied") == 1 and "/tmp/t/mem" in opened, opened


def test_s27_what_is_mounted_in_dev_has_no_setuid_programs(world: Any) -> None:
    rows = [line.split() for line in world.sh("cat /proc/self/mountinfo").splitlines()]
    below = {row[4]: row[5].split(",") for row in rows if row[4].startswith("/dev")}
    assert len(below) == 10 and all("nosuid" in flags for flags in below.values()), below
    assert all("noexec" in flags for place, flags in below.items() if place != "/dev"), below


def test_s14_a_node_of_the_host_is_looked_at(world: Any) -> None:
    """What is bound to a step's /dev/null is that device, and not what somebody put in its place."""
    code = textwrap.dedent(
        """
        import sys
        from builder.sandbox import syscalls as s
        from builder.sandbox.run import Launcher
        from builder.sandbox.spec import *
        box = Sandbox(Overlay((sys.argv[1],)), ("/bin/true",), network="none")
        with Launcher(sys.argv[2]) as launcher:
            s.unshare(s.CLONE_NEWNS)
            s.mount(b"none", b"/", b"", s.MS_REC | s.MS_PRIVATE)
            s.mount(sys.argv[3].encode(), b"/dev/random", b"", 4096)  # MS_BIND
        with Launcher(sys.argv[2]) as launcher:
            print(launcher.run(box, output_fd=2).error)
        """
    )
    for other in (world.path("image/bin/busybox"), "/dev/null"):
        words = [sys.executable, "-c", code, world.path("image"), world.path("stubs2"), other]
        done = subprocess.run(words, capture_output=True, text=True)
        assert "the host's node is not that device" in done.stdout, done


def test_s20_standard_input_is_of_the_steps_own_mounts(world: Any) -> None:
    """No descriptor of a step leads to a mount of the host's."""
    lines = world.sh("cat /proc/self/fdinfo/0; echo; cat /proc/self/mountinfo").split("\n\n")
    (mount,) = (line.split()[1] for line in lines[0].splitlines() if line.startswith("mnt_id"))
    assert mount in {line.split()[0] for line in lines[1].splitlines()}


@pytest.mark.parametrize("network", ["none", "private"])
def test_s28_no_way_to_the_hosts_sockets(world: Any, compiled: Compiled, network: str) -> None:
    """Neither its loopback, nor its abstract sockets, nor its interfaces (`private` without a namespace made
    ready has only `lo`, as `none`).
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as abstract, socket.socket() as loopback:
        abstract.bind(f"\0pybuild-test-{os.getpid()}")
        abstract.listen()
        loopback.bind(("127.0.0.1", 0))
        loopback.listen()
        port = loopback.getsockname()[1]
        with open("/proc/net/unix") as file:
            assert f"pybuild-test-{os.getpid()}" in file.read()
        seen = world.sh("cat /proc/net/unix; ls /sys/class/net; ip -o link | wc -l", network=network)
        assert "pybuild-test" not in seen
        assert seen.split()[-2:] == ["lo", "1"]
        assert world.run("nc", "-w", "2", "127.0.0.1", str(port), network=network)[0].status != 0
        install(world, compiled(ABSTRACT), "abstract")
        name = f"pybuild-test-{os.getpid()}"
        assert world.run("abstract", name, network=network)[1] == "111\n"  # ECONNREFUSED
        assert subprocess.run([compiled(ABSTRACT), name], capture_output=True).stdout == b"0\n"


ABSTRACT = r"""
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
int main(int argc, char **argv) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), size = strlen(argv[1]);
    memcpy(name.sun_path + 1, argv[1], size);
    int bad = connect(fd, (struct sockaddr *)&name, offsetof(struct sockaddr_un, sun_path) + 1 + size);
    printf("%d\n", bad ? errno : 0);
    return 0;
}
"""


def test_s30_no_terminal_of_the_builders(world: Any, compiled: Compiled) -> None:
    """The builder runs on a terminal of its own here; a step has no descriptor of it to type into, and no
    other way to it.
    """
    install(world, compiled(CALLS), "calls")
    ioctl = number("ioctl")
    code = (
        "import os, sys, pty\n"
        "from builder.sandbox.run import Launcher\n"
        "from builder.sandbox.spec import *\n"
        f"calls = ('{ioctl},0,0x5412,@x', '{ioctl},1,0x5412,@x', '{ioctl},2,0x5412,@x',"
        f" '{number('openat')},-100,@/dev/tty,2', '{ioctl},0,0x540E,1', '{number('getsid')},0')\n"
        f"root = Overlay(({world.path('image')!r},))\n"
        "box = Sandbox(root, ('/bin/calls', *calls), network='none')\n"
        "read, write = os.pipe()\n"
        f"with Launcher({world.path('stubs2')!r}) as launcher:\n"
        "    launcher.run(box, output_fd=write)\n"
        "print(os.read(read, 999).decode().split())\n"
    )
    program = [sys.executable, "-c", code]
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(program[0], program)
    output = b""
    try:
        while block := os.read(terminal, 999):
            output += block
    except OSError:
        pass  # EIO: the other end is closed
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0, output
    # ENOTTY for TIOCSTI on 0, 1, 2; ENXIO for /dev/tty; ENOTTY for TIOCSCTTY; the session is the step's own.
    assert output.decode().strip() == "['-25', '-25', '-25', '-6', '-25', '1']"


# --- S39, S40: what the builder has and a step has not


def test_s40_no_descriptor_socket_or_path_of_the_builder(world: Any) -> None:
    output = world.sh(
        f"ls -d {world.top[:-1]}? /var/lib/pybuild /root/.docker /run/docker.sock 2>/dev/null;"
        "cat /proc/*/environ /proc/self/cmdline | grep -c pybuil[d]-; cat /proc/net/unix | wc -l;"
        "ls /proc | grep -E '^[0-9]+$' | wc -l"
    ).split()
    assert output[:2] == ["0", "1"], output


# --- S25: what is covered


COVERED = """
/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug
/proc/scsi /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware /sys/fs/selinux
"""
READ_ONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"
"""SECURITY.md, section 2: Docker's lists, and what buildah adds."""


def test_s25_the_lists_are_those_of_the_anchors() -> None:
    from builder.sandbox import mounts

    masked = [f"/proc/{os.fsdecode(name)}" for name in mounts.MASKED_PROC]
    masked += [f"/sys/{os.fsdecode(name)}" for name in mounts.MASKED_SYS]
    assert sorted(masked) == sorted(COVERED.split())
    assert [f"/proc/{os.fsdecode(name)}" for name in mounts.READ_ONLY_PROC] == READ_ONLY.split()


def test_s25_covered_and_read_only(world: Any) -> None:
    """Each that this kernel has, seen by root in a step: nothing is read, nothing is written."""
    there = [path for path in COVERED.split() if os.path.exists(path)]
    assert len(there) > 3
    for path in there:
        look = f"if [ -d {path} ]; then ls -A {path}; else cat {path}; fi; touch {path} {path}/x 2>&1"
        output = world.run("sh", "-c", look)[1]
        assert "Read-only file system" in output and len(output.splitlines()) == 2, (path, output)
    points = world.sh("cat /proc/self/mountinfo")
    for path in [path for path in READ_ONLY.split() if os.path.exists(path)]:
        assert f" {path} ro," in points
    for path in ("/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory"):
        assert "Read-only" in world.run("sh", "-c", f"echo 1 > {path}")[1]


def test_s25_side_channels_that_this_machine_has_not(world: Any, tmp_path: Any) -> None:
    """powercap and each processor's thermal_throttle, covered in a directory that looks like /sys."""
    sys_like = tmp_path / "sys"
    names = ["devices/virtual/powercap"] + [f"devices/system/cpu/cpu{n}/thermal_throttle" for n in (0, 1, 10)]
    for name in names:
        (sys_like / name).mkdir(parents=True)
        (sys_like / name / "secret").write_text("x")
    (sys_like / "devices/system/cpu/cpufreq/thermal_throttle").mkdir(parents=True)
    code = textwrap.dedent(
        f"""
        import os
        from builder.sandbox import mountcalls, mounts, overlay, syscalls as s
        s.unshare(s.CLONE_NEWNS)
        s.mount(b"none", b"/", b"", s.MS_REC | s.MS_PRIVATE)
        by = 1 if mountcalls.have_new_calls() else overlay.OLD_CALLS
        class Plan: overlay_by, mounts, owners = by, [], ()
        base = os.open({str(sys_like)!r}, os.O_PATH | os.O_DIRECTORY)
        tree = mounts.Tree(base, mounts.Stage(Plan()), None)
        for name in (*mounts.MASKED_SYS, *mounts._throttles(base)):
            tree.mask(base, name)
        for name in {names!r}:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=base)
            print(name, os.listdir(fd), bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY))
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{name} [] True" for name in names], done.stderr


# --- S16, S45: between the new root and the program


def test_s12_a_list_of_descriptors_that_is_none_of_procfs(tmp_path: Any, monkeypatch: Any) -> None:
    """Before Linux 5.9 descriptors are closed by such a list; one of an image's could leave some out."""
    (tmp_path / "0").touch()
    monkeypatch.setattr(syscalls, "_OWN_DESCRIPTORS", str(tmp_path))
    monkeypatch.setattr(syscalls, "_CLOSE_RANGE", 9999)
    with pytest.raises(OSError, match="no directory of procfs"):
        syscalls.close_from(1000)


def test_s45_nothing_of_the_image_is_opened_before_its_program(world: Any, tmp_path: Any) -> None:
    """Told by strace: from pivot_root to execve the step opens no file, loads nothing and starts nothing; and
    every descriptor above 4 is closed before the working directory is entered (S12).
    """
    trace = str(tmp_path / "trace")
    root = world.overlay()
    code = (
        "from builder.sandbox.run import Launcher\nfrom builder.sandbox.spec import *\n"
        f"root = Overlay({root.lowers!r}, {root.upper!r}, {root.work!r})\n"
        "box = Sandbox(root, ('true',), env=(('PATH', '/bin'),), cwd='/new', uid=7, network='none')\n"
        f"with Launcher({world.path('stubs2')!r}) as launcher:\n"
        "    assert launcher.run(box, output_fd=2).status == 0\n"
    )
    subprocess.run(["strace", "-f", "-o", trace, sys.executable, "-c", code], check=True, capture_output=True)
    with open(trace) as file:
        rows = [line.split(" ", 1) for line in file]
    (pid,) = {pid for pid, text in rows if text.strip().startswith("pivot_root(")}
    calls = [text.strip() for each, text in rows if each == pid]
    first = next(at for at, text in enumerate(calls) if text.startswith("pivot_root("))
    last = next(at for at, text in enumerate(calls) if at > first and text.startswith("execve("))
    # Before Linux 5.9 what is to be closed is looked up, in a procfs of our own.
    own = 'openat(AT_FDCWD, "/proc/self/fd", '
    names = [text.split("(")[0] for text in calls[first:last] if not text.startswith(own)]
    assert not {"open", "openat", "openat2", "execve", "clone", "fork", "vfork", "connect"} & {*names}
    entered = next(at for at, text in enumerate(calls[first:last]) if text.startswith('chdir("/new")'))
    assert names.index("close_range") < entered
    assert names.index("seccomp") < names.index("setresuid")
    assert calls[last].startswith('execve("/bin/true"')
