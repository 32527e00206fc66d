"""`pybuild diff` and `pybuild export` of containers (G04, G10)."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import ENVIRONMENT, Fleet, wait_for

pytestmark = pytest.mark.root

FIRST = """
mkdir -p /data/inner /data/tree/in /same; echo 1 > /data/file
echo 1 > /data/inner/file; echo 1 > /data/tree/in/x
touch -d @1000000000 /data /data/inner /data/tree
"""
SECOND = """
if test -e /later; then rm -r /added; echo again > /later; else
echo more >> /data/file; rm /data/inner/file; rm -rf /data/tree; mkdir /data/tree; echo new > /data/tree/new
rm -rf /same; echo file > /same; mkdir -p /added/deep; echo x > /added/deep/x; echo x > /vol/x
echo x > /shm/x
echo later > /later; fi
echo ready; exec sleep 1000
"""


@pytest.fixture(scope="module")
def _fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    fleet = Fleet(tmp_path_factory.mktemp("diff"))
    fleet("run", "--name", "first", "--network=none", "bb", "sh", "-c", FIRST)
    fleet("commit", "first", "base")
    fleet("rm", "first")
    return fleet


@pytest.fixture
def fleet(_fleet: Fleet) -> Iterator[Fleet]:
    yield _fleet
    _fleet.clear()


def exported(fleet: Fleet, name: str) -> dict[str, tarfile.TarInfo]:
    done = subprocess.run([*fleet.command, "export", name], env=ENVIRONMENT, capture_output=True, timeout=90)
    assert done.returncode == 0, done.stderr
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        return {each.name: each for each in archive}


def begun(fleet: Fleet) -> None:
    words = ("-v", "store:/vol", "--tmpfs", "/shm", "base", "sh", "-c", SECOND)
    fleet.begin("--name", "box", *words)
    wait_for(lambda: b"ready" in fleet.printed("box"))


def test_added_changed_and_deleted(fleet: Fleet) -> None:
    begun(fleet)
    expected = (
        "A /added|A /added/deep|A /added/deep/x|C /data|C /data/file|C /data/inner|D /data/inner/file|"
        "C /data/tree|D /data/tree/in|A /data/tree/new|A /later|C /same"
    )
    assert fleet("diff", "box").split("\n") == expected.split("|")
    assert fleet("container", "diff", fleet("ps", "-q")) == expected.replace("|", "\n")
    fleet("stop", "-t", "0", "box")
    assert fleet("diff", "box").split("\n") == expected.split("|")
    fleet("start", "box")
    wait_for(lambda: fleet.printed("box").count(b"ready") == 2)
    again = [line for line in expected.split("|") if "/added" not in line]
    assert fleet("diff", "box").split("\n") == again


def test_a_container_that_wrote_nothing_and_none(fleet: Fleet) -> None:
    fleet("create", "--name", "box", "-v", "/new/mount", "base", "true")
    assert fleet("diff", "box") == ""
    done = fleet.ran("diff", "nobody")
    assert (done.returncode, done.stdout) == (1, "") and "no container 'nobody'" in done.stderr


def test_the_whole_without_what_is_mounted(fleet: Fleet, tmp_path: Path) -> None:
    begun(fleet)
    for _ in ("running", "exited"):
        found = exported(fleet, "box")
        assert {
            "bin/busybox",
            "data/file",
            "data/tree/new",
            "added/deep/x",
            "vol",
            "shm",
            "proc",
        } <= found.keys()
        assert not [name for name in found if name.startswith(("vol/", "shm/", "proc/", "dev/", "sys/"))]
        assert not {"", ".", "data/inner/file", "data/tree/in"} & found.keys()
        assert found["same"].isreg() and found["data/file"].size == 7
        fleet("stop", "-t", "0", "box")
    (tmp_path / "gone").mkdir()
    mount = f"type=bind,source={tmp_path}/gone,target=/bound"
    fleet("create", "--name", "bound", "--mount", mount, "base", "true")
    (tmp_path / "gone").rmdir()
    assert "data/file" in exported(fleet, "bound")  # what is mounted is not asked for
    fleet("export", "-o", str(tmp_path / "all.tar"), "box")
    fleet("import", str(tmp_path / "all.tar"), "again")
    assert fleet("run", "--rm", "--network=none", "again", "cat", "/data/file") == "1\nmore"


def test_containers_and_images_of_one_name(fleet: Fleet, tmp_path: Path) -> None:
    """A container's name comes first, an image's before the beginning of an id."""
    ident = fleet("create", "--name", "base", "bb", "true")
    assert "data/file" not in exported(fleet, "base") and "data/file" in exported(fleet, "base:latest")
    fleet("tag", "base", ident[:12])
    assert "data/file" in exported(fleet, ident[:12])
    fleet("rmi", ident[:12])
    assert "data/file" not in exported(fleet, ident[:12])
    assert "data/file" not in exported(fleet, ident)
    fleet("rm", "base")
    assert "data/file" in exported(fleet, "base")
    done = fleet.ran("export", "-o", str(tmp_path / "none"), "nobody")
    assert done.returncode == 1 and "no container and no image 'nobody'" in done.stderr
    assert not os.path.lexists(tmp_path / "none")
