"""`--on-failure=shell` as people use it: at a terminal, in a step that failed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from naps import mentioning, nap, sleeping, until

from builder.errors import SandboxError, StepFailed, UsageError
from builder.events import StepStarted
from builder.sandbox.spec import Bind, Terminal
from builder.secrets import Agent, Secret
from builder.solver.failed import FailedStep

pytestmark = pytest.mark.root

PYBUILD = (sys.executable, "-m", "builder.cli.main")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENVIRONMENT = {"PYTHONPATH": ROOT, "TERM": "xterm", "BUILDKIT_PROGRESS": "plain"}
ENTERED = "nothing that is done there is kept\n"


class Desk:
    """A shop's store and context, and a person at a terminal who builds there."""

    def __init__(self, shop: Any, typist: Any) -> None:
        self.shop = shop
        self._typist = typist

    def argv(self, *flags: str) -> tuple[str, ...]:
        rest = ("build", "--network=none", *flags, str(self.shop.context))
        return (*PYBUILD, "--root", self.shop.root, *rest)

    @contextmanager
    def building(self, dockerfile: str, *flags: str, **env: str) -> Iterator[Any]:
        self.shop.write("Dockerfile", dockerfile)
        with self._typist(*self.argv(*flags), env={**ENVIRONMENT, **env}) as person:
            yield person

    @contextmanager
    def entered(self, dockerfile: str, *flags: str, **env: str) -> Iterator[Any]:
        """In the shell, whose prompt is taken away."""
        with self.building(dockerfile, "--on-failure=shell", *flags, **env) as person:
            person.expect(ENTERED)
            person.expect(" ")  # the prompt
            person.type("PS1=; stty -echo\r")
            person.expect("echo")
            person.ask("true")
            yield person


@pytest.fixture
def desk(shop: Any, typist: Any) -> Desk:
    return Desk(shop, typist)


DOCKERFILE = """\
FROM base AS other
RUN mkdir /d; echo below > /d/below
FROM base
ENV A=1
RUN mkdir /work; echo base > /base
WORKDIR /work
USER app
USER root
RUN --mount=type=cache,target=/cache --mount=type=cache,target=/fixed,id=other,ro \\
    --mount=type=tmpfs,target=/t --mount=type=secret,id=s --mount=type=secret,id=v,env=V \\
    --mount=type=bind,from=other,source=/d,target=/ro --mount=type=bind,from=other,source=/d,target=/rw,rw \\
    echo cached > /cache/f; echo more > /rw/more; echo made > made; rm /base; echo why; exit 7
"""


def test_it_is_the_step_as_it_was(desk: Desk, tmp_path: Any) -> None:
    (tmp_path / "s").write_text("the secret")
    secrets = ("--secret", f"id=s,src={tmp_path}/s", "--secret", "id=v,env=VALUE")
    with desk.entered(DOCKERFILE, *secrets, VALUE="variable") as person:
        assert "Dockerfile:9: RUN exited with 7\n" in person.said
        assert person.ask("cat made; ls /base 2>&1; pwd; id -u; echo $A $V") == (
            "made\nls: /base: No such file or directory\n/work\n0\n1 variable\n"
        )
        assert person.ask("cat /cache/f /ro/below /rw/below /rw/more /run/secrets/s") == (
            "cached\nbelow\nbelow\nmore\nthe secret"
        )
        assert person.ask("ip -o link | wc -l; hostname; busybox tty") == "1\nbuildkitsandbox\n/dev/pts/0\n"
        for place in ("/ro/x", "/fixed/x", "/run/secrets/s"):
            assert "Read-only" in person.ask(f"echo x > {place}")
        person.type("exit\r")
        assert person.end() == 1
        assert "   | why\n" in person.said.split(ENTERED)[1]  # the failure, told as ever


def test_nothing_done_there_is_kept(desk: Desk) -> None:
    def store() -> list[str]:
        found = []
        for folder, folders, files in os.walk(desk.shop.root):
            folders[:] = [
                each for each in folders if each not in ("locks", "leases", "logs", "tmp", ".stubs", ".trash")
            ]
            found += [os.path.join(folder, each) for each in (*files, *folders)]
        return sorted(each for each in found if "state.db" not in each and "/.live/" not in each)

    with desk.building(DOCKERFILE.replace("type=secret,id=s", "type=tmpfs,target=/t2"), VALUE="x") as person:
        assert person.end() == 1
    before = store()
    with desk.entered(DOCKERFILE.replace("type=secret,id=s", "type=tmpfs,target=/t2")) as person:
        script = "for f in /x /work/x /cache/x /rw/x /t/x; do echo shell > $f; done"
        assert person.ask(f"{script}; echo shell > /cache/f; rm /cache/f") == ""
        assert person.ask("ls -1 /x /work/x /cache /rw/x") == "/rw/x\n/work/x\n/x\n\n/cache:\nx\n"
        person.type("exit\r")
        assert person.end() == 1
    assert store() == before
    desk.shop.build(
        DOCKERFILE.replace("exit 7", "ls -R /cache /rw /work"), secrets=(Secret("s", value=b"1"),)
    )
    assert "/x" not in desk.shop.output() and "\nx\n" not in desk.shop.output()
    assert "/cache:\nf\n" in desk.shop.output()


@pytest.mark.parametrize(
    ("flags", "env"), [(("--isolation=rootless",), {}), ((), {"PYBUILD_SNAPSHOTTER": "copy"})]
)
def test_in_other_isolations(desk: Desk, flags: tuple[str, ...], env: dict[str, str]) -> None:
    """In a user namespace; and without overlay, where a cache is read-only in the shell."""
    dockerfile = (
        "FROM base\nRUN echo base > /base\nRUN --mount=type=cache,target=/cache,id=i echo c > /cache/f; "
        "rm /base; echo made > /made; false\n"
    )
    with desk.entered(dockerfile, *flags, **env) as person:
        assert person.ask("cat /made /cache/f; ls /base 2>&1; busybox tty") == (
            "made\nc\nls: /base: No such file or directory\n/dev/pts/0\n"
        )
        said = person.ask("echo more > /cache/f; cat /cache/f; echo x > /x; cat /x")
        assert said == "more\nx\n" if not env else "Read-only" in said and said.endswith("c\nx\n")
        person.type("exit\r")
        assert person.end() == 1
    with desk.entered(dockerfile, *flags, **env) as person:
        assert person.ask("cat /cache/f; ls /x 2>&1") == "c\nls: /x: No such file or directory\n"


def test_without_namespaces(desk: Desk) -> None:
    dockerfile = "FROM base\nRUN echo made > /made; exit 3\n"
    with desk.entered(dockerfile, "--isolation=chroot", "--network=host") as person:
        assert person.ask("cat /made; busybox stty size; echo x > /made") == "made\n30 100\n"
        person.type("exit\r")
        assert person.end() == 1 and person.attributes() == person.before


STATUS = "grep -E '^(Cap|Seccomp|NoNewPrivs|Uid|Gid|Groups)' /proc/self/status; ulimit -n; cat /proc/1/mounts"


@pytest.mark.parametrize(
    ("flag", "allow"), [("", ()), ("--security=insecure", ("--allow=security.insecure",))]
)
def test_no_more_privilege_than_the_step(desk: Desk, flag: str, allow: tuple[str, ...]) -> None:
    step = f"FROM base\nUSER app:extra\nRUN {flag} {{ {STATUS}; }} && exit 3\n"
    if flag:
        step = step.replace("USER app:extra\n", "")
    with desk.entered(step, *allow, "--ulimit", "nofile=77:99") as person:
        seen = [re.sub(r"^#\d+ \d\.\d+ ", "", each) for each in person.said.splitlines()]
        now = person.ask(STATUS).splitlines()
    now = [each for each in now if not each.startswith(("none / ", "none /dev/console "))]
    at = seen.index(now[0])
    assert [each for each in seen[at:] if not each.startswith("none / ")][: len(now)] == now


def kept(shop: Any, dockerfile: str, look: Callable[[FailedStep], None], **request: Any) -> None:
    """Build what fails, and look at the step then."""
    from builder import BuildRequest, build

    shop.write("Dockerfile", dockerfile)
    asked = replace(BuildRequest(context=str(shop.context), root=shop.root, network="none"), **request)
    with pytest.raises(StepFailed):
        build(asked, shop.events.append, on_failure=look)


def test_it_comes_from_where_every_step_comes_from(shop: Any) -> None:
    """S35: of the step's own sandbox only program, layers of its files, terminal and TERM are others."""

    def look(failed: FailedStep) -> None:
        own = failed._runner.sandbox(failed._op, failed._active, failed._view, failed._shown)
        ours = failed.sandbox("/bin/sh", Terminal(1, 2))
        changed = {"root": own.root, "argv": own.argv, "env": own.env, "mounts": own.mounts, "terminal": None}
        assert replace(ours, **changed) == own
        assert ours.env == (*own.env, ("TERM", "xterm"))
        assert ours.root.lowers == (own.root.upper, *own.root.lowers) and ours.root.upper != own.root.upper
        assert [each.target for each in ours.mounts] == [each.target for each in own.mounts]
        failed._runner._allow = frozenset()  # the one that decides says no
        with pytest.raises(SandboxError, match=r"not allowed network\.host"):
            failed.sandbox("/bin/sh", Terminal())
        looked.append(failed)

    looked: list[FailedStep] = []
    kept(shop, "FROM base\nRUN --network=host false\n", look, allow=frozenset({"network.host"}))
    assert len(looked) == 1


def test_an_agent_serves_the_shell_too(shop: Any, tmp_path: Any, top: str) -> None:
    key = str(tmp_path / "key")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    sockets: list[str] = []

    def listed(socket: str) -> int:
        env = {"SSH_AUTH_SOCK": socket, "PATH": os.environ["PATH"]}
        return subprocess.run(["ssh-add", "-l"], env=env, capture_output=True, check=False).returncode

    def look(failed: FailedStep) -> None:
        sandbox = failed.sandbox("/bin/sh", Terminal())
        assert dict(sandbox.env)["SSH_AUTH_SOCK"] == "/run/buildkit/ssh_agent.0"
        (door,) = [each for each in sandbox.mounts if each.target == "/run/buildkit/ssh_agent.0"]
        assert isinstance(door, Bind)
        os.symlink(os.path.dirname(door.source), f"{top}/s")  # a socket's path is short
        sockets.append(f"{top}/s/{os.path.basename(door.source)}")
        assert listed(sockets[0]) == 0

    dockerfile = "FROM base\nRUN --mount=type=ssh exit 2\n"
    kept(shop, dockerfile, look, ssh=(Agent("default", (key,)),))
    assert len(sockets) == 1 and listed(sockets[0]) == 2


def test_a_private_network_and_scripts(desk: Desk) -> None:
    dockerfile = "FROM base\nRUN <<EOF\n#!/bin/sh\necho the script\nexit 8\nEOF\n"
    with desk.entered(dockerfile, "--network=default", "--add-host=other:192.0.2.7") as person:
        assert person.ask("ip -o link | grep -c -v LOOPBACK") == "1\n"
        assert "192.0.2.7\tother" in person.ask("cat /etc/hosts")
        assert "nameserver" in person.ask("cat /etc/resolv.conf")
        assert person.ask("/dev/pipes/EOF; echo $?") == "the script\n8\n"


def test_the_program_is_that_of_shell_where_it_is_there(desk: Desk) -> None:
    name = "readlink /proc/$$/exe; tr '\\0' ' ' < /proc/$$/cmdline; echo"
    with desk.entered(
        'FROM base\nRUN ln -s busybox /bin/ash; ln -s busybox /bin/tr\nSHELL ["ash", "-ec"]\nRUN false\n'
    ) as person:
        assert person.ask(name).splitlines()[1] == "ash "
    with desk.entered(
        'FROM base\nRUN ln -s busybox /bin/tr\nSHELL ["/bin/sh", "-c"]\nRUN ["false"]\n'
    ) as person:
        assert person.ask(name).splitlines()[1] == "/bin/sh "


def test_the_usual_one_stands_in(desk: Desk) -> None:
    dockerfile = 'FROM base\nRUN ln -s busybox /bin/ash\nSHELL ["/bin/ash", "-c"]\nRUN rm /bin/ash; false\n'
    with desk.entered(dockerfile) as person:
        assert person.ask("echo $0") == "/bin/sh\n"


@pytest.mark.parametrize("shell", ["", 'SHELL ["/bin/bash", "-c"]\n'])
def test_no_shell_at_all(desk: Desk, shell: str) -> None:
    dockerfile = (
        f'FROM base AS b\nFROM scratch\n{shell}COPY --from=b /bin/busybox /bb\nRUN ["/bb", "false"]\n'
    )
    with desk.building(dockerfile, "--on-failure=shell") as person:
        assert person.end() == 1
        names = "neither /bin/bash nor /bin/sh can be run in it" if shell else "/bin/sh cannot be run in it"
        assert f"the step cannot be entered: it has no shell: {names}\n" in person.said
        assert person.attributes() == person.before
    with desk.building(dockerfile) as person:
        assert person.end() == 1
        assert "RUN exited with 1" in person.said and "--on-failure" not in person.said


def test_the_hint_is_given_where_it_can_be_followed(desk: Desk) -> None:
    failing = "FROM base\nRUN exit 3\n"
    with desk.building(failing) as person:
        assert person.end() == 1
        assert "hint: --on-failure=shell enters this step\n" in person.said
    with desk.building("FROM base\nCOPY missing /\n") as person:
        assert person.end() == 2
        assert "--on-failure" not in person.said
    desk.shop.write("Dockerfile", failing)
    done = subprocess.run(desk.argv(), env={**os.environ, **ENVIRONMENT}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 1 and "--on-failure" not in done.stderr


def test_without_a_terminal_nothing_is_built(desk: Desk) -> None:
    desk.shop.write("Dockerfile", "FROM base\nRUN echo built\n")
    done = subprocess.run(desk.argv("--on-failure=shell"), env={**os.environ, **ENVIRONMENT}, text=True,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=60)  # fmt: skip
    assert done.returncode == 2 and "needs a terminal on standard input" in done.stderr
    assert "#1" not in done.stderr


def test_not_with_keep_going(shop: Any) -> None:
    from builder import BuildRequest, build

    with pytest.raises(UsageError, match="cannot both be"):
        build(BuildRequest(context=".", keep_going=True), on_failure=lambda _: None)


def test_a_build_that_succeeds_asks_nothing(desk: Desk) -> None:
    with desk.building("FROM base\nRUN true\n", "--on-failure=shell") as person:
        assert person.end() == 0
        assert ENTERED not in person.said and person.attributes() == person.before


def test_limits_are_the_step_s_but_people_take_their_time(desk: Desk) -> None:
    limits = ("--step-timeout=1s", "--resource=scope=step,pids=20")
    with desk.entered("FROM base\nRUN sleep 1000\n", *limits) as person:
        assert "longer than 1s" in person.said
        assert person.ask("sleep 1.3; echo still here") == "still here\n"
        person.type("(for n in $(seq 60); do sleep 5 & done); echo 'a''ll'\r")
        assert "can't fork" in person.expect("all\n")


def test_the_window_s_size_follows(desk: Desk) -> None:
    with desk.entered("FROM base\nRUN false\n") as person:
        assert person.ask("busybox stty size") == "30 100\n"
        person.resize(41, 57)
        deadline = time.monotonic() + 60
        while person.ask("busybox stty size") != "41 57\n":
            assert time.monotonic() < deadline


def test_the_terminal_is_raw_meanwhile(desk: Desk) -> None:
    with desk.entered("FROM base\nRUN false\n") as person:
        assert person.raw()
        moment = nap()
        person.type(f"sleep {moment}\r")
        until(lambda: sleeping(moment))
        person.type("\x03")  # the shell's program ends by it, and nothing else
        assert person.ask("echo here").endswith("here\n")
        person.type("exit 5\r")
        assert person.end() == 1
        assert person.attributes() == person.before


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_the_terminal_is_as_before_however_it_ends(desk: Desk, number: signal.Signals, status: int) -> None:
    moment = nap()
    with desk.entered("FROM base\nRUN false\n") as person:
        person.type(f"sleep {moment}\r")
        person.process.send_signal(number)
        assert person.end() == status
        until(lambda: person.attributes() == person.before)
    until(lambda: not mentioning(moment))


def test_ctrl_c_before_it_comes_to_that(desk: Desk) -> None:
    with desk.building("FROM base\nRUN echo be''gun; sleep 1000\n", "--on-failure=shell") as person:
        person.expect("begun")
        person.type("\x03")
        assert person.end() == 130
        assert ENTERED not in person.said and person.attributes() == person.before


def test_the_live_view_is_out_of_the_way(desk: Desk) -> None:
    """And every other step has ended."""
    moment, cache = nap(), "--mount=type=cache,target=/m"
    dockerfile = (
        f"FROM base AS a\nRUN {cache} touch /m/begun; sleep {moment}\n"
        f"FROM base AS b\nRUN {cache} until [ -e /m/begun ]; do sleep 0.05; done; exit 4\nFROM base\n"
        "COPY --from=a / /\nCOPY --from=b / /\n"
    )
    with desk.entered(dockerfile, "--progress=tty", "--jobs=4") as person:
        assert "[+] Building" in person.said and "CANCELED" in person.said, person.said
        assert not sleeping(moment)
        before = len(person.said)
        time.sleep(0.5)  # four drawings
        assert person.ask("echo") == "\n"
        assert "Building" not in person.said[before:]
        person.type("exit\r")
        assert person.end() == 1
        assert person.said.count("\x1b[?25h") >= 1  # the cursor is shown again


def test_programs_may_read_the_events(shop: Any) -> None:
    """The Python API: the step is told, and is gone afterwards."""
    seen: list[Any] = []

    def look(failed: FailedStep) -> None:
        with failed.entered("/bin/sh", Terminal(3, 4)) as running:
            master = running.terminal()
            os.write(master, b"exit 9\n")
            seen.append((failed.error.status, failed.programs(), running.wait().status))
            os.close(master)

    kept(shop, "FROM base\nRUN exit 6\n", look)
    assert seen == [(6, ("/bin/sh",), 9)]
    assert any(isinstance(each, StepStarted) for each in shop.events)
    assert os.listdir(f"{shop.root}/snapshots/.live") in ([".gate"], [])
