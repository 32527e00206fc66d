"""Looking at a machine leaves nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder import doctor

pytestmark = pytest.mark.root


def state() -> tuple[object, ...]:
    """What a look could leave: mounts, descriptors, children."""
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        points = sorted(line.split()[4] for line in mounts)
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="utf-8") as children:
        return points, sorted(os.listdir("/proc/self/fd")), children.read().split()


def test_nothing_stays(tmp_path: Path) -> None:
    """S97."""
    before = state()
    doctor.report("auto", str(tmp_path / "store"), security=True)
    assert state() == before
    assert not list(tmp_path.iterdir())
