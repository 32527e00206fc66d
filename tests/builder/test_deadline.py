"""The end of a build's time: heard even where the interpreter drops what a signal's handler raises."""

from __future__ import annotations

import signal
from contextlib import suppress

import pytest

from builder import interrupts
from builder.deadline import deadline
from builder.errors import TimedOut
from builder.events import discard


def test_it_is_remembered_until_it_is_heard() -> None:
    with pytest.raises(TimedOut, match="longer than 1000s"), deadline(1000, discard):
        with suppress(KeyboardInterrupt):  # as in a finaliser
            signal.raise_signal(signal.SIGALRM)
        interrupts.listen()
    assert interrupts.asked() is None


def test_one_that_is_in_time() -> None:
    with deadline(1000, discard) as emit:
        assert callable(emit)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
