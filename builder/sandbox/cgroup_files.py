"""Limits as the files of cgroups want them, of both versions (the kernel's admin guide: cgroup-v1, -v2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.sandbox.spec import Limits

_NO_LIMIT = "max"
_QUOTA = "--cpu-quota (--cpus)"
_IO_V1 = {"rbps": "read_bps", "wbps": "write_bps", "riops": "read_iops", "wiops": "write_iops"}
_IO_OPTIONS = {kind: f"--device-{name.replace('_', '-')}" for kind, name in _IO_V1.items()}
PERIOD_US = 100_000
"""The kernel's own cpu period, in microseconds."""


class Write(NamedTuple):
    """`value` to be written to `files`: the first of them that is there. `option` is how people asked for it.

    `optional`: nobody did; where no file is there, it is left out.
    """

    controller: str
    files: tuple[str, ...]
    value: str
    option: str
    optional: bool = False


def writes(limits: Limits, version: int) -> list[Write]:
    """What to write, in this order, in a cgroup of that version."""
    return list(_unified(limits) if version == 2 else _separate(limits))


def controllers(limits: Limits) -> dict[str, str]:
    """The controllers that enforce `limits`, and the option that each is needed for."""
    return {each.controller: each.option for each in reversed(writes(limits, 2))}


def _separate(limits: Limits) -> Iterator[Write]:
    if limits.memory:
        yield Write("memory", ("memory.limit_in_bytes",), str(limits.memory), "--memory")
    if swap := _swap(limits):
        value = str(swap) if swap > 0 else "-1"
        yield Write("memory", ("memory.memsw.limit_in_bytes",), value, "--memory-swap", not limits.swap)
    if limits.cpu_shares:
        yield Write("cpu", ("cpu.shares",), str(limits.cpu_shares), "--cpu-shares")
    if limits.cpu_period:
        yield Write("cpu", ("cpu.cfs_period_us",), str(limits.cpu_period), "--cpu-period")
    if limits.cpu_quota:
        yield Write("cpu", ("cpu.cfs_quota_us",), str(limits.cpu_quota), _QUOTA)
    yield from _common(limits)
    if limits.io_weight:
        names = ("blkio.weight", "blkio.bfq.weight")
        yield Write("io", names, str(limits.io_weight), "--blkio-weight")
    for device, kind, rate in limits.io:
        name = f"blkio.throttle.{_IO_V1[kind]}_device"
        yield Write("io", (name,), f"{device} {rate}", _IO_OPTIONS[kind])


def _unified(limits: Limits) -> Iterator[Write]:
    if limits.memory:
        yield Write("memory", ("memory.max",), str(limits.memory), "--memory")
    if swap := _swap(limits):
        value = str(swap - limits.memory) if swap > 0 else _NO_LIMIT
        yield Write("memory", ("memory.swap.max",), value, "--memory-swap", not limits.swap)
    if limits.cpu_shares:
        yield Write("cpu", ("cpu.weight",), str(weight_of_shares(limits.cpu_shares)), "--cpu-shares")
    if limits.cpu_period or limits.cpu_quota:
        quota = str(limits.cpu_quota) if limits.cpu_quota > 0 else _NO_LIMIT
        option = _QUOTA if limits.cpu_quota else "--cpu-period"
        yield Write("cpu", ("cpu.max",), f"{quota} {limits.cpu_period or PERIOD_US}", option)
    yield from _common(limits)
    if limits.io_weight:
        ours = 1 + (limits.io_weight - 10) * 9999 // 990
        yield Write("io", ("io.weight",), f"default {ours}", "--blkio-weight")
    for device, kind, rate in limits.io:
        yield Write("io", ("io.max",), f"{device} {kind}={rate}", _IO_OPTIONS[kind])


def _common(limits: Limits) -> Iterator[Write]:
    if limits.cpus:
        yield Write("cpuset", ("cpuset.cpus",), limits.cpus, "--cpuset-cpus")
    if limits.mems:
        yield Write("cpuset", ("cpuset.mems",), limits.mems, "--cpuset-mems")
    if limits.pids:
        yield Write("pids", ("pids.max",), str(limits.pids), "--pids-limit")


def _swap(limits: Limits) -> int:
    """Memory and swap together, as Docker has it: without a word, twice the memory; -1 is no limit."""
    return limits.swap or 2 * limits.memory


def weight_of_shares(shares: int) -> int:
    """Docker's cpu shares (2 to 262144) as cpu.weight (1 to 10000): 1024 is 100, the usual on both scales.

    The curve through these three points is that of runc and crun.
    """
    exponent = math.log2(max(2, min(262144, shares)))
    weight = math.ceil(10 ** ((exponent * exponent + 125 * exponent) / 612 - 7 / 34))
    return max(1, min(10000, weight))
