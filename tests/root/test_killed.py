"""Builds that are cancelled, killed or fail: nothing of them remains, and the next build is right.

Every case runs in a room of its own (killed/room.py), so that all that is found there is the build's. "Right"
is: the same image, the same archive and the same store as without the disturbance, by digest.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

pytestmark = pytest.mark.root

ROOM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "killed", "room.py")
PYBUILD = os.path.join(sysconfig.get_path("scripts"), "pybuild")
BIG = 100_000_000
DOCKERFILE = """\
FROM base:1
COPY big /big
RUN echo begun-one; cat /big > /copy; echo ended-one
ARG FAIL
RUN echo begun-two; sleep 0.5; test -z "$FAIL" && echo 2 > /two
"""


@dataclass(frozen=True, slots=True)
class Ground:
    """A store with a base image, a context, and what an undisturbed build finds and makes."""

    directory: str
    undisturbed: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Moment:
    """When to strike: after a line of output, and while a file grows in the store or beside the output."""

    said: str = ""
    growing: str = ""


MOMENTS = {
    "copy": Moment(growing="tmp"),
    "run": Moment(said="begun-two"),
    "layer": Moment(said="ended-one", growing="tmp"),
    "export": Moment(growing="out"),
}


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """Made once; each case works on a copy of the store."""
    with tempfile.TemporaryDirectory(prefix="pybuild-killed-", dir="/dev/shm") as directory:
        os.makedirs(f"{directory}/context")
        with open(f"{directory}/context/Dockerfile", "w", encoding="utf-8") as file:
            file.write(DOCKERFILE)
        with open(f"{directory}/context/big", "wb") as file:
            file.write(random.Random(5).randbytes(BIG))
        subprocess.run(
            [PYBUILD, "--root", f"{directory}/store", "import", base(directory), "base:1"],
            check=True,
            capture_output=True,
        )
        yield Ground(directory, room(directory, "undisturbed", Moment(), "none", 0))


def base(directory: str) -> str:
    """A root file system of busybox."""
    path = f"{directory}/base.tar"
    with tarfile.open(path, "w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in ("sh", "echo", "cat", "sleep", "test"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return path


def room(directory: str, name: str, moment: Moment, victim: str, number: int, *flags: str) -> dict[str, Any]:
    """Run one case in a room; what was found there."""
    here = f"{directory}/{name}"
    root, out = f"{here}/store", f"{here}/out"
    shutil.copytree(f"{directory}/store", root, symlinks=True)
    os.makedirs(out)
    growing = {"tmp": f"{root}/tmp", "out": out, "": ""}[moment.growing]
    build = [
        PYBUILD,
        "--root",
        root,
        "build",
        "--progress",
        "plain",
        "--timestamp",
        "1700000000",
        "-t",
        "made:1",
    ]
    build += ["-o", f"type=oci,dest={out}/made.tar", "--iidfile", f"{out}/iid"]
    plan = {
        "build": [*build, *flags, f"{directory}/context"],
        "next": [*build, f"{directory}/context"],
        "root": root,
        "out": out,
        "said": moment.said,
        "growing": growing,
        "victim": victim,
        "signal": number,
        "again": True,
    }
    with open(f"{here}/plan.json", "w", encoding="utf-8") as file:
        json.dump(plan, file)
    walls = ["unshare", "-f", "--kill-child", "-p", "--mount-proc", "-m", "-n", "-i", "-u"]
    done = subprocess.run(
        [*walls, sys.executable, ROOM, f"{here}/plan.json"], capture_output=True, timeout=200
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")
    shutil.rmtree(here)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def check(found: dict[str, Any], ground: Ground, code: int, within: float = 30.0) -> None:
    """It ended so and in time, left nothing, and the next build is as if nothing had happened."""
    assert found["code"] == code, found["said"]
    assert found["seconds"] < within
    assert "Traceback" not in found["said"] and "internal error" not in found["said"], found["said"]
    assert found["left"] == {}
    assert found["again"]["code"] == 0, found["again"]["said"]
    assert found["left_again"] == {}
    assert found["outputs"] == ground.undisturbed["outputs"]
    assert without_snapshots(found) == without_snapshots(ground.undisturbed)


def without_snapshots(found: dict[str, Any]) -> dict[str, Any]:
    """What a store holds; snapshots, which only save time, have a test of their own."""
    return {name: listed for name, listed in found["store"].items() if name != "snapshots"}


def test_undisturbed(ground: Ground) -> None:
    """What the others are compared with is itself in order."""
    found = ground.undisturbed
    assert found["code"] == found["again"]["code"] == 0, found["said"]
    assert found["left"] == found["left_again"] == {}
    assert sorted(found["outputs"]) == ["iid", "made.tar"]
    for name in ("leases", "containers", "snapshots/.live", "snapshots/.trash", "tmp", "quarantine"):
        assert found["store"][name] == [], name


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_builder(ground: Ground, moment: str) -> None:
    """R02. kill -9: no time to tidy up; the kernel and the next build do it."""
    found = room(ground.directory, f"kill-{moment}", MOMENTS[moment], "builder", signal.SIGKILL)
    check(found, ground, -signal.SIGKILL)


@pytest.mark.parametrize("moment", ["run", "layer"])
def test_killed_launcher(ground: Ground, moment: str) -> None:
    """R02. Its sandboxes die with it, and the build fails in words."""
    found = room(ground.directory, f"launcher-{moment}", MOMENTS[moment], "launcher", signal.SIGKILL)
    check(found, ground, 1)


@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupted(ground: Ground, moment: str) -> None:
    """R21. Ctrl-C goes to the whole foreground group: 130 in under 5 s."""
    found = room(ground.directory, f"int-{moment}", MOMENTS[moment], "group", signal.SIGINT)
    check(found, ground, 130)


def test_no_snapshot_is_forgotten(ground: Ground) -> None:
    """R04. Those of the killed build are used by the next one, or gone."""
    found = room(ground.directory, "forgotten", MOMENTS["layer"], "builder", signal.SIGKILL)
    assert found["store"]["snapshots"] == ground.undisturbed["store"]["snapshots"]


def test_terminated(ground: Ground) -> None:
    """SIGTERM to the builder alone, as service managers do it."""
    found = room(ground.directory, "term", MOMENTS["run"], "builder", signal.SIGTERM)
    check(found, ground, 128 + signal.SIGTERM)


def test_failing(ground: Ground) -> None:
    """A step that fails: the image of the next build does not know of it."""
    found = room(ground.directory, "fail", Moment(), "none", 0, "--build-arg", "FAIL=1")
    check(found, ground, 1, within=60.0)
    assert "Dockerfile:5" in found["said"]
