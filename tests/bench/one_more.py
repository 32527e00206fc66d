"""What one more RUN costs: two builds that differ by thirty steps, and the difference for each step.

Ours have a network of their own, Docker's the host's, which is the cheapest it has (a bridge of its own would
change the machine's firewall): the bars are held against more than they ask for.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import material
from measure import in_turns
from scenarios import BUSYBOX, Bench, Build, Outcome

_FEW, _MANY = 5, 35


def one_more(bench: Bench) -> Outcome:
    """As root: overlay, namespaces, filter, private network."""
    return _one_more(bench, "one-more", "one more RUN, private network", 0.25)


def one_more_rootless(bench: Bench) -> Outcome:
    """In a user namespace, with the network that an ordinary user's steps have."""
    return _one_more(
        bench, "one-more-rootless", "one more RUN, rootless, private", 0.35, "--isolation=rootless"
    )


def _one_more(bench: Bench, name: str, title: str, bar: float, *ours: str) -> Outcome:
    store = bench.stores.fresh([(bench.base(BUSYBOX), BUSYBOX)])
    context = material.empty(bench.area)

    def build(steps: int) -> Build:
        file = material.dockerfile(bench.area, f"{steps}-runs", material.many_runs(BUSYBOX, steps))
        return Build(bench, file, context, archive=False, network="default", ours=ours)

    few, many = build(_FEW), build(_MANY)
    store.run(*few.ours())

    def cost(time_of: Callable[[Build], float]) -> Callable[[], float]:
        return lambda: (time_of(many) - time_of(few)) / (_MANY - _FEW)

    pairs = in_turns(
        cost(lambda each: each.time_ours(store)), cost(lambda each: each.time_theirs()), bench.rounds
    )
    mine, others = statistics.median(pairs.ours), statistics.median(pairs.theirs)
    note = f"base: busybox; ({_MANY} - {_FEW} steps) / {_MANY - _FEW}; Docker on the host's network"
    return Outcome(name, title, mine, others, pairs.ratio, bar, None, many.memory(store), note)


ONE_MORE = {"one-more": one_more, "one-more-rootless": one_more_rootless}
