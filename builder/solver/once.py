"""Values that are made when first asked for, by whichever thread asks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def once(make: Callable[[], T]) -> Callable[[], T]:
    """A function that calls `make` the first time and gives the same value ever after. Threads may share
    it.
    """
    lock = threading.Lock()
    found: list[T] = []

    def get() -> T:
        with lock:
            if not found:
                found.append(make())
            return found[0]

    return get
