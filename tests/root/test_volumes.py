"""Volumes are filled from images, and seen in sandboxes."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from builder.container.volumes import Volume, Volumes, mounts
from builder.errors import ResourceError
from builder.snapshot.view import DirectoryLayer, View

pytestmark = pytest.mark.root


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Two layers, topmost last; the upper one removes a file, and has links that lead out."""
    low, top = tmp_path / "low", tmp_path / "top"
    (low / "var/lib/db").mkdir(parents=True)
    (low / "var/lib/db/kept").write_text("kept")
    (low / "var/lib/db/gone").write_text("gone")
    os.chown(low / "var/lib/db/kept", 1000, 1001)
    (low / "var/lib/db/kept").chmod(0o4640)
    os.setxattr(low / "var/lib/db/kept", "user.note", b"here")
    os.link(low / "var/lib/db/kept", low / "var/lib/db/same")
    (low / "link").symlink_to("/var/lib")
    (low / "out").symlink_to("../../../../../etc")
    (top / "var/lib/db").mkdir(parents=True)
    os.mknod(top / "var/lib/db/gone", stat.S_IFCHR, os.makedev(0, 0))
    (top / "var/lib/db/to").symlink_to("/etc/passwd")
    os.mkfifo(top / "var/lib/db/pipe")
    (top / "var/lib/db").chmod(0o1770)
    os.chown(top / "var/lib/db", 7, 8)
    return [low, top]


def view(layers: list[Path]) -> View:
    return View([DirectoryLayer(str(each)) for each in layers])


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(str(tmp_path / "store"))


@pytest.mark.parametrize("target", ["/var/lib/db", "/link/db"])
def test_a_new_volume_is_filled(volumes: Volumes, layers: list[Path], target: str) -> None:
    (ready,) = volumes.prepared([Volume("volume", "db", target)], view(layers))
    top = Path(volumes.inspect("db").path)
    assert sorted(os.listdir(top)) == ["kept", "pipe", "same", "to"]
    info, kept = top.stat(), (top / "kept").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o1770, 7, 8)
    assert (stat.S_IMODE(kept.st_mode), kept.st_uid, kept.st_gid) == (0o4640, 1000, 1001)
    assert int(kept.st_mtime) == int((layers[0] / "var/lib/db/kept").stat().st_mtime)
    assert os.getxattr(top / "kept", "user.note") == b"here"
    assert (top / "same").stat().st_ino == kept.st_ino and (top / "kept").read_text() == "kept"
    assert os.readlink(top / "to") == "/etc/passwd" and stat.S_ISFIFO((top / "pipe").stat().st_mode)
    assert ready == Volume("volume", "db", target)
    assert sorted(os.listdir(volumes.folder + "/db")) == ["data", "meta.json"]


def test_what_is_not_filled(volumes: Volumes, layers: list[Path]) -> None:
    """One with files, one that is not to be, and where the image has no directory."""
    volumes.create("mine")
    Path(volumes.inspect("mine").path, "own").write_text("")
    asked = [
        Volume("volume", "mine", "/var/lib/db"),
        Volume("volume", "bare", "/var/lib/db", copy=False),
        Volume("volume", "nowhere", "/nowhere"),
        Volume("volume", "file", "/var/lib/db/kept"),
        Volume("volume", "out", "/out"),
    ]
    volumes.prepared(asked, view(layers))
    found = {name: os.listdir(volumes.inspect(name).path) for name in volumes.names()}
    assert found == {"mine": ["own"], "bare": [], "nowhere": [], "file": [], "out": []}


def test_a_killed_filling_is_begun_anew(
    volumes: Volumes, layers: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [Volume("volume", "db", "/var/lib/db")]

    class Broken(View):
        def entry(self, path: bytes) -> Any:
            if path.endswith(b"pipe"):
                raise ResourceError("the disk is full")
            return super().entry(path)

    with pytest.raises(ResourceError):
        volumes.prepared(asked, Broken([DirectoryLayer(str(each)) for each in layers]))
    top = Path(volumes.inspect("db").path)
    assert "pipe" not in os.listdir(top) and "kept" in os.listdir(top)
    inode = top.stat().st_ino
    (top / "written").write_text("by a container that mounted it as it was")
    (top / "kept").write_text("half")
    volumes.prepared(asked, view(layers))
    assert sorted(os.listdir(top)) == ["kept", "pipe", "same", "to", "written"]
    assert (top / "kept").read_text() == "kept"
    assert top.stat().st_ino == inode, "it may be mounted somewhere"


def test_in_a_sandbox(volumes: Volumes, layers: list[Path], world: Any, tmp_path: Path) -> None:
    """What one container writes the next one reads; devices do not work, nor programs that lie in memory."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "only").write_text("read me\n")
    asked = (
        Volume("volume", "db", "/var/lib/db"),
        Volume("bind", str(source), "/src", True),
        Volume("bind", str(source / "only"), "/etc/only", True),
        Volume("tmpfs", "", "/mem", size=8 << 20, mode=0o700),
    )
    shown = mounts(volumes.prepared(asked, view(layers)), volumes)
    said = world.sh(
        "cat /var/lib/db/kept /src/only /etc/only; echo new > /var/lib/db/new;"
        "stat -c %a:%u /var/lib/db/kept;"
        "(echo x > /src/more) 2>/dev/null || echo read-only;"
        "mknod /var/lib/db/null c 1 3; (echo x > /var/lib/db/null) 2>/dev/null || echo no-devices;"
        "cp /bin/busybox /mem/true; /mem/true 2>/dev/null || echo no-programs; stat -c %a /mem",
        mounts=shown,
    )
    assert said == "keptread me\nread me\n4640:1000\nread-only\nno-devices\nno-programs\n700\n"
    assert world.sh("cat /data/new", mounts=mounts([Volume("volume", "db", "/data")], volumes)) == "new\n"
