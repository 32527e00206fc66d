"""The life of containers as a user types it: in the background, stopped, started again, joined, removed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fleet import ENVIRONMENT, Fleet, wait_for
from naps import mentioning, nap

pytestmark = pytest.mark.root

_PATIENCE_S = 60


@pytest.fixture(scope="module")
def _fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("containers"))


@pytest.fixture
def fleet(_fleet: Fleet) -> Iterator[Fleet]:
    yield _fleet
    _fleet.clear()
    assert _fleet.containers.ids() == []


def test_in_the_background(fleet: Fleet) -> None:
    ident = fleet.begin("--name", "web", "bb", "sh", "-c", "echo one > /made; echo said; exec sleep 1000")
    assert len(ident) == 64 and fleet.state("web").status == "running"
    assert fleet("exec", "web", "cat", "/made") == "one"
    assert fleet("stop", "web") == "web"
    state = fleet.state("web")
    assert (state.status, state.exit_code, state.pid) == ("exited", 137, 0)
    assert fleet("start", "web") == "web"
    assert fleet("exec", "web", "cat", "/made") == "one"  # what it wrote is there in its next life
    assert fleet("rm", "-f", "web") == "web"
    assert fleet.ran("exec", "web", "true").returncode == 1


def test_exit_codes_are_kept_and_waited_for(fleet: Fleet) -> None:
    fleet.begin("--name", "short", "bb", "sh", "-c", "exit 7")
    assert fleet("wait", "short") == "7"
    wait_for(lambda: fleet.state("short").status == "exited")
    assert fleet.state("short").exit_code == 7
    done = fleet.ran("start", "-a", "short")
    assert done.returncode == 7


def test_what_cannot_be_started(fleet: Fleet) -> None:
    for words, code in (
        (("bb", "nothing"), 127),
        (("bb", "/bin"), 126),
        (("-v", "/nope/../x:relative", "bb"), 125),
    ):
        done = fleet.ran("run", "-d", "--network=none", *words)
        assert done.returncode == code and done.stdout == "" and "Traceback" not in done.stderr
    assert {fleet.state(each).status for each in fleet.containers.ids()} == {"created"}
    assert fleet.ran("run", "-d", "--rm", "--network=none", "bb", "nothing").returncode == 127


def test_rm_takes_it_away_when_it_has_ended(fleet: Fleet) -> None:
    assert fleet.ran("run", "--rm", "--network=none", "bb", "sh", "-c", "exit 3").returncode == 3
    assert fleet.containers.ids() == []
    fleet.begin("--rm", "--name", "gone", "bb", "sleep", "1000")
    fleet("stop", "gone")
    assert fleet.containers.ids() == []


def test_a_run_without_a_name_leaves_nothing(fleet: Fleet, tmp_path: Path) -> None:
    program = ("--network=none", "bb", "sh", "-c", "exit 3")
    assert fleet.ran("run", *program).returncode == 3
    assert fleet.ran("run", "--network=none", "bb", "nothing").returncode == 127
    assert fleet("ps", "-aq") == ""

    kept = [("--keep",), ("--rm=false",), ("--name", "kept"), ("--cidfile", str(tmp_path / "cid"))]
    for words in kept:
        assert fleet.ran("run", *words, *program).returncode == 3
    assert len(fleet("ps", "-aq").splitlines()) == len(kept)


def test_a_program_that_ignores_its_stop_signal(fleet: Fleet) -> None:
    fleet.begin("--name", "deaf", "bb", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    wait_for(lambda: b"ready" in fleet.printed("deaf"))
    began = time.monotonic()
    fleet("stop", "-t", "1", "deaf")
    assert time.monotonic() - began >= 1 and fleet.state("deaf").exit_code == 137


def test_a_program_that_hears_its_stop_signal(fleet: Fleet) -> None:
    script = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done"
    fleet.begin("--name", "keen", "--stop-signal", "USR1", "bb", "sh", "-c", script)
    wait_for(lambda: b"ready" in fleet.printed("keen"))
    fleet("stop", "keen")
    assert fleet.state("keen").exit_code == 5


def test_exec(fleet: Fleet) -> None:
    fleet.begin("--name", "box", "-e", "A=1", "-w", "/tmp", "-u", "5:6", "bb", "sleep", "1000")
    assert fleet("exec", "box", "sh", "-c", "echo $A; id -u; id -g; pwd").split() == ["1", "5", "6", "/tmp"]
    asked = ("-e", "A=2", "-w", "/bin", "-u", "0")
    assert fleet("exec", *asked, "box", "sh", "-c", "echo $A; id -u; pwd").split() == ["2", "0", "/bin"]
    assert fleet("exec", "-i", "box", "cat", stdin="typed") == "typed"
    assert fleet("exec", "box", "cat", stdin="typed") == ""
    assert fleet.ran("exec", "box", "sh", "-c", "echo out; echo err >&2; exit 4").stderr == "err\n"
    programs = (["sh", "-c", "exit 4"], ["/no"], ["/bin"])
    assert [fleet.ran("exec", "box", *each).returncode for each in programs] == [
        4, 127, 126,
    ]  # fmt: skip
    assert fleet("exec", "-d", "-u", "0", "box", "sh", "-c", "echo later > /later; sleep 1000") == ""
    wait_for(lambda: fleet.ran("exec", "box", "cat", "/later").stdout == "later\n")


def test_exec_at_a_terminal(fleet: Fleet, typist: Any) -> None:
    fleet.begin("--name", "box", "bb", "sleep", "1000")
    with typist(*fleet.command, "exec", "-it", "box", "sh", env=ENVIRONMENT) as person:
        person.expect("# ")
        person.type("PS1=; stty -echo\r")
        person.expect("echo")
        person.ask("true")
        assert person.ask("stty size; tty") == "30 100\n/dev/pts/0\n"
        person.type("exit 6\r")
        assert person.end() == 6 and person.attributes() == person.before


def test_s92_exec_is_confined_like_the_container(fleet: Fleet) -> None:
    """SECURITY.md S92."""
    fleet.begin("--name", "box", "bb", "sleep", "1000")
    script = "cat /proc/self/status; ls /proc/self/fd"
    inside = fleet("exec", "box", "sh", "-c", script).splitlines()
    own = fleet("run", "--rm", "--network=none", "bb", "sh", "-c", script).splitlines()
    rows = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp:")
    assert [each for each in inside if each.startswith(rows)] == [
        each for each in own if each.startswith(rows)
    ]
    assert (
        inside[-3:-1] == own[-3:-1]
        and fleet.ran("exec", "box", "mount", "-t", "tmpfs", "x", "/bin").returncode
    )


def test_capabilities_and_read_only(fleet: Fleet) -> None:
    words = ("--rm", "--network=none", "--cap-drop=ALL", "--cap-add=kill", "--read-only", "bb", "sh", "-c")
    said = fleet("run", *words, "cat /proc/self/status; touch /x 2>&1; echo $?")
    assert "CapEff:\t0000000000000020" in said and said.splitlines()[-2:] == [
        "touch: /x: Read-only file system", "1",
    ]  # fmt: skip


def test_detached_and_attached_again(fleet: Fleet, typist: Any) -> None:
    words = ("run", "-it", "--network=none", "--name", "box", "bb", "sh")
    with typist(*fleet.command, *words, env=ENVIRONMENT) as person:
        person.expect("# ")
        person.type("A=kept\r")
        person.type("\x10\x11")
        assert person.end() == 0 and person.attributes() == person.before
    assert fleet.state("box").status == "running"
    with typist(*fleet.command, "attach", "box", env=ENVIRONMENT) as person:
        person.type("echo got $A; exit 9\r")
        assert person.end() == 9 and "got kept" in person.said


def test_two_are_attached(fleet: Fleet) -> None:
    fleet.begin("--name", "box", "-i", "bb", "sh", "-c", "read x; echo heard $x; exit 2")
    watching = subprocess.Popen(
        [*fleet.command, "attach", "--no-stdin", "box"], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    typing = fleet.ran("attach", "box", stdin="hello\n")
    assert (typing.returncode, typing.stdout) == (2, "heard hello\n")
    assert watching.communicate(timeout=_PATIENCE_S)[0] in ("heard hello\n", "")


def test_pause(fleet: Fleet) -> None:
    fleet.begin("--name", "box", "bb", "sh", "-c", "while :; do echo x; sleep 0.02; done")
    log = Path(fleet.containers.path(fleet.containers.find("box"), "log"))
    fleet("pause", "box")
    assert fleet.state("box").status == "paused" and fleet.ran("pause", "box").returncode == 1
    size = log.stat().st_size
    time.sleep(0.3)
    assert log.stat().st_size == size and fleet.ran("exec", "box", "true").returncode == 1
    fleet("unpause", "box")
    wait_for(lambda: log.stat().st_size > size)
    fleet("pause", "box")
    fleet("stop", "-t", "1", "box")  # a paused one can be stopped
    assert fleet.state("box").status == "exited"


def test_ports(fleet: Fleet) -> None:
    serve = "while :; do echo hello | nc -l -p 70; done"
    fleet("run", "-d", "--name", "box", "-p", "127.0.0.1::70", "bb", "sh", "-c", serve)
    (port,) = fleet.state("box").ports

    def said() -> str:  # it takes a while until the program listens
        with (
            suppress(ConnectionResetError),
            socket.create_connection(("127.0.0.1", port.host_port), timeout=_PATIENCE_S) as client,
        ):
            return client.makefile().read()
        return ""

    wait_for(lambda: said() == "hello\n")
    taken = f"127.0.0.1:{port.host_port}:70"
    done = fleet.ran("run", "-d", "-p", taken, "bb", "sleep", "1")
    assert done.returncode == 125 and str(port.host_port) in done.stderr
    fleet("stop", "box")
    fleet("start", "box")
    assert len(fleet.state("box").ports) == 1


def test_volumes(fleet: Fleet, tmp_path: Path) -> None:
    words = (
        "run",
        "--rm",
        "--network=none",
        "-v",
        "data:/data",
        "-v",
        f"{tmp_path}:/host:ro",
        "--tmpfs",
        "/t",
    )
    said = fleet(*words, "bb", "sh", "-c", "echo kept > /data/x; touch /host/x 2>&1; touch /t/x && echo made")
    assert said.splitlines() == ["touch: /host/x: Read-only file system", "made"]
    assert fleet(*words, "bb", "cat", "/data/x") == "kept" and os.listdir(tmp_path) == []
    assert fleet("run", "--rm", "--network=none", "-v", "/only", "bb", "touch", "/only/x") == ""
    assert fleet("volume", "ls", "-q").split() == ["data"]  # one without a name went with its container
    fleet("volume", "rm", "data")


def test_a_killed_monitor_leaves_nothing_running(fleet: Fleet) -> None:
    """SECURITY.md S96."""
    number = nap()
    fleet.begin("--name", "box", "bb", "sleep", number)
    os.kill(fleet.state("box").monitor, signal.SIGKILL)
    wait_for(lambda: not mentioning(number))
    assert (fleet.state("box").status, fleet.state("box").exit_code) == ("exited", 137)
    assert fleet.ran("stop", "box").returncode == 0  # as docker: it has ended, which is what was asked for
    fleet("start", "box")
    assert fleet.state("box").status == "running"


def test_a_killed_client_leaves_it_running(fleet: Fleet) -> None:
    words = ("run", "--name", "box", "--network=none", "bb", "sleep", "1000")
    client = subprocess.Popen([*fleet.command, *words], env=ENVIRONMENT)
    wait_for(lambda: any(state.status == "running" for _, state in fleet.containers.all()))
    client.kill()
    client.wait()
    time.sleep(0.2)
    assert fleet.state("box").status == "running" and fleet("exec", "box", "echo", "there") == "there"


def test_names(fleet: Fleet) -> None:
    fleet.begin("--name", "box", "bb", "sleep", "1000")
    done = fleet.ran("run", "-d", "--name", "box", "bb", "true")
    assert done.returncode == 125 and "in use by the container" in done.stderr
    assert fleet.ran("rm", "box").returncode != 0 and fleet.ran("rm", "nothing").returncode == 1
    assert fleet.ran("rm", "-f", "nothing").returncode == 0


def test_a_lot_of_output_and_a_slow_reader(fleet: Fleet) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
    done = fleet.ran("run", "--name", "box", "--network=none", "bb", "sh", "-c", script)
    assert done.stdout.splitlines() == [f"line {number}" for number in range(20000)]


def test_cidfile_and_create(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "cid"
    ident = fleet("create", "--cidfile", str(file), "--name", "box", "--network=none", "bb", "echo", "hi")
    assert file.read_text() == ident and fleet.state("box").status == "created"
    assert fleet.ran("create", "--cidfile", str(file), "bb", "true").returncode == 2
    assert fleet("start", "-a", "box") == "hi"


TRACER = r"""
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
/* Traces the next process that comes as soon as it can, tells what program that is by then, and lets go. */
int main(void) {
    int pid = getpid() + 1;
    char link[256] = {0}, name[64];
    printf("up\n"); fflush(stdout);
    while (ptrace(PTRACE_SEIZE, pid, 0, 0)) ;
    ptrace(PTRACE_INTERRUPT, pid, 0, 0);
    waitpid(pid, 0, __WALL);
    sprintf(name, "/proc/%d/exe", pid);
    if (readlink(name, link, 255) < 0) strcpy(link, "?");
    ptrace(PTRACE_DETACH, pid, 0, 0);
    printf("got %s\n", link); fflush(stdout);
    for (;;) pause();
}
"""


def test_s11_a_container_that_may_trace_gets_no_hold_of_a_joining_process(
    fleet: Fleet, compiled: Any
) -> None:
    """CAP_SYS_PTRACE does not mind that the process is not dumpable: nothing in there runs meanwhile."""
    folder = os.path.dirname(compiled(TRACER))
    words = ["--cap-add=SYS_PTRACE", "-v", f"{folder}:/tracer:ro", "bb", "/tracer/program"]
    container = fleet.begin(*words)
    wait_for(lambda: b"up" in fleet.printed(container))
    fleet("exec", "-d", container, "sleep", "8509")
    wait_for(lambda: b"got " in fleet.printed(container))
    assert b"got /bin/busybox" in fleet.printed(container)
