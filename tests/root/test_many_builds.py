"""Many builds in one process leave nothing behind in it: SECURITY.md R27."""

from __future__ import annotations

import gc
import os
import threading
from contextlib import nullcontext, suppress

import pytest

from builder.errors import BuildError
from builder.limiting import Limiting
from builder.sandbox.spec import Limits
from tests.root.conftest import Workshop

pytestmark = pytest.mark.root


def held(root: str) -> dict[str, object]:
    """What a process can lose track of: of mounts, those of the store at `root`."""
    gc.collect()
    tasks = os.listdir("/proc/self/task")
    children = []
    for task in tasks:
        with suppress(FileNotFoundError), open(f"/proc/self/task/{task}/children") as file:
            children += file.read().split()
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split()[4] for line in file if root in line]
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": sorted(each.name for each in threading.enumerate()),
        "tasks": len(tasks),
        "children": children,
        "mounts": mounts,
    }


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.endurance)])
def test_nothing_is_held_after_many_builds(shop: Workshop, count: int) -> None:
    """R27. Some of them fail, are limited, meet a limit, or find all in the cache."""
    limits = Limiting(Limits(memory=64 << 20), Limits(wall_s=60))
    narrow = Limiting(Limits(pids=4), Limits())

    def build(number: int) -> None:
        shop.write("file", str(number - number % 2))
        kind = number % 6
        command = {3: "false", 4: "sleep 0 | sleep 0 | sleep 0 | sleep 0 | sleep 0; false"}.get(
            kind, "cat /f >/g"
        )
        wanted = {1: limits, 4: narrow}.get(kind)
        failing = pytest.raises(BuildError) if kind in (3, 4) else nullcontext()
        with failing:
            text = f"FROM base\nCOPY file /f\nRUN {command}\n"
            shop.build(text, limits=wanted, network="default" if kind == 2 else "none")

    others = held(shop.root)["children"]
    for number in range(12):
        build(number)
    before = held(shop.root)
    for number in range(12, 12 + count):
        build(number)
    after = held(shop.root)
    # What an earlier test left may be closed meanwhile.
    assert after.pop("descriptors") <= before.pop("descriptors")  # type: ignore[operator]
    assert after == before
    assert before["children"] == others and not before["mounts"]
