"""Volumes of a store: made, listed, removed; what is mounted."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from builder.container.volumes import Volume, Volumes, mounts
from builder.errors import NotFound, UsageError
from builder.sandbox.spec import Bind, Tmpfs
from builder.snapshot.view import View
from builder.state import StateDir

EMPTY = View([])


@pytest.fixture
def volumes(state: StateDir) -> Volumes:
    return Volumes(state.root)


def test_nothing_is_made_before_it_is_wanted(volumes: Volumes, state: StateDir) -> None:
    assert volumes.names() == []
    assert not volumes.existing("data")
    assert volumes.prune(lambda _: []) == ([], 0)
    assert not os.path.exists(os.path.join(state.root, "volumes"))


def test_a_store_with_volumes_is_still_one(volumes: Volumes, state: StateDir) -> None:
    volumes.create("data")
    os.unlink(os.path.join(state.root, "schema"))
    StateDir(state.root).close()


def test_a_name(volumes: Volumes) -> None:
    made = volumes.create("data", {"a": "b"})
    Path(made.path, "file").write_text("kept")
    assert volumes.create("data", {"other": "1"}) == made == volumes.inspect("data")
    assert (made.labels, made.anonymous) == ({"a": "b"}, False)
    assert made.created.endswith("Z") and len(made.created) == 20
    assert os.listdir(made.path) == ["file"]
    assert os.stat(made.path).st_mode & 0o777 == 0o755
    assert volumes.names() == ["data"]


def test_none(volumes: Volumes) -> None:
    made = volumes.create()
    assert len(made.name) == 64 and made.anonymous and volumes.is_anonymous(made.name)
    assert volumes.names() == [made.name]


@pytest.mark.parametrize("name", ["..", ".lock", "a", "a/b", "/etc", "a" * 300])
def test_no_name_leads_out(volumes: Volumes, name: str) -> None:
    volumes.create("data")
    with pytest.raises(UsageError, match="is no name for a volume"):
        volumes.create(name)
    for call in (volumes.inspect, volumes.remove):
        with pytest.raises(NotFound):
            call(name)
    assert not volumes.existing(name) and not volumes.is_anonymous(name)


def test_removed(volumes: Volumes) -> None:
    made = volumes.create("data")
    Path(made.path, "file").write_text("")
    with pytest.raises(UsageError, match="in use by 0123456789ab"):
        volumes.remove("data", lambda name: ["0123456789abcdef"])
    assert volumes.existing("data")
    volumes.remove("data")
    assert volumes.names() == []
    assert os.listdir(volumes.folder) == [".lock"]
    with pytest.raises(NotFound):
        volumes.remove("data")


def test_pruned(volumes: Volumes) -> None:
    used, free = volumes.create().name, volumes.create()
    volumes.create("named")
    Path(free.path, "file").write_bytes(bytes(5000))
    os.mkdir(os.path.join(volumes.folder, ".gone-1"))
    removed, size = volumes.prune(lambda name: ["c"] if name == used else [])
    assert removed == [free.name] and size >= 5000
    assert not os.path.exists(os.path.join(volumes.folder, ".gone-1"))
    assert volumes.prune(lambda _: [], everything=True, wanted=lambda meta: meta.anonymous)[0] == [used]
    assert volumes.prune(lambda _: [], everything=True)[0] == ["named"]


def test_a_damaged_document_loses_nothing(volumes: Volumes) -> None:
    made = volumes.create("data")
    Path(volumes.folder, "data", "meta.json").write_text("{")
    found = volumes.inspect("data")
    assert (found.path, found.created, found.labels) == (made.path, "", {})


def test_many_make_one(volumes: Volumes) -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(volumes.create("data").created)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8 and volumes.names() == ["data"]


def test_what_is_mounted(volumes: Volumes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    asked = [
        Volume("volume", "data", "/data", True),
        Volume("volume", "", "/new"),
        Volume("bind", str(tmp_path / "made" / "deep"), "/made", create=True),
        Volume("bind", str(file), "/file", True),
        Volume("tmpfs", "", "/tmp", size=10, mode=0o700),
        Volume("tmpfs", "", "/run", executable=True),
    ]
    ready = volumes.prepared(asked, EMPTY)
    assert volumes.is_anonymous(ready[1].source) and not volumes.is_anonymous("data")
    assert mounts(ready, volumes) == (
        Bind(volumes.inspect("data").path, "/data", True),
        Bind(volumes.inspect(ready[1].source).path, "/new"),
        Bind(str(tmp_path / "made" / "deep"), "/made"),
        Bind(str(file), "/file", True, directory=False),
        Tmpfs("/tmp", 10, 0o700, flags=("noexec",)),
        Tmpfs("/run"),
    )
    assert (tmp_path / "made" / "deep").is_dir()
    assert volumes.prepared(ready, EMPTY) == ready
    with pytest.raises(UsageError, match="bind source path does not exist: /nowhere/at/all"):
        mounts([Volume("bind", "/nowhere/at/all", "/x")], volumes)
    volumes.remove("data")
    with pytest.raises(NotFound):
        mounts(ready, volumes)
