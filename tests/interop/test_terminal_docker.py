"""`run -t`, `-i` and both, as docker has them: what the program meets, and how each of them ends."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sysconfig
import termios
import time
from collections.abc import Callable

import pytest
from judges.dockerd import Docker
from judges.pybuild import Pybuild

pytestmark = pytest.mark.interop

OPTIONS = ("--rm", "--network=none", "--hostname=box")
SECONDS = 60.0
Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def both(docker: Docker, pybuild: Pybuild, busybox_archive: str, busybox_image: str) -> list[Run]:
    """`run ARGS...` of docker and of pybuild: exit code and all output. `terminal` gives them one, in which
    `typed` is typed when the program says `ready`.
    """
    docker.run("load", "-i", busybox_archive)
    program = os.path.join(sysconfig.get_path("scripts"), "pybuild")
    theirs = ([docker.client, "run"], docker._environment())
    ours = ([program, "--root", pybuild.root, "run"], {"PATH": os.environ["PATH"], "HOME": pybuild.root})

    def runner(start: list[str], env: dict[str, str]) -> Run:
        def run(*args: str, terminal: bool = False, typed: bytes = b"") -> tuple[int, str]:
            argv = [*start, *OPTIONS, *args]
            return in_terminal(argv, env, typed) if terminal else piped(argv, env)

        return run

    return [runner(*theirs), runner(*ours)]


def piped(argv: list[str], env: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS)
    return done.returncode, done.stdout.decode()


def in_terminal(argv: list[str], env: dict[str, str], typed: bytes) -> tuple[int, str]:
    pid, master = pty.fork()
    if not pid:
        os.execve(argv[0], argv, env)
    said, end = b"", time.monotonic() + SECONDS
    while select.select([master], [], [], max(0.0, end - time.monotonic()))[0]:
        try:
            said += os.read(master, 1 << 16)
        except OSError:
            break
        if typed and b"ready" in said:
            while (
                termios.tcgetattr(master)[3] & termios.ICANON
            ):  # docker's is raw only while the program runs
                assert time.monotonic() < end, said
                time.sleep(0.01)
            os.write(master, typed)
            typed = b""
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.decode()


LOOK = """
tty; stty -a | grep -v rows; env | sort; for n in 0 1 2; do readlink /proc/self/fd/$n; done
stat -c '%A %t %T %u %g' /dev/console /dev/pts/0; ls /dev | grep -v core
cut -d' ' -f4-7 /proc/1/stat; echo x > /dev/tty; exec 3<>/dev/ptmx; ls /dev/pts
"""


@pytest.mark.parametrize("options", [("-t",), ("-t", "-u", "1234:100"), ("-t", "-e", "TERM=dumb")])
def test_what_the_program_meets(both: list[Run], busybox_image: str, options: tuple[str, ...]) -> None:
    theirs, ours = (run(*options, busybox_image, "sh", "-c", LOOK) for run in both)
    assert ours[1].split("\r\n") == theirs[1].split("\r\n")
    assert ours[0] == theirs[0] == 0 and "/dev/pts/0" in ours[1]


@pytest.mark.parametrize(
    "command",
    ["exit 3", "kill -9 $$; exit 4", "sh -c 'kill -15 $$'; exit $?", "tty; read x; echo $x-; exit 5"],
)
def test_ends(both: list[Run], busybox_image: str, command: str) -> None:
    for options in (("-t",), ("-i",), ()):
        if options == ("-t",) and "read" in command:
            continue  # nobody will ever type there
        theirs, ours = (run(*options, busybox_image, "sh", "-c", command) for run in both)
        assert ours == theirs, options


@pytest.mark.parametrize("what", [("nothing",), ("/etc",), ("-x",)])
def test_programs_that_are_none(both: list[Run], busybox_image: str, what: tuple[str, ...]) -> None:
    theirs, ours = (run("-t", busybox_image, *what)[0] for run in both)
    assert ours == theirs and ours in (126, 127)


def test_input_without_a_terminal(both: list[Run], busybox_image: str) -> None:
    theirs, ours = (run("-i", "-t", busybox_image, "sh") for run in both)
    assert ours == theirs and ours[0] == 1


def test_in_a_terminal(both: list[Run], busybox_image: str) -> None:
    script = 'echo ready; read line; echo "<$line>"; stty size > /dev/null; exit 6'
    theirs, ours = (
        run("-it", busybox_image, "sh", "-c", script, terminal=True, typed=b"a line\r") for run in both
    )
    assert ours == theirs and ours[0] == 6 and re.search("<a line>", ours[1])


def test_keys_that_steer_are_the_program_s(both: list[Run], busybox_image: str) -> None:
    """Ctrl-C reaches it as a signal from its own terminal."""
    script = "trap 'echo int; exit 7' INT; echo ready; for n in $(seq 600); do sleep 0.1; done; exit 8"
    theirs, ours = (
        run("-it", busybox_image, "sh", "-c", script, terminal=True, typed=b"\x03") for run in both
    )
    assert ours == theirs and ours[0] == 7 and "int" in ours[1]
