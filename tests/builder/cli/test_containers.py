"""Containers listed, inspected, renamed, and the images that they hold: in a store where none runs for real
(tests/root/test_containers_lists.py has those that do).
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from builder.container.logs import LogWriter
from builder.container.model import Container, RunRequest, State
from builder.container.moments import rfc3339
from builder.container.ports import Port
from builder.container.store import Containers
from builder.container.volumes import Volume
from builder.images import Images
from builder.state import StateDir

Pybuild = Any
"""The fixture of conftest.py: runs a command line in a store of its own."""
Made = Callable[..., str]


@pytest.fixture
def image(pybuild: Pybuild, rootfs: str) -> str:
    """An image `app:1` that exposes a port; its id."""
    made: str = pybuild.ok("import", "-c", "EXPOSE 443", "-c", 'CMD ["/bin/sh"]', rootfs, "app:1")
    return made.strip()


@pytest.fixture
def made(pybuild: Pybuild, image: str) -> Iterator[Made]:
    """Makes a container, `made(name, state)`; its id. One that is alive is looked after by the test."""
    held: list[int] = []

    def make(name: str, state: State | None = None, *, ago: int = 0, of: str = "app:1", **config: Any) -> str:
        with StateDir(pybuild.root) as store:
            entry = Images(store).resolve(of)
        ident = f"{len(held) + 1:064x}"
        config = {"argv": ("sh", "-c", "echo a long command"), "request": RunRequest(), **config}
        containers = Containers(pybuild.root)
        containers.add(
            Container(
                id=ident,
                name=name,
                image=of,
                manifest=str(entry.descriptor.digest),
                manifest_type=entry.descriptor.media_type,
                manifest_size=entry.descriptor.size,
                image_id=str(entry.id),
                created=moment(ago),
                **config,
            )
        )
        state = state or State()
        containers.update(ident, state)
        fd = os.open(containers.path(ident, "alive"), os.O_RDWR | os.O_CREAT, 0o600)
        held.append(fd)
        if state.alive:
            fcntl.flock(fd, fcntl.LOCK_EX)
        return ident

    yield make
    for fd in held:
        os.close(fd)


def moment(ago: int) -> str:
    return rfc3339(time.time_ns() - ago * 10**9)


def up(ago: int = 130, **more: Any) -> State:
    return State(status="running", pid=os.getpid(), started=moment(ago), **more)


def test_the_columns_are_dockers(pybuild: Pybuild, made: Made) -> None:
    assert pybuild.ok("ps") == "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    made("old", State(status="exited", exit_code=137, finished=moment(190)), ago=7300)
    made("new", ago=130)
    ports = tuple(Port("0.0.0.0", 8000 + n, 80 + n, "tcp") for n in range(2))
    ident = made("web", up(ports=ports), ago=140)
    made("still", State(status="paused", pid=1, started=moment(130)), ago=150)
    shown = [re.split("   +", line.strip()) for line in pybuild.ok("ps").splitlines()]
    assert shown[0] == ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert shown[1] == [
        ident[:12], "app:1", '"sh -c \'echo a long …"', "2 minutes ago", "Up 2 minutes",
        "0.0.0.0:8000-8001->80-81/tcp, 443/tcp", "web",
    ]  # fmt: skip
    rows = pybuild.ok("ps", "-a", "--format", "{{.Names}}|{{.Status}}|{{.State}}|{{.Ports}}").splitlines()
    assert rows == [
        "new|Created|created|",
        "web|Up 2 minutes|running|0.0.0.0:8000-8001->80-81/tcp, 443/tcp",
        "still|Up 2 minutes (Paused)|paused|443/tcp",
        "old|Exited (137) 3 minutes ago|exited|",
    ]


def test_a_container_that_nobody_looks_after_was_killed(pybuild: Pybuild, made: Made) -> None:
    ident = made("lost", up())
    path = os.path.join(pybuild.root, "containers", ident, "alive")
    os.unlink(path)  # and with it the lock that this test holds
    assert pybuild.ok("ps", "-q") == ""
    assert pybuild.ok("ps", "-a", "--format", "{{.Status}}").startswith("Exited (137) ")


def test_quiet_and_counts(pybuild: Pybuild, made: Made) -> None:
    first, second, third = (made(f"c{n}", up() if n == 0 else None, ago=100 - n) for n in range(3))
    assert pybuild.ok("ps", "-q") == f"{first[:12]}\n"
    assert pybuild.ok("ps", "-aq", "--no-trunc").split() == [third, second, first]
    assert pybuild.ok("ps", "-lq").split() == [third[:12]]
    assert pybuild.ok("ps", "-n", "2", "-q").split() == [third[:12], second[:12]]
    assert pybuild.ok("container", "ls", "-q") == pybuild.ok("ps", "-q")


def test_an_image_whose_name_has_moved_on_is_shown_by_its_id(
    pybuild: Pybuild, made: Made, image: str, rootfs: str
) -> None:
    made("one")
    assert pybuild.ok("ps", "-a", "--format", "{{.Image}}") == "app:1\n"
    pybuild.ok("import", "-m", "another", rootfs, "app:1")
    assert pybuild.ok("ps", "-a", "--format", "{{.Image}}") == f"{image[7:19]}\n"
    assert pybuild.ok("ps", "-a", "--no-trunc", "--format", "{{.Image}}") == f"{image}\n"


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (["name=^we"], "web"),
        (["id=000003$"], "web"),
        (["status=exited"], "old"),
        (["status=exited", "status=created"], "mid old"),
        (["exited=3"], "old"),
        (["exited=0"], ""),
        (["label=tier"], "web"),
        (["label=tier=front", "label=none"], ""),
        (["label=tier=back"], ""),
        (["ancestor=app:1"], "web mid old"),
        (["ancestor=nothing"], ""),
        (["before=mid"], "old"),
        (["since=mid"], "web"),
        (["volume=data"], "mid"),
        (["volume=/data"], "mid"),
        (["publish=8080"], "web"),
        (["publish=8000-9000/tcp"], "web"),
        (["publish=80"], ""),
        (["expose=80"], "web"),
        (["expose=443"], "web mid old"),
        (["expose=443/udp"], ""),
        (["network=none"], "old"),
        (["network=bridge"], "web mid"),
    ],
)
def test_filters(pybuild: Pybuild, made: Made, wanted: list[str], names: str) -> None:
    made("old", State(status="exited", exit_code=3), ago=30, request=RunRequest(network="none"))
    volumes = (Volume("volume", "data", "/data"),)
    made("mid", ago=20, request=RunRequest(volumes=volumes))
    made("web", up(ports=(Port("", 8080, 80, "tcp"),)), ago=10, labels=(("tier", "front"),))
    options = [word for each in wanted for word in ("--filter", each)]
    assert pybuild.ok("ps", "-a", "--format", "{{.Names}}", *options).split() == names.split()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("nothing", "no KEY=VALUE"), ("colour=red", "there are ancestor"), ("status=happy", "no state"),
        ("exited=x", "exit code"), ("before=nobody", "no container 'nobody'"), ("name=(", "name=("),
        ("publish=x", "expected PORT"), ("expose=9-1", "expected PORT"),
    ],
)  # fmt: skip
def test_filters_that_are_none(pybuild: Pybuild, made: Made, wanted: str, said: str) -> None:
    ran = pybuild("ps", "--filter", wanted)
    assert ran.code in (1, 2) and said in ran.err and ran.out == ""


def test_fields(pybuild: Pybuild, made: Made) -> None:
    labels = (("com.x.my-tier", "front"), ("b", "2"))
    volumes = (
        Volume("volume", "a-name-of-twenty-abc", "/data"),
        Volume("bind", "/etc", "/e"),
    )
    ident = made(
        "web", up(), labels=labels, request=RunRequest(volumes=volumes), argv=("a b", "c d", '"\x01é')
    )
    (line,) = pybuild.ok("ps", "--no-trunc", "--format", "json").splitlines()
    row = json.loads(line)
    assert sorted(row) == ["Command", "CreatedAt", "ID", "Image", "Labels", "LocalVolumes", "Mounts", "Names",
                           "Networks", "Ports", "RunningFor", "Size", "State", "Status"]  # fmt: skip
    assert row["ID"] == ident and row["Command"] == '"a b \'c d\' \\"\\x01é"'
    assert (row["Labels"], row["LocalVolumes"]) == ("com.x.my-tier=front,b=2", "1")
    assert (row["Mounts"], row["Networks"], row["Size"]) == ("a-name-of-twenty-abc,/etc", "bridge", "0B")
    assert pybuild.ok("ps", "--format", "{{.Mounts}}") == "a-name-of-twen…,/etc\n"
    form = r'table {{.Names}}\t{{.Label "com.x.my-tier"}}\t{{.Label "none"}}'
    assert pybuild.ok("ps", "--format", form) == "NAMES     my tier   none\nweb       front\n"
    ran = pybuild("ps", "--format", "{{.Nothing}}")
    assert ran.code == 2 and "the fields are" in ran.err


def test_what_a_container_wrote_is_counted(pybuild: Pybuild, made: Made) -> None:
    ident = made("web", up(uppers=("lives/1/keep/fs",)))
    place = os.path.join(pybuild.root, "containers", ident, "lives/1/keep/fs/d")
    os.makedirs(place)
    with open(os.path.join(place, "file"), "w") as file:
        file.write("x" * 2500)
    assert pybuild.ok("ps", "-s").splitlines()[1].split("   ")[-1].strip().startswith("2.5kB (virtual ")
    assert pybuild.ok("inspect", "-s", "-f", "{{.SizeRw}}", "web") == "2500\n"
    assert pybuild.ok("ps", "--format", "{{.Size}}").startswith("2.5kB")


def test_logs(pybuild: Pybuild, made: Made) -> None:
    ident = made("web", State(status="exited"))
    log = LogWriter(os.path.join(pybuild.root, "containers", ident, "log"))
    log.write("stdout", b"one\n")
    log.write("stderr", b"two\n")
    log.write("stdout", b"three, without an end")
    log.close()
    ran = pybuild("logs", "web")
    assert (ran.code, ran.out, ran.err) == (0, "one\nthree, without an end", "two\n")
    ran = pybuild("logs", "-n", "1", ident[:12])
    assert (ran.out, ran.err) == ("three, without an end", "")
    assert pybuild.ok("logs", "--tail", "0", "web") == ""
    assert pybuild.ok("logs", "--details", "web").startswith(" one\n")
    stamp, word = pybuild.ok("logs", "-t", "web").splitlines()[0].split(" ")
    assert word == "one" and len(stamp) == 30 and stamp.endswith("Z")
    assert pybuild.ok("logs", "--since", "10m", "--tail", "1", "web")
    for options in (["--until", "10m"], ["--since", "4000000000"], ["--since", "2150-01-01"],
                    ["--until", "2020-01-01T10:00:00.123456789Z"], ["--until", "2020-01-01T10"]):  # fmt: skip
        assert pybuild("logs", *options, "web").out == "", options
    assert pybuild.ok("logs", "-f", "web").startswith("one\n")
    assert "no moment" in pybuild("logs", "--since", "yesterday", "web").err
    assert "no number" in pybuild("logs", "--tail", "x", "web").err
    ran = pybuild("logs", "nobody")
    assert ran.code == 1 and "pybuild ps -a" in ran.err


def test_inspect(pybuild: Pybuild, made: Made, image: str) -> None:
    volumes = (Volume("bind", "/etc", "/e", read_only=True),)
    wanted = (Port("", 8080, 80, "tcp"),)
    request = RunRequest(ports=wanted, added=frozenset({"NET_ADMIN"}), env=(("A", "1"),), volumes=volumes)
    ident = made("web", up(ports=(Port("0.0.0.0", 8080, 80, "tcp"),)), request=request, stop_signal="SIGINT")
    (found,) = json.loads(pybuild.ok("inspect", "web"))
    assert (found["Id"], found["Name"], found["Image"]) == (ident, "/web", image)
    assert found["Path"] == "sh" and found["Args"] == ["-c", "echo a long command"]
    assert found["State"]["Status"] == "running" and found["State"]["Running"] is True
    assert found["State"]["FinishedAt"] == "0001-01-01T00:00:00Z"
    assert found["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    assert found["HostConfig"]["CapAdd"] == ["CAP_NET_ADMIN"] and found["HostConfig"]["Binds"] == [
        "/etc:/e:ro"
    ]
    assert found["NetworkSettings"]["Ports"] == {
        "443/tcp": None,
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}],
    }
    assert found["Mounts"][0]["Destination"] == "/e" and found["Mounts"][0]["RW"] is False
    config = found["Config"]
    assert config["Cmd"] == ["/bin/sh"] and config["StopSignal"] == "SIGINT" and "A=1" in config["Env"]
    assert sorted(config["ExposedPorts"]) == ["443/tcp", "80/tcp"] and config["Hostname"] == ident[:12]
    form = "{{.State.ExitCode}} {{json .State.Paused}} {{range .Mounts}}{{.Type}}{{end}} "
    form += "{{json .Config.Volumes}}"
    assert pybuild.ok("inspect", "-f", form, "web") == "0 false bind null\n"


def test_inspect_asks_for_containers_first(pybuild: Pybuild, made: Made, image: str) -> None:
    made("app")
    pybuild.ok("tag", "app:1", "app")
    assert pybuild.ok("inspect", "-f", "{{.Name}}", "app") == "/app\n"
    assert pybuild.ok("inspect", "--type", "image", "-f", "{{.Id}}", "app") == f"{image}\n"
    assert pybuild.ok("image", "inspect", "-f", "{{.Id}}", "app") == f"{image}\n"
    assert pybuild.ok("inspect", "-f", "{{.Id}}", "app:1") == f"{image}\n"
    for words in (["container", "inspect"], ["inspect", "--type", "container"]):
        ran = pybuild(*words, "app:1")
        assert ran.code == 1 and "no container 'app:1'" in ran.err and ran.out == "[]\n"


def test_port_and_rename(pybuild: Pybuild, made: Made) -> None:
    ports = (Port("::", 8080, 80, "tcp"), Port("0.0.0.0", 8080, 80, "tcp"), Port("127.0.0.1", 53, 53, "udp"))
    made("web", up(ports=ports))
    listed = "53/udp -> 127.0.0.1:53\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n"
    assert pybuild.ok("port", "web") == listed
    assert pybuild.ok("port", "web", "53/udp") == "127.0.0.1:53\n"
    assert pybuild("port", "web", "53").code == 1 and pybuild("port", "web", "x").code == 2
    made("other")
    assert "in use" in pybuild("rename", "web", "other").err
    assert pybuild("rename", "web", "-").code == 2
    pybuild.ok("rename", "web", "site")
    assert pybuild.ok("ps", "--format", "{{.Names}}") == "site\n"
    assert pybuild.ok("port", "site") == listed


def blobs(pybuild: Pybuild) -> list[str]:
    return os.listdir(os.path.join(pybuild.root, "blobs", "sha256"))


def test_an_image_that_a_container_uses_is_not_removed(pybuild: Pybuild, made: Made, image: str) -> None:
    made("web")
    there = blobs(pybuild)
    for name in ("app:1", image[7:19]):
        ran = pybuild("rmi", name)
        assert ran.code == 2 and "the container web (" in ran.err and "--force" in ran.err
    pybuild.ok("tag", "app:1", "also")
    assert pybuild.ok("rmi", "also") == "Untagged: also:latest\n"
    assert pybuild.ok("rmi", "-f", "app:1") == "Untagged: app:1\n"
    assert pybuild.ok("images", "-q") == "" and sorted(blobs(pybuild)) == sorted(there)
    pybuild.ok("registry", "gc")
    assert sorted(blobs(pybuild)) == sorted(there)
    assert pybuild.ok("inspect", "-f", "{{.Image}}", "web") == f"{image}\n"
    pybuild.ok("rm", "web")
    assert blobs(pybuild) == []


def test_an_image_of_a_running_container_stays(pybuild: Pybuild, made: Made, image: str) -> None:
    made("web", up())
    for words in (["app:1"], [image[7:19]], ["-f", image[7:19]]):
        ran = pybuild("rmi", *words)
        assert ran.code == 2 and "which runs" in ran.err
        assert pybuild.ok("images", "--format", "{{.Tag}}") == "1\n"
    assert pybuild.ok("rmi", "-f", "app:1") == "Untagged: app:1\n"
    assert pybuild.ok("images", "--format", "{{.Tag}} {{.ID}}") == f"<none> {image[7:19]}\n"


def test_prune(pybuild: Pybuild, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    old = made("old", State(status="exited"), ago=7200, labels=(("keep", "no"),))
    made("kept", ago=7200, labels=(("keep", "yes"),))
    made("web", up(), ago=7200)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    ran = pybuild("container", "prune")
    assert "remove all stopped containers" in ran.err and ran.out == ""
    assert pybuild("container", "prune", "-f", "--filter", "until=3h").out == "Total reclaimed space: 0B\n"
    ran = pybuild("container", "prune", "--force", "--filter", "until=1h", "--filter", "label!=keep=yes")
    assert (ran.code, ran.out) == (0, f"Deleted Containers:\n{old}\n\nTotal reclaimed space: 0B\n")
    assert pybuild.ok("ps", "-a", "--format", "{{.Names}}").split() == ["web", "kept"]
    for wrong in ("x", "name=a", "until=yesterday"):
        assert pybuild("container", "prune", "-f", "--filter", wrong).code == 2
    pybuild.ok("container", "prune", "-f")
    assert pybuild.ok("ps", "-a", "--format", "{{.Names}}").split() == ["web"]


def test_longer_names(pybuild: Pybuild, image: str) -> None:
    assert pybuild.ok("image", "ls", "-q") == pybuild.ok("images", "-q") == f"{image[7:19]}\n"
    assert pybuild.ok("image", "list", "-q=true") == f"{image[7:19]}\n"
    assert pybuild.ok("image", "rm", "app:1").startswith("Untagged: app:1\n")
    ran = pybuild("container", "nothing")
    assert ran.code == 2 and "No such command" in ran.err
    assert "pybuild ps" in pybuild.ok("container", "--help")
    assert "Usage: pybuild container ls" in pybuild.ok("container", "ls", "--help")
