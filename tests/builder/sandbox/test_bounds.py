"""What bounds a step without a cgroup: numbers only. That it holds is tried in tests/root/test_limits.py."""

from __future__ import annotations

import os
import resource
from collections import namedtuple

import pytest

from builder.sandbox import bounds, procfs, step

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
    texts = {bounds._PID_MAX: b"%d\n" % pid_max, bounds._THREADS_MAX: b"%d\n" % threads_max}
    texts["self/uid_map"] = b"         0          0 4294967295\n"
    monkeypatch.setattr(os, "uname", lambda: Uname(release))
    monkeypatch.setattr(bounds, "_read", texts.__getitem__)
    assert bounds.most_pids() == most
    assert bounds.most_by_cgroup(own_pids=True) == (0 if most else 32768)
    assert bounds.most_by_cgroup(own_pids=False) == bounds.most()


@pytest.mark.parametrize(
    ("release", "uid_map", "most"),
    [
        ("6.1.0-18-amd64", b"0 1000 1\n1 100000 65536\n", 32768),
        ("5.14.0", b"0 1000 1\n", 32768),
        ("5.13.0", b"0 1000 1\n", 0),
        ("6.14.0", b"0 1000 1\n", 0),
        ("6.1.0", b"         0          0 4294967295\n", 0),
    ],
)
def test_what_bounds_an_ordinary_users_step_before(
    monkeypatch: pytest.MonkeyPatch, release: str, uid_map: bytes, most: int
) -> None:
    texts = {bounds._PID_MAX: b"4194304\n", bounds._THREADS_MAX: b"200000\n", "self/uid_map": uid_map}
    monkeypatch.setattr(os, "uname", lambda: Uname(release))
    monkeypatch.setattr(bounds, "_read", texts.__getitem__)
    assert bounds.most_by_rlimit() == most
    limits = {name: (soft, hard) for name, soft, hard in step.usual_limits(most)}
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    wanted = most or 1 << 20
    assert limits[resource.RLIMIT_NPROC] == (wanted if hard < 0 else min(wanted, hard),) * 2


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
