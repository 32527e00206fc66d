"""What this process holds, and whether it holds more than before.

Numbers alone would not tell: threads that an earlier test left, of servers above all, open and close what is
theirs meanwhile. So what was there before may go, and what is new has some time to go.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress

_PATIENCE_S = 60


def descriptors() -> set[tuple[str, str]]:
    """The open descriptors: number and what it is."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself, for one
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


def held() -> set[object]:
    """Descriptors, threads, and processes begun by any of them."""
    found: set[object] = {*descriptors(), *threading.enumerate()}
    for task in os.listdir("/proc/self/task"):
        with suppress(OSError), open(f"/proc/self/task/{task}/children", encoding="ascii") as children:
            found.update(children.read().split())
    return found


def no_more_than(before: set[object]) -> None:
    """Assert that nothing is held that was not there before; threads of others have a minute to end."""
    end = time.monotonic() + _PATIENCE_S
    while more := held() - before:
        assert time.monotonic() < end, more
        time.sleep(0.005)


def no_descriptor_more_than(before: set[tuple[str, str]]) -> None:
    """The same of descriptors alone."""
    end = time.monotonic() + _PATIENCE_S
    while more := descriptors() - before:
        assert time.monotonic() < end, more
        time.sleep(0.005)
