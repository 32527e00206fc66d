"""An end to a build that takes too long: what Ctrl-C would do, and an error that says so."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builder import interrupts
from builder.errors import BuildCancelled, TimedOut, UsageError
from builder.events import Emit, Event, StepDone, StepStarted

if TYPE_CHECKING:
    from types import FrameType


@contextmanager
def deadline(seconds: float, emit: Emit) -> Iterator[Emit]:
    """Raise TimedOut when the block takes longer than `seconds`; the error names what ran then.

    Gives the `Emit` to use in the block. Only the main thread can be interrupted wherever it is: raises
    UsageError in others.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("a build can have a timeout only in the main thread of a program")
    clock = _Clock(seconds, emit)
    try:
        before = signal.signal(signal.SIGALRM, clock.over)
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            yield clock.emit
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    except (KeyboardInterrupt, BuildCancelled):
        if clock.told:
            interrupts.forget()
            raise TimedOut(clock.told) from None
        raise


class _Clock:
    """Knows which steps run, and interrupts when it is called."""

    def __init__(self, seconds: float, emit: Emit) -> None:
        self._seconds = seconds
        self._emit = emit
        self._lock = threading.RLock()  # the handler may find its own thread within `emit`
        self._steps: dict[str, tuple[str, float]] = {}
        self.told = ""

    def emit(self, event: Event) -> None:
        """Pass an event on."""
        with self._lock:
            if isinstance(event, StepStarted):
                self._steps[event.digest] = (event.name, time.monotonic())
            elif isinstance(event, StepDone):
                self._steps.pop(event.digest, None)
        self._emit(event)

    def over(self, number: int, frame: FrameType | None) -> None:
        """The time is over: everything that survives Ctrl-C survives this."""
        now = time.monotonic()
        with self._lock:
            rows = [f"{name} had run for {now - since:.1f}s" for name, since in self._steps.values()]
        text = f"the build was ended: it took longer than {self._seconds:g}s (--timeout)"
        self.told = f"{text}; {', '.join(rows)}" if rows else text
        interrupts.ask(interrupt := KeyboardInterrupt())
        raise interrupt
