"""The golden set on every rung: the same layers, to the digest, as root makes them (S100 to S104)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rootless import golden
from rootless.conftest import device_for_all, fuse_for_all

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[3]
SETS = sorted(golden.DOCKERFILES)
Layers = dict[str, list[str]]


def layers(run: Callable[..., Any], folder: Path, names: list[str], *options: str) -> Layers:
    """The layers' digests of each image of the set, as `run` (pybuild) makes them."""
    done = run("import", str(folder / "base.tar"), "golden")
    assert done.returncode == 0, done.stderr
    found = {}
    for name in names:
        file = str(folder / "context" / f"{name}.Dockerfile")
        words = ("--network=none", f"--timestamp={golden.CLOCK}", "-t", name, *options)
        done = run("build", "-f", file, *words, str(folder / "context"))
        assert done.returncode == 0, (name, done.stderr)
        found[name] = json.loads(run("inspect", name).stdout)[0]["RootFS"]["Layers"]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, _place: Path) -> Path:
    folder = _place / "golden"
    golden.lay(folder)
    return folder


@pytest.fixture(scope="module")
def by_root(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Layers:
    """What root's own way makes: the standard for all others."""
    store = tmp_path_factory.mktemp("root") / "store"
    return layers(lambda *words: as_root(store, *words), folder, SETS)


def as_root(store: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "builder.cli.main", "--root", str(store), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | more
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_lent_ids(lent: Any, folder: Path, by_root: Layers) -> None:
    """SECURITY.md S101."""
    assert layers(lent.pybuild, folder, SETS) == by_root
    checked = lent.pybuild("fsck")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("storage", ["overlay", "copy", "fuse"])
def test_one_id(bare: Any, folder: Path, by_root: Layers, storage: str) -> None:
    """S103. Owners are noted; a program that looks at them sees root (`seen`)."""
    names = [name for name in SETS if name != "seen"]
    root = ("--root", str(bare.home / storage))
    run = bare.with_fuse if storage == "fuse" else bare.pybuild
    found = layers(lambda *words: run(*root, *words, PYBUILD_SNAPSHOTTER=storage), folder, names)
    assert found == {name: by_root[name] for name in names}
    checked = run(*root, "fsck", PYBUILD_SNAPSHOTTER=storage)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_root_in_a_user_namespace(folder: Path, by_root: Layers, tmp_path: Path) -> None:
    """SECURITY.md S100."""
    found = layers(lambda *words: as_root(tmp_path / "store", *words), folder, SETS, "--isolation=rootless")
    assert found == by_root


@pytest.mark.parametrize("who", ["lent", "root"])
def test_plain_directories(request: pytest.FixtureRequest, who: str, folder: Path, by_root: Layers) -> None:
    """S102. Where no overlay can be mounted (rung 3, and root with a store on an overlay)."""
    variable = {"PYBUILD_SNAPSHOTTER": "copy"}
    store = folder / "copied"
    if who == "root":
        found = layers(lambda *words: as_root(store, *words, **variable), folder, SETS)
    else:
        user = request.getfixturevalue("lent")
        root = ("--root", str(user.home / "copied"))
        found = layers(lambda *words: user.pybuild(*root, *words, **variable), folder, SETS)
    assert found == by_root


def test_fuse_overlayfs(lent: Any, folder: Path, by_root: Layers) -> None:
    """S102. Rung 3 with /dev/fuse."""
    words = ("--root", str(lent.home / "fuse"))
    found = layers(lambda *more: lent.with_fuse(*words, *more, PYBUILD_SNAPSHOTTER="fuse"), folder, SETS)
    assert found == by_root


def test_fuse_overlayfs_and_a_private_network(lent: Any, folder: Path, _place: Path) -> None:
    """slirp4netns unmounts all that it sees; a step's root stays."""
    words = ("--root", str(lent.home / "networked"))
    devices = [*fuse_for_all(_place), *device_for_all("/dev/net/tun", _place)]
    assert lent.pybuild(*words, "import", str(folder / "base.tar"), "golden").returncode == 0
    file = str(folder / "context" / "files.Dockerfile")
    done = lent.behind(
        devices, *words, "build", "-f", file, str(folder / "context"), PYBUILD_SNAPSHOTTER="fuse"
    )
    assert done.returncode == 0, done.stderr


def test_no_namespace(bare: Any, folder: Path, tmp_path: Path) -> None:
    """S104. COPY, ADD and WORKDIR without privilege (rung 5), in image and tar; RUN says what is missing."""
    copies = (
        "build",
        f"--timestamp={golden.CLOCK}",
        "-f",
        str(folder / "context" / "only-copies"),
        "-t",
        "c",
    )
    context = str(folder / "context")
    store = ("--root", str(bare.home / "five"))
    made = []
    for run, out in (
        (lambda *words: as_root(tmp_path / "store", *words), tmp_path / "one.tar"),
        (lambda *words: bare.filtered(*store, *words), bare.home / "five.tar"),
    ):
        assert run("import", str(folder / "base.tar"), "golden").returncode == 0
        done = run(*copies, "-o", f"type=tar,dest={out}", context)
        assert done.returncode == 0, done.stderr
        made.append((json.loads(run("inspect", "c").stdout)[0]["RootFS"], out.read_bytes()))
    assert made[0] == made[1]
    refused = bare.filtered(*store, "build", "-f", f"{context}/files.Dockerfile", context)
    assert refused.returncode == 1
    assert "programs cannot be run: no user namespace can be had: unshare(2)" in refused.stderr
    assert "seccomp=unconfined" in refused.stderr and "COPY, ADD and WORKDIR work" in refused.stderr
    refused = bare.filtered(*store, "run", "c", "true")
    assert refused.returncode == 125 and "programs cannot be run" in refused.stderr
