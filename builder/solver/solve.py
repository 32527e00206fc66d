"""The loop: every step once, inputs first, independent steps in parallel, the first failure ends it.

It knows nothing of Dockerfiles, snapshots or caches: `perform` makes one step's result out of the results
of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from builder.graph import Step, walk
from builder.interrupts import LISTEN_S, listen

R = TypeVar("R")


def solve(
    targets: Sequence[Step],
    perform: Callable[[Step, tuple[R, ...]], R],
    *,
    jobs: int,
    cancel: Callable[[], None],
    keep_going: bool = False,
) -> tuple[R, ...]:
    """The results of `targets`; every step they need is performed once, at most `jobs` at the same time.

    When a step fails no further one begins; `cancel` is called so that running ones end early (with
    `keep_going` they end by themselves), and the first error is raised after all have ended. An interrupt
    of the calling thread (KeyboardInterrupt) does the same.
    """
    steps = list(walk(*targets))
    missing = {step.digest: len({each.digest for each in step.inputs}) for step in steps}
    readers: dict[str, list[Step]] = {step.digest: [] for step in steps}
    for step in steps:
        for digest in {each.digest for each in step.inputs}:
            readers[digest].append(step)
    results: dict[str, R] = {}
    running: dict[Future[R], Step] = {}
    failure: BaseException | None = None

    def begin(pool: ThreadPoolExecutor, ready: list[Step]) -> None:
        for step in ready:
            inputs = tuple(results[each.digest] for each in step.inputs)
            running[pool.submit(perform, step, inputs)] = step

    with ThreadPoolExecutor(max(1, jobs), "step") as pool:
        try:
            begin(pool, [step for step in steps if not step.inputs])
            while running:
                listen()
                done, _ = wait(running, LISTEN_S, return_when=FIRST_COMPLETED)
                for future in done:
                    step = running.pop(future)
                    error = future.exception()
                    if error is not None:
                        failure = failure or error
                        continue
                    results[step.digest] = future.result()
                    for reader in readers[step.digest]:
                        missing[reader.digest] -= 1
                    if failure is None:
                        begin(pool, [each for each in readers[step.digest] if not missing[each.digest]])
                if failure is not None:
                    _abandon(running, None if keep_going else cancel)
        except BaseException:
            _abandon(running, cancel)
            raise
    if failure is not None:
        raise failure
    return tuple(results[target.digest] for target in targets)


def _abandon(running: dict[Future[R], Step], cancel: Callable[[], None] | None) -> None:
    """Forget what has not begun; ask what runs to end."""
    for future in [each for each in running if each.cancel()]:
        del running[future]
    if cancel is not None:
        cancel()
