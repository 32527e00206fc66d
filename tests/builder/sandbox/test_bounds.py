"""What bounds a step without a cgroup: numbers only. That it holds is tried in tests/root/test_limits.py."""

from __future__ import annotations

import os
from collections import namedtuple

import pytest

from builder.sandbox import bounds, procfs

Uname = namedtuple("Uname", "release")


@pytest.mark.parametrize(
    ("release", "pid_max", "threads_max", "most"),
    [
        ("6.14.0", 4194304, 200_000, 32768),
        ("6.14-rc1", 32768, 200_000, 16384),
        ("7.0.1-arch1", 4194304, 30_000, 15_000),
        ("6.18.44", 900, 900, 1024),
        ("6.13.9", 4194304, 200_000, 0),
        ("5.15.0-91-generic", 4194304, 200_000, 0),
        ("strange", 4194304, 200_000, 0),
    ],
)
def test_how_many_processes_a_step_may_have(
    monkeypatch: pytest.MonkeyPatch, release: str, pid_max: int, threads_max: int, most: int
) -> None:
    numbers = {bounds._PID_MAX: pid_max, bounds._THREADS_MAX: threads_max}
    monkeypatch.setattr(os, "uname", lambda: Uname(release))
    monkeypatch.setattr(bounds, "_read", lambda path: b"%d\n" % numbers[path])
    assert bounds.most_pids() == most


def test_only_the_first_process_of_a_namespace_sets_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a pid namespace of its own it would be that of the whole machine."""
    written: list[tuple[int, str, bytes]] = []
    monkeypatch.setattr(procfs, "write", lambda root, path, text: written.append((root, path, text)))
    bounds.Bounds(False, (), 5000).limit_processes(77)
    assert not written
    monkeypatch.setattr(os, "getpid", lambda: 1)
    bounds.Bounds(False, (), 5000).limit_processes(77)
    bounds.Bounds(False, (), 0).limit_processes(77)
    assert written == [(77, bounds._PID_MAX, b"5000")]
