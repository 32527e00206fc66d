"""Many builds in one process leave nothing behind in it: SECURITY.md R27."""

from __future__ import annotations

import gc
from contextlib import nullcontext

import pytest
from holding import held, no_more_than

from builder.errors import BuildError
from builder.limiting import Limiting
from builder.sandbox.spec import Limits
from tests.root.conftest import Workshop

pytestmark = pytest.mark.root


def mounts(root: str) -> list[str]:
    """Those of the store at `root`."""
    with open("/proc/self/mountinfo") as file:
        return [line.split()[4] for line in file if root in line]


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

    others = held()
    for number in range(12):
        build(number)
    assert not [each for each in held() - others if isinstance(each, str)], "no process is left"
    gc.collect()
    before = held()
    for number in range(12, 12 + count):
        build(number)
    gc.collect()
    no_more_than(before)
    assert not mounts(shop.root)
