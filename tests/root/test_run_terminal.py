"""`pybuild run` at a terminal: -t, -i and both, as docker run has them; and signals on their way in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from typing import Any

import pytest
from naps import mentioning, nap, sleeping, until

pytestmark = pytest.mark.root

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENVIRONMENT = {"PYTHONPATH": ROOT, "TERM": "vt100"}
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """`pybuild --root STORE` with the image `bb`: a static busybox."""
    work = tmp_path_factory.mktemp("run-terminal")
    (work / "bin").mkdir()
    shutil.copy("/bin/busybox", work / "bin" / "busybox")
    for name in ("sh", "cat", "stty", "tty", "sleep", "env", "ls", "seq"):
        os.symlink("busybox", work / "bin" / name)
    with tarfile.open(work / "root.tar", "w") as archive:
        archive.add(work / "bin", "bin")
    start = (sys.executable, "-m", "builder.cli.main", "--root", str(work / "store"))
    imported = [*start, "import", str(work / "root.tar"), "bb"]
    subprocess.run(imported, env={**os.environ, **ENVIRONMENT}, check=True, capture_output=True, timeout=60)
    return start


@pytest.fixture
def run(typist: Any, command: tuple[str, ...]) -> Run:
    """Run at a terminal: a person there."""
    return lambda *args: typist(*command, "run", "--network=none", *args, env=ENVIRONMENT)


def piped(command: tuple[str, ...], *args: str, stdin: Any = subprocess.DEVNULL, **rest: Any) -> Any:
    return subprocess.run([*command, "run", "--network=none", *args], env={**os.environ, **ENVIRONMENT},
                          stdin=stdin, capture_output=True, text=True, timeout=60, **rest)  # fmt: skip


def test_a_shell(run: Run) -> None:
    with run("-it", "--rm", "-e", "A=1", "--hostname", "box", "bb", "sh") as person:
        person.expect("# ")
        person.type("PS1=; stty -echo\r")
        person.expect("echo")
        person.ask("true")
        assert person.raw()
        assert person.ask(
            "tty; stty size; echo $TERM $A; hostname 2>/dev/null || cat /proc/sys/kernel/hostname"
        ) == ("/dev/pts/0\n30 100\nxterm 1\nbox\n")
        person.resize(20, 50)
        deadline = time.monotonic() + 60
        while person.ask("stty size") != "20 50\n":
            assert time.monotonic() < deadline
        moment = nap()
        person.type(f"sleep {moment}\r")
        until(lambda: sleeping(moment))
        person.type("\x03")
        assert person.ask("echo here").endswith("here\n")
        person.type("exit 7\r")
        assert person.end() == 7
        assert person.attributes() == person.before


def test_only_a_terminal(run: Run) -> None:
    """Without -i nothing that is typed reaches the program, and our terminal stays as it is."""
    with run(
        "-t", "bb", "sh", "-c", "tty; stty size; echo ready; sleep 0.3; stty -a | grep -c isig"
    ) as person:
        person.expect("ready\n")
        assert not person.raw()
        assert person.end() == 0
        assert "/dev/pts/0\n30 100\nready\n" in person.said


def test_without_namespaces(run: Run) -> None:
    with run(
        "-it", "--network=host", "--isolation=chroot", "bb", "sh", "-c", "read x; stty size; exit $x"
    ) as person:
        person.type("4\r")
        assert person.end() == 4, person.said
        assert "30 100\n" in person.said and person.attributes() == person.before


def test_ctrl_c_without_input_ends_it(run: Run) -> None:
    with run("-t", "bb", "sh", "-c", "echo ready; sleep 1000") as person:
        person.expect("ready\n")
        person.type("\x03")
        assert person.end() == 130
        assert person.attributes() == person.before


def test_only_input(run: Run) -> None:
    with run("-i", "bb", "sh", "-c", "cat; tty") as person:
        person.type("hello\r\x04")
        assert person.end() == 1
        assert person.said.endswith("hello\nhello\nnot a tty\n")


def test_a_terminal_for_a_pipe(command: tuple[str, ...]) -> None:
    """`docker run -t IMAGE | less`: the program sees a terminal, whatever ours are."""
    done = piped(command, "-t", "bb", "sh", "-c", "tty; tty >&2; seq 1 20000; exit 3")
    assert done.returncode == 3 and done.stderr == ""
    assert done.stdout.split() == ["/dev/pts/0", "/dev/pts/0", *map(str, range(1, 20001))]


def test_input_of_a_terminal_is_one(command: tuple[str, ...]) -> None:
    done = piped(command, "-it", "bb", "sh")
    assert done.returncode == 1 and done.stderr.startswith("error: the input device is not a TTY\n")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("bb", "nothing"), 127, 'pybuild: exec: "nothing": executable file not found in $PATH'),
        (("bb", "/bin"), 126, 'pybuild: exec: "/bin": is a directory'),
        (("-u", "nobody-here", "bb", "sh"), 125, "nobody-here"),
        (("missing", "sh"), 125, "missing"),
        (("bb", "sh", "-c", "kill -9 $$"), 0, ""),
        (("bb", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"), 137, ""),
        (("-e", "TERM=dumb", "bb", "sh", "-c", 'test "$TERM" = dumb'), 0, ""),
        (
            (
                "-w",
                "/bin",
                "-u",
                "5",
                "--entrypoint",
                "sh",
                "bb",
                "-c",
                "test -O /proc/self/fd/0 && test -x cat",
            ),
            0,
            "",
        ),
    ],
)
def test_codes(run: Run, args: tuple[str, ...], code: int, said: str) -> None:
    with run("--pull=never", "-i", "-t", *args) as person:
        assert person.end() == code, person.said
        assert said in person.said and person.attributes() == person.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_our_end_is_its_end(run: Run, number: signal.Signals) -> None:
    moment = nap()
    with run("-it", "bb", "sh", "-c", f"echo ready; exec sleep {moment}") as person:
        person.expect("ready\n")
        person.process.send_signal(number)
        assert person.end() == 128 + number
        assert person.attributes() == person.before
    until(lambda: not mentioning(moment))


def test_a_terminal_that_hangs_up(command: tuple[str, ...], typist: Any) -> None:
    moment = nap()
    words = ("run", "-it", "--network=none", "bb", "sh", "-c", f"echo ready; exec sleep {moment}")
    person = typist(*command, *words, env=ENVIRONMENT)
    person.expect("ready\n")
    os.close(person.terminal)
    os.close(person._master)
    assert person.process.wait(timeout=60) == 129
    until(lambda: not mentioning(moment))


@pytest.mark.parametrize(
    ("trap", "signals", "code"),
    [
        ("trap 'echo caught; exit 4' INT", [signal.SIGINT], 4),
        ("trap 'echo caught; exit 5' TERM", [signal.SIGTERM], 5),
        ("trap 'echo caught; exit 6' USR1", [signal.SIGUSR1], 6),
        ("true", [signal.SIGINT], 130),  # no handler: it ends as any process would
        ("true", [signal.SIGTERM], 143),
        ("trap 'echo caught' INT", [signal.SIGINT] * 3, 130),  # whoever insists
    ],
)
def test_signals_reach_the_program(
    command: tuple[str, ...], trap: str, signals: list[signal.Signals], code: int
) -> None:
    script = f"{trap}; echo ready; while :; do sleep 0.05; done"
    process = subprocess.Popen(
        [*command, "run", "--network=none", "bb", "sh", "-c", script],
        env={**os.environ, **ENVIRONMENT}, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for position, number in enumerate(signals):
            process.send_signal(number)
            if "trap" in trap and (position < 2 or len(signals) == 1):
                assert process.stdout.readline() == "caught\n"
        assert process.wait(timeout=60) == code
    finally:
        process.kill()
        process.communicate()
