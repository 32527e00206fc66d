"""What the mounts of a RUN cost: thirty steps with a cache mount and a bind of the context, and without.

Both sides are ours. The bar is the ratio at which the mounts add MOST_S to a step.
"""

from __future__ import annotations

import statistics

import material
from measure import in_turns
from scenarios import BUSYBOX, Bench, Build, Outcome

MOST_S = 0.003
"""What the mounts of one step may add."""

_STEPS = 30
_MOUNTS = "--mount=type=cache,target=/cache --mount=type=bind,target=/context "


def mounted(bench: Bench) -> Outcome:
    """Host network, so that a step costs as little as it can."""
    store = bench.stores.fresh([(bench.base(BUSYBOX), BUSYBOX)])
    context = material.empty(bench.area)

    def build(name: str, flags: str) -> Build:
        text = material.many_runs(BUSYBOX, _STEPS).replace("RUN ", f"RUN {flags}")
        return Build(bench, material.dockerfile(bench.area, name, text), context, archive=False)

    plain, mounts = build("plain", ""), build("mounts", _MOUNTS)
    store.run(*mounts.ours())
    pairs = in_turns(lambda: mounts.time_ours(store), lambda: plain.time_ours(store), bench.rounds)
    ours, others = statistics.median(pairs.ours), statistics.median(pairs.theirs)
    added = (pairs.ratio - 1) * others / _STEPS
    note = f"{_STEPS} RUN with a cache and a bind mount, and without: {added * 1000:.2f} ms a step"
    title = "30 RUN with mounts, without"
    bar = round(1 + MOST_S * _STEPS / others, 2)
    return Outcome("mounts", title, ours, others, pairs.ratio, bar, None, mounts.memory(store), note)


MOUNTED = {"mounts": mounted}
