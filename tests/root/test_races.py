"""Neighbours that change what is being mounted, while it is mounted (SECURITY.md S15, S18, S33).

A step shares a cache with others and exchanges its directories for links to the host all the time, by
renameat2(2). Whatever comes of the others: the host stays as it is, and none of it is seen. A few hundred
turns belong to every test run, ten thousand to the long ones.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from builder.sandbox.spec import Bind, File, Tmpfs

pytestmark = pytest.mark.root

TURNS = [300, pytest.param(10_000, marks=[pytest.mark.endurance, pytest.mark.timeout(1200)])]
CANARY = "of the host alone"

EXCHANGE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    if (chdir(argv[1])) return 1;
    for (long turns = 0;; turns++) {
        if (renameat2(AT_FDCWD, "d", AT_FDCWD, "link", RENAME_EXCHANGE)) return 2;
        if (turns == 1000 && write(1, "turning\n", 8) < 0) return 3;
    }
}
"""


@pytest.fixture
def victim(world: Any) -> str:
    """A directory of the host with names that mounts are asked for in."""
    path = str(world.path("victim"))
    os.makedirs(path + "/sub/deep")
    for name in ("canary", "sub/canary", "file"):
        with open(f"{path}/{name}", "w", encoding="ascii") as file:
            file.write(CANARY)
    return path


@pytest.fixture
def cache(world: Any, victim: str) -> str:
    """A cache with a directory `d` and a link to the victim, which will change places."""
    path = str(world.path("cache"))
    os.makedirs(path + "/d/sub")
    for name in ("canary", "sub/canary"):
        with open(f"{path}/d/{name}", "w", encoding="ascii") as file:
            file.write("of the cache")
    os.symlink(victim, path + "/link")
    return path


@contextmanager
def exchanging(world: Any, compiled: Callable[..., str], cache: str) -> Iterator[None]:
    """A step of its own that exchanges `d` and `link` of the cache until the block ends."""
    shutil.copy(compiled(EXCHANGE), world.path("image/bin/exchange"))
    read, write = os.pipe()
    box = world.sandbox("exchange", "/c", mounts=(Bind(cache, "/c"),))
    with world.launcher.begin(box, output_fd=write):
        os.close(write)
        assert os.read(read, 99) == b"turning\n"
        os.close(read)
        yield


def outcomes(world: Any, turns: int, argv: tuple[str, ...], mounts: Callable[[int], Any]) -> set[object]:
    """What came of so many steps: their status, or what they printed."""
    seen: set[object] = set()
    for number in range(turns):
        exit_, output = world.run(*argv, root=world.overlay(), mounts=mounts(number))
        assert CANARY not in output and CANARY not in exit_.error
        assert exit_.status in (0, 1, 125), (exit_, output)
        seen.add(output if exit_.status == 0 else exit_.status)
        shutil.rmtree(world.path(f"snapshot{world.made}"))
    return seen


@pytest.mark.parametrize("turns", TURNS)
def test_s33_a_source_that_is_exchanged(
    world: Any, compiled: Any, victim: str, cache: str, tree_of: Callable[[str], Any], turns: int
) -> None:
    before = tree_of(victim)
    with exchanging(world, compiled, cache):
        seen = outcomes(
            world, turns, ("cat", "/m/canary"), lambda n: (Bind(cache, "/m", bool(n & 1), "d/sub"),)
        )
    assert "of the cache" in seen and len(seen) > 1, "both states were met"
    assert tree_of(victim) == before


@pytest.mark.parametrize("turns", TURNS)
def test_s18_a_mount_point_that_is_exchanged(
    world: Any, compiled: Any, victim: str, cache: str, tree_of: Callable[[str], Any], turns: int
) -> None:
    """Mounts go through the cache: onto what is there, and onto what has to be made."""
    before = tree_of(victim)

    def mounts(number: int) -> tuple[Any, ...]:
        inner = (Tmpfs("/c/d/sub"), File("/c/d/file", b"x"), File("/c/d/new/er", b"x"))
        return (Bind(cache, "/c"), inner[number % 3])

    with exchanging(world, compiled, cache):
        seen = outcomes(world, turns, ("true",), mounts)
    assert "" in seen, "some went well"
    assert tree_of(victim) == before


@pytest.mark.parametrize("turns", TURNS)
def test_s15_masks_while_neighbours_race(world: Any, compiled: Any, cache: str, turns: int) -> None:
    """CVE-2025-31133: a file is asked for in the cache, whose directory becomes a link to the step's own
    /proc: it never comes to lie over a mask, and every mask is there.
    """
    os.unlink(cache + "/link")
    os.symlink("/proc", cache + "/link")
    with open(cache + "/d/keys", "w", encoding="ascii"):
        pass
    script = "cat /proc/keys /proc/timer_list | wc -c; [ -c /dev/null ] && [ ! -s /proc/interrupts ]"
    mounts = (Bind(cache, "/c"), File("/c/d/keys", b"no mask"))
    with exchanging(world, compiled, cache):
        seen = outcomes(world, turns, ("sh", "-c", script), lambda _: mounts)
    assert seen == {"0\n", 125}, seen
