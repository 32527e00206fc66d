"""Many blobs at once, and what the caller hears of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from oci.data import dataclass
from oci.model import Descriptor
from oci.registry.patience import Stop, Stopped

State = Literal["waiting", "moving", "done", "present", "mounted"]


@dataclass(frozen=True, slots=True)
class Moving:
    """Where one blob is: `done` of `descriptor.size` bytes. It may fall back when a transfer starts again.

    `present` means that it was there already, `mounted` that the registry took it from another repository.
    """

    descriptor: Descriptor
    state: State
    done: int


Watch = Callable[[Moving], None]
"""Called from any thread, about once per MiB; cheap, and never raises."""


def unwatched(moving: Moving) -> None:
    """For callers that do not look."""


class Track:
    """One blob's progress, counted."""

    def __init__(self, descriptor: Descriptor, watch: Watch) -> None:
        self._descriptor = descriptor
        self._watch = watch
        self._done = 0

    def at(self, position: int) -> None:
        """So many bytes are there."""
        self._done = position
        self._watch(Moving(self._descriptor, "moving", position))

    def add(self, count: int) -> None:
        """So many more."""
        self.at(self._done + count)

    def end(self, state: State = "done") -> None:
        """The blob is where it should be."""
        self._watch(Moving(self._descriptor, state, self._descriptor.size))


def together(tasks: Sequence[Callable[[], object]], parallel: int, stop: Stop) -> None:
    """Run tasks in threads. The first failure stops the others and is raised once all have ended, as is an
    interruption by the user."""
    if len(tasks) <= 1 or parallel <= 1:
        for task in tasks:
            task()
        return
    from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

    with ThreadPoolExecutor(min(parallel, len(tasks)), "transfer") as pool:
        futures: list[Future[object]] = []
        try:
            for task in tasks:  # who interrupts us here would wait for those that run already
                futures.append(pool.submit(task))
            wait(futures, return_when=FIRST_EXCEPTION)
            failed = [future for future in futures if future.done() and future.exception()]
        except BaseException:
            _end(stop, futures)
            raise
        if failed:
            _end(stop, futures)
    errors = [error for future in futures if not future.cancelled() and (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, Stopped)):
        raise error


def _end(stop: Stop, futures: Sequence[object]) -> None:
    for future in futures:
        future.cancel()  # type: ignore[attr-defined]
    stop.set()
