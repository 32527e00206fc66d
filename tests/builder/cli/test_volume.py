"""`pybuild volume`, as docker people know it."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from builder.cli import volume
from builder.container.volumes import Volumes

Pybuild = Any


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> dict[str, Sequence[str]]:
    """The containers that use each volume. Removing stays in this process's own namespaces."""
    users: dict[str, Sequence[str]] = {}
    monkeypatch.setattr(volume, "_users", lambda session: lambda name: users.get(name, ()))
    monkeypatch.setattr(volume, "_entered", volume._volumes)
    return users


def test_create_and_list(pybuild: Pybuild, used: dict[str, Sequence[str]]) -> None:
    assert pybuild.ok("volume", "ls") == "DRIVER    VOLUME NAME\n"
    assert pybuild.ok("volume", "create", "data", "--label", "app=web", "--label", "bare") == "data\n"
    assert pybuild.ok("volume", "create", "data") == "data\n"
    name = pybuild.ok("volume", "create").strip()
    assert len(name) == 64
    first, second = sorted(("data", name))
    assert pybuild.ok("volume", "ls").splitlines()[1:] == [f"local     {first}", f"local     {second}"]
    assert pybuild.ok("volume", "ls", "-q", "--filter", "name=dat") == "data\n"
    assert pybuild.ok("volume", "ls", "-q", "--filter", "label=app=web") == "data\n"
    assert pybuild.ok("volume", "ls", "-q", "--filter", "label=app=other") == ""
    assert pybuild.ok("volume", "ls", "-q", "--filter", "label=bare", "--filter", "driver=local") == "data\n"
    used["data"] = ["c0ffee"]
    assert pybuild.ok("volume", "ls", "-q", "--filter", "dangling=true") == f"{name}\n"
    assert pybuild.ok("volume", "ls", "-q", "--filter", "dangling=0") == "data\n"
    assert pybuild.ok("volume", "ls", "--filter", "name=data", "--format", "{{.Name}} {{.Labels}}") == (
        "data app=web,bare=\n"
    )
    shown = json.loads(pybuild.ok("volume", "ls", "--filter", "name=data", "--format", "json"))
    assert (shown["Driver"], shown["Scope"], shown["Size"]) == ("local", "local", "N/A")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("create", "a/b"), "'a/b' is no name for a volume"),
        (("create", "data", "-d", "nfs"), "no volume driver 'nfs'"),
        (("ls", "--filter", "size=1"), "--filter 'size' does not exist"),
        (("ls", "--filter", "dangling"), "is no KEY=VALUE"),
        (("ls", "--filter", "dangling=perhaps"), "expected dangling=true"),
        (("prune", "--filter", "name=x"), "--filter 'name' does not exist"),
    ],
)
def test_what_cannot_be(
    pybuild: Pybuild, used: dict[str, Sequence[str]], args: tuple[str, ...], said: str
) -> None:
    ran = pybuild("volume", *args)
    assert ran.code == 2 and said in ran.err


def test_inspect(pybuild: Pybuild) -> None:
    pybuild.ok("volume", "create", "data", "--label", "app=web")
    pybuild.ok("volume", "create", "bare")
    data, bare = json.loads(pybuild.ok("volume", "inspect", "data", "bare"))
    assert sorted(data) == ["CreatedAt", "Driver", "Labels", "Mountpoint", "Name", "Options", "Scope"]
    assert (data["Name"], data["Labels"], bare["Labels"]) == ("data", {"app": "web"}, None)
    assert os.path.isdir(data["Mountpoint"])
    assert pybuild.ok("volume", "inspect", "-f", "{{.Mountpoint}}", "data") == f"{data['Mountpoint']}\n"
    ran = pybuild("volume", "inspect", "nothing", "data")
    assert ran.code == 1 and "no volume 'nothing'" in ran.err
    assert [each["Name"] for each in json.loads(ran.out)] == ["data"]


def test_rm(pybuild: Pybuild, used: dict[str, Sequence[str]]) -> None:
    for name in ("one", "two", "three"):
        pybuild.ok("volume", "create", name)
    used["two"] = ["0123456789abcdef"]
    ran = pybuild("volume", "rm", "one", "two", "three", "four")
    assert ran.out == "one\nthree\n"
    assert ran.code == 2
    assert "the volume two is in use by 0123456789ab" in ran.err and "no volume 'four'" in ran.err
    assert pybuild.ok("volume", "rm", "-f", "four") == ""
    assert pybuild("volume", "rm", "-f", "two").code == 2
    assert pybuild.ok("volume", "ls", "-q") == "two\n"


def test_prune(pybuild: Pybuild, used: dict[str, Sequence[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    nameless = pybuild.ok("volume", "create").strip()
    pybuild.ok("volume", "create", "kept", "--label", "keep")
    pybuild.ok("volume", "create", "named")
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert "remove anonymous volumes not used" in pybuild.ok("volume", "prune")
    assert pybuild.ok("volume", "prune", "-f", "--filter", "label=keep") == "Total reclaimed space: 0B\n"
    Path(Volumes(pybuild.root).inspect(nameless).path, "file").write_bytes(bytes(40960))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    said = pybuild.ok("volume", "prune").partition("[y/N] ")[2].splitlines()
    assert said[:2] == ["Deleted Volumes:", nameless]
    assert said[2:] in (["", "Total reclaimed space: 41kB"], ["", "Total reclaimed space: 41.0kB"])
    assert pybuild.ok("volume", "prune", "-a", "-f", "--filter", "label!=keep").split()[2] == "named"
    assert pybuild.ok("volume", "prune", "-f", "--filter", "all=1").split()[2] == "kept"
