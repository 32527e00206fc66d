"""A process with a terminal of its own: what it sees, and that the caller's stays out of its reach."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from builder.sandbox.spec import Bind, Terminal
from builder.sandbox.terminal import set_size

pytestmark = pytest.mark.root

DEADLINE = 60.0


def read_all(master: int) -> str:
    """What arrives at a terminal until its other end is gone."""
    blocks = []
    while select.select([master], [], [], DEADLINE)[0]:
        try:
            blocks.append(os.read(master, 1 << 16))
        except OSError:
            break
    return b"".join(blocks).decode().replace("\r\n", "\n")


def in_terminal(world: Any, script: str, **rest: Any) -> str:
    sandbox = world.sandbox("sh", "-c", script, terminal=Terminal(31, 97), **rest)
    with world.launcher.begin(sandbox, output_fd=None) as running, closing(running.terminal()) as master:
        output = read_all(master)
        assert running.wait().status == 0, output
    return output


@contextmanager
def closing(fd: int) -> Iterator[int]:
    yield fd
    os.close(fd)


def test_it_is_the_process_s_own(world: Any) -> None:
    script = "ls /dev/pts; for n in 0 1 2; do readlink /proc/self/fd/$n; done; echo said > /dev/tty"
    assert in_terminal(world, script).split() == ["0", "ptmx", *["/dev/pts/0"] * 3, "said"]
    assert in_terminal(world, "cat /proc/1/stat").split()[5] == "1"  # the leader of its own session
    assert in_terminal(
        world, "stat -c '%a %u %g %t' /dev/console /dev/pts/0; echo x > /dev/console", uid=7
    ) == ("620 7 5 88\n620 7 5 88\nx\n")


def test_three_descriptors_and_no_more(world: Any) -> None:
    numbers = " ".join(map(str, range(64)))
    assert in_terminal(
        world, f"for n in {numbers}; do [ -L /proc/$$/fd/$n ] && echo $n; done; true"
    ).split() == [
        "0",
        "1",
        "2",
    ]


def test_the_size_is_there_from_the_start_and_changes(world: Any) -> None:
    sandbox = world.sandbox(
        "sh", "-c", "trap 'busybox stty size; exit' WINCH; busybox stty size; while :; do sleep 0.05; done",
        terminal=Terminal(31, 97),
    )  # fmt: skip
    with world.launcher.begin(sandbox, output_fd=None) as running, closing(running.terminal()) as master:
        assert os.read(master, 100) == b"31 97\r\n"
        set_size(master, 5, 6)
        assert read_all(master) == "5 6\n"
        assert running.wait().status == 0


def test_a_hang_up_ends_it(world: Any) -> None:
    sandbox = world.sandbox("sh", "-c", "echo here; cat; exit 9", terminal=Terminal())
    with world.launcher.begin(sandbox, output_fd=None) as running:
        with closing(running.terminal()) as master:
            assert os.read(master, 100) == b"here\r\n"
        assert running.wait().status == 9


def test_who_never_began_has_none_or_says_why(world: Any) -> None:
    sandbox = world.sandbox("nothing", terminal=Terminal())
    with world.launcher.begin(sandbox, output_fd=None) as running, closing(running.terminal()) as master:
        assert read_all(master) == ""
        assert running.wait().status == 127
    broken = world.sandbox("true", root=Bind(world.path("missing")), terminal=Terminal())
    with world.launcher.begin(broken, output_fd=None) as running:
        assert running.terminal() == -1
        assert "root file system" in running.wait().error


def test_either_a_terminal_or_an_output(world: Any) -> None:
    for sandbox, fd in ((world.sandbox("true", terminal=Terminal()), 1), (world.sandbox("true"), None)):
        with pytest.raises(ValueError, match="either"):
            world.launcher.begin(sandbox, output_fd=fd)


_PUSH = """
import fcntl, os, termios
for fd in (0, os.open("/dev/tty", os.O_RDWR), os.open("/dev/console", os.O_RDWR)):
    try:
        fcntl.ioctl(fd, termios.TIOCSTI, b"x")
        print("pushed")
    except OSError:
        print("refused")
"""
_CALLER = f"""
import os, select, sys
from builder.sandbox.run import Launcher
from builder.sandbox.spec import Bind, Sandbox, Terminal
os.login_tty(0)
argv = (os.path.realpath(sys.executable), "-I", "-c", {_PUSH!r})
places = ["/usr", "/lib", "/lib64", sys.base_prefix]
shown = tuple(Bind(os.path.realpath(each), each, read_only=True) for each in places if os.path.isdir(each))
sandbox = Sandbox(Bind(sys.argv[1]), argv, network="none", mounts=shown, terminal=Terminal())
with Launcher() as launcher, launcher.begin(sandbox, output_fd=None) as running:
    inner, output = running.terminal(), b""
    try:
        while block := os.read(inner, 65536):
            output += block
    except OSError:
        pass
    exit_ = running.wait()
assert exit_.status == 0 and output.count(b"pushed") + output.count(b"refused") == 3, (exit_, output)
assert not select.select([0], [], [], 0)[0]
"""


def test_nothing_can_be_typed_into_the_caller_s_terminal(top: str) -> None:
    """TIOCSTI (CVE-2017-5226): what a step pushes into its own comes back from that."""
    master, slave = pty.openpty()
    caller = [sys.executable, "-c", _CALLER, top]
    done = subprocess.run(
        caller, stdin=slave, stdout=slave, stderr=subprocess.PIPE, start_new_session=True, timeout=DEADLINE
    )
    os.close(slave)
    with closing(master):
        assert read_all(master) == ""
    assert done.returncode == 0, done.stderr.decode()
