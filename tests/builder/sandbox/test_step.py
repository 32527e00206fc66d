"""What a step's process does first, and calls of it that need no privilege to be looked at."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from builder.sandbox import syscalls

BEGIN = """
import ctypes, os
from builder.sandbox.step import Step

class First(Step):
    def _become(self):
        number = ctypes.c_int()
        ctypes.CDLL(None).prctl(2, ctypes.byref(number), 0, 0, 0)  # PR_GET_PDEATHSIG
        print(number.value, flush=True)
        os._exit(0)

step = First.__new__(First)
step.launcher = os.pidfd_open(os.getppid())
step.run()
"""


def test_s96_before_anything_else_it_will_die_with_the_launcher() -> None:
    done = subprocess.run([sys.executable, "-c", BEGIN], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "9\n"), done.stderr


def test_s96_a_launcher_that_is_gone_already() -> None:
    gone = BEGIN.replace("os.getppid()", "child").replace(
        "step = First",
        "child = os.posix_spawn('/bin/true', ['true'], {})\n"
        "os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)\nstep = First",
    )
    assert subprocess.run([sys.executable, "-c", gone], capture_output=True).returncode == 137


@pytest.mark.parametrize("executable", [False, True])
def test_s10_a_copy_in_memory_is_sealed(executable: bool) -> None:
    """Nobody can change it, by whatever descriptor: size, content, and the seals themselves."""
    fd = syscalls.memfd(b"content", executable=executable)
    other = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    for change in (
        lambda: os.pwrite(other, b"x", 0),
        lambda: os.ftruncate(other, 0),
        lambda: os.ftruncate(other, 100),
    ):
        with pytest.raises(PermissionError):
            change()
    os.close(other)
    assert os.pread(fd, 100, 0) == b"content"
    os.close(fd)


def test_s18_doors_of_proc_are_closed_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """openat2 in a root refuses magic links today; its manual says that this may change."""
    seen: list[int] = []
    monkeypatch.setattr(syscalls, "_openat2", lambda root, path, flags, resolve: seen.append(resolve))
    syscalls.open_in_root(3, b"x", 0)
    syscalls.open_in_root(3, b"x", 0, links=False)
    syscalls.open_uncovered(3, b"x", 0)
    inside, no_links, uncovered = seen
    assert inside == syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
    assert no_links == syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_SYMLINKS
    assert uncovered & syscalls.RESOLVE_NO_XDEV and uncovered & syscalls.RESOLVE_NO_MAGICLINKS


LAUNCHER = """
import os, socket
from builder.sandbox import launcher

class Looking:
    def __init__(self, builder):
        os.write(1, b"%d" % len(made))
    serve = end = lambda self: None

ends = socket.socketpair()
os.dup2(ends[0].fileno(), launcher.ORDERS)
made = []
launcher.sys_.new_keyring = lambda: made.append(1)
launcher.Launcher = Looking
launcher.main(os.getppid())
"""


def test_the_launcher_has_a_keyring_of_its_own() -> None:
    """A step that can make none (EDQUOT) then has the launcher's, and not that of whoever builds."""
    done = subprocess.run([sys.executable, "-c", LAUNCHER], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "1"), done.stderr
