"""ssh agents in steps: they list and sign, as long as the step runs, and nothing else (S63)."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from naps import mentioning, until

from builder.errors import BuildError, SandboxError, UsageError
from builder.sandbox import agent as agents
from builder.sandbox.agent import Door, KeyAgent
from builder.secrets import Agent

if TYPE_CHECKING:
    from conftest import Workshop

pytestmark = pytest.mark.root

FAILURE = 5


def keygen(path: Path, *more: str) -> str:
    """A key pair; its fingerprint."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path, *more], check=True)
    shown = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, check=True, text=True)
    return shown.stdout.split()[1]


def ssh_add(sock: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ssh-add", *words],
        env={"SSH_AUTH_SOCK": sock, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.fixture
def key(tmp_path: Path) -> tuple[str, str]:
    return str(tmp_path / "key"), keygen(tmp_path / "key")


@pytest.fixture
def agent(key: tuple[str, str]) -> Iterator[str]:
    """The socket of an agent that holds the key."""
    with KeyAgent([key[0]]) as running:
        yield running.path


@pytest.fixture
def door(agent: str, tmp_path: Path) -> Iterator[str]:
    with opened(agent, tmp_path) as path:
        yield path


class opened:
    """A door to an agent, by its path."""

    def __init__(self, upstream: str, folder: Path) -> None:
        self._fd = os.open(folder, os.O_RDONLY)
        self._door = Door(self._fd, "door", upstream, (0o600, 0, 0))
        self.path = str(folder / "door")

    def __enter__(self) -> str:
        try:
            self._door.__enter__()
        except BaseException:
            os.close(self._fd)
            raise
        return self.path

    def __exit__(self, *exc: object) -> None:
        self._door.__exit__(*exc)
        os.close(self._fd)


# ---- the door ----


def test_a_client_lists_and_signs(door: str, key: tuple[str, str], tmp_path: Path) -> None:
    assert key[1] in ssh_add(door, "-l").stdout
    (tmp_path / "text").write_text("to be signed")
    (tmp_path / "pub").write_text((tmp_path / "key.pub").read_text())
    signed = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-f", tmp_path / "pub", "-n", "test", tmp_path / "text"],
        env={"SSH_AUTH_SOCK": door, "PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
    )
    assert signed.returncode == 0, signed.stderr
    assert "SSH SIGNATURE" in (tmp_path / "text.sig").read_text()


def test_a_door_that_cannot_be_made_leaves_no_socket(tmp_path: Path) -> None:
    (tmp_path / "door").touch()
    with pytest.raises(OSError, match="in use"), opened("/nobody", tmp_path):
        raise AssertionError("something has that name")
    gc.collect()  # an unclosed socket is a warning, and so a failure


@pytest.mark.parametrize("words", [["-D"], ["-d"], ["-x"], ["-X"], ["other"], ["-s", "/usr/lib/x.so"]])
def test_a_client_can_change_nothing(
    door: str, agent: str, key: tuple[str, str], tmp_path: Path, words: list[str]
) -> None:
    """SECURITY.md S63."""
    keygen(tmp_path / "other")
    names = [str(tmp_path / each) if each == "other" else each for each in words]
    if words == ["-d"]:
        names.append(key[0])
    assert ssh_add(door, *names).returncode != 0
    listed = ssh_add(agent, "-l").stdout
    assert listed.count("\n") == 1 and key[1] in listed


def talk(path: str, message: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(path)
        client.sendall(message)
        return client.recv(1 << 16)


@pytest.mark.parametrize("kind", [*range(11), 12, *range(14, 32), 100, 255])
def test_every_other_request_is_answered_here(tmp_path: Path, kind: int) -> None:
    """S63. The agent behind it does not even exist as far as they are concerned."""
    upstream, heard = echo(tmp_path / "upstream")
    with opened(upstream, tmp_path) as path:
        assert talk(path, struct.pack(">IB", 5, kind) + b"more") == struct.pack(">IB", 1, FAILURE)
    assert heard == []


def test_nothing_travels_along_with_a_request_for_identities(tmp_path: Path) -> None:
    upstream, heard = echo(tmp_path / "upstream")
    with opened(upstream, tmp_path) as path:
        assert talk(path, struct.pack(">IB", 7, 11) + b"hidden") == struct.pack(">IB", 1, 11)
    assert heard == [struct.pack(">IB", 1, 11)]


@pytest.mark.parametrize("message", [bytes(4), struct.pack(">I", 1 << 30), struct.pack(">IB", 9, 11) + b"x"])
def test_nonsense_ends_a_connection_and_no_other(door: str, key: tuple[str, str], message: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(door)
        client.sendall(message)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""
    assert key[1] in ssh_add(door, "-l").stdout


def echo(path: Path) -> tuple[str, list[bytes]]:
    """An agent that gives back what it hears, once."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    heard: list[bytes] = []

    def serve() -> None:
        with listener, suppress(OSError):  # nobody has to come
            listener.settimeout(60)
            peer, _ = listener.accept()
            with peer:
                if message := peer.recv(1 << 16):
                    heard.append(message)
                    peer.sendall(message)

    threading.Thread(target=serve, daemon=True).start()
    return str(path), heard


def test_a_closed_door_lets_nobody_through(agent: str, tmp_path: Path) -> None:
    """S63. Neither by its name, nor by a connection or a name that a process kept."""
    request = struct.pack(">IB", 1, 11)
    with opened(agent, tmp_path) as path, socket.socket(socket.AF_UNIX) as kept:
        kept.connect(path)
        kept.sendall(request)
        assert kept.recv(1 << 16)[4] == 12
        os.link(path, path + ".kept")
        late = kept.dup()
    with late:
        late.settimeout(60)
        with pytest.raises(BrokenPipeError):
            late.sendall(request)
    with pytest.raises(ConnectionRefusedError):
        talk(path + ".kept", request)
    assert not os.path.exists(path)
    assert not [each for each in threading.enumerate() if each.name == "ssh-door"]


def test_many_clients_at_once(door: str, key: tuple[str, str]) -> None:
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(talk(door, struct.pack(">IB", 1, 11))[4] == 12))
        for _ in range(32)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [True] * 32


# ---- agents of our own ----


def test_a_private_agent_holds_keys_and_is_gone_afterwards(key: tuple[str, str], tmp_path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", tmp_path / "rsa"], check=True
    )
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "ecdsa"], check=True)
    with KeyAgent([key[0], str(tmp_path / "rsa"), str(tmp_path / "ecdsa")]) as running:
        path = running.path
        assert ssh_add(path, "-l").stdout.count("\n") == 3
        folder = os.path.dirname(path)
        assert os.stat(folder).st_mode & 0o777 == 0o700
        assert not any(b"PRIVATE" in open(os.path.join(folder, n), "rb").read() for n in plain(folder))  # noqa: SIM115
    assert not os.path.exists(folder) and not mentioning(path)


def plain(folder: str) -> list[str]:
    return [name for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name))]


@pytest.fixture
def agent_places(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where agents of this test have their directories: no other run's is mistaken for one of them."""
    with tempfile.TemporaryDirectory(prefix="pybuild-ssh-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield folder


def test_keys_that_are_not_taken(tmp_path: Path, agent_places: str) -> None:
    keygen(tmp_path / "locked", "-N", "passphrase")
    (tmp_path / "text").write_text("no key")
    os.chmod(tmp_path / "text", 0o600)
    for name in ("locked", "text"):
        with pytest.raises(OSError, match=f"does not take .*{name}"), KeyAgent([str(tmp_path / name)]):
            raise AssertionError("it has no such key")
    assert not mentioning(f"{agent_places}/") and os.listdir(agent_places) == []


def test_without_openssh_it_is_said_what_to_install(key: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "_TRUSTED_PATH", "/nonexistent")
    with pytest.raises(OSError, match="install openssh-client"), KeyAgent([key[0]]):
        raise AssertionError("there is no ssh-agent")


# ---- in steps ----


@pytest.fixture
def tools(shop: Workshop) -> str:
    """Lines of a Dockerfile that give the base this machine's ssh-add."""
    program = shutil.which("ssh-add")
    assert program
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    files = [program, *(word for word in listed.split() if word.startswith("/"))]
    for path in files:
        target = shop.context / "tools" / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(path), target)
    return "FROM base\nCOPY tools /\nRUN mkdir -p /tmp /root\n"


def test_a_step_uses_the_users_agent(shop: Workshop, tools: str, agent: str, key: tuple[str, str]) -> None:
    built = shop.build(
        f"{tools}RUN --mount=type=ssh ssh-add -l; ssh-add -D; stat -c '%n %a %u %g' $SSH_AUTH_SOCK\n"
        "RUN --mount=type=ssh,target=/a/sock,mode=0666,uid=5,gid=6 USER=x; "
        "stat -c '%n %a %u %g' $SSH_AUTH_SOCK; ssh-add -l\n"
        "RUN test -z $SSH_AUTH_SOCK && ls -A / \n",
        ssh=(Agent("default", (agent,)),),
        outputs=shop.tar(),
    )
    shown = shop.output()
    assert shown.count(key[1]) == 2 and "/run/buildkit/ssh_agent.0 600 0 0\n" in shown
    assert "Failed to remove all identities" in shown and "/a/sock 666 5 6\n" in shown
    assert not {"run", "a"} & set(shop.files(built)), "no mount point stays"
    assert key[1] in ssh_add(agent, "-l").stdout


def test_a_step_as_a_user_needs_a_socket_of_its_own(shop: Workshop, tools: str, agent: str, key: Any) -> None:
    shop.build(
        f"{tools}USER 1000\nRUN --mount=type=ssh ssh-add -l || echo no\n"
        "RUN --mount=type=ssh,uid=1000 ssh-add -l\n",
        ssh=(Agent("default", (agent,)),),
    )
    assert "no\n" in shop.output() and shop.output().count(key[1]) == 1


def test_keys_are_given_to_steps_by_an_agent_only(
    shop: Workshop, tools: str, key: tuple[str, str], agent_places: str
) -> None:
    shop.build(
        f"{tools}RUN --mount=type=ssh,id=work ssh-add -l; grep -r PRIVATE /run /tmp /root || echo none\n",
        ssh=(Agent("work", (key[0],)),),
    )
    assert key[1] in shop.output() and "none" in shop.output()
    assert not mentioning(f"{agent_places}/") and os.listdir(agent_places) == []
    with open(key[0], "rb") as file:
        secret = file.read()[50:90]
    for folder, _, names in os.walk(shop.root):
        for path in (os.path.join(folder, name) for name in names):
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    assert secret not in file.read(), path


def test_the_agent_is_in_the_key_by_its_mount_only(shop: Workshop, agent: str, key: tuple[str, str]) -> None:
    dockerfile = "FROM base\nRUN --mount=type=ssh touch /x\n"
    shop.build(dockerfile, ssh=(Agent("default", (agent,)),))
    shop.build(dockerfile, ssh=(Agent("default", (key[0],)),))
    assert shop.ran() == []
    shop.build(dockerfile.replace("type=ssh", "type=ssh,required"), ssh=(Agent("default", (agent,)),))
    assert len(shop.ran()) == 1


def test_an_agent_that_is_not_given(shop: Workshop) -> None:
    shop.build('FROM base\nRUN --mount=type=ssh test -z "$SSH_AUTH_SOCK" && test ! -e /run\n')
    with pytest.raises(UsageError, match="'git' is required") as caught:
        shop.build("FROM base\nRUN --mount=type=ssh,id=git,required true\n")
    assert "--ssh git" in caught.value.hint and caught.value.at


def test_paths_are_checked_before_anything_is_built(shop: Workshop, agent: str, key: tuple[str, str]) -> None:
    with pytest.raises(UsageError, match="No such file"):
        shop.build("FROM nothing-like-it\n", ssh=(Agent("default", ("/nonexistent",)),))
    with pytest.raises(UsageError, match="one socket, or one key or more"):
        shop.build("FROM nothing-like-it\n", ssh=(Agent("default", (agent, key[0])),))
    bad = shop.context / "bad"
    bad.write_text("no key")
    with pytest.raises(SandboxError, match="does not take"):
        shop.build("FROM base\nRUN --mount=type=ssh true\n", ssh=(Agent("default", (str(bad),)),))


def test_a_killed_builder_takes_its_agent_along(
    shop: Workshop, key: tuple[str, str], agent_places: str
) -> None:
    shop.write(
        "Dockerfile",
        "FROM base\nRUN --mount=type=ssh --mount=type=cache,target=/c touch /c/begun; sleep 60\n",
    )
    run = subprocess.Popen(
        [
            *(sys.executable, "-m", "builder.cli.main", "--root", shop.root, "build", "--network=none"),
            *("--ssh", f"default={key[0]}", str(shop.context)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until(lambda: any("begun" in names for _, _, names in os.walk(os.path.join(shop.root, "caches"))))
    assert mentioning(f"{agent_places}/pybuild-agent-") and os.listdir(agent_places)
    run.kill()
    run.communicate()
    until(lambda: not mentioning(f"{agent_places}/") and not os.listdir(agent_places))


def test_an_agent_that_went_away_is_a_failed_request(shop: Workshop, tools: str, tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(gone)
    with pytest.raises(BuildError, match="exited with"):
        shop.build(f"{tools}RUN --mount=type=ssh ssh-add -l\n", ssh=(Agent("default", (gone,)),))
