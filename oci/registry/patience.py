"""How long we wait, how often we try again, and when somebody says stop."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from oci.data import dataclass
from oci.errors import OciError, RegistryError


@dataclass(frozen=True, slots=True)
class Patience:
    """Times in seconds, speeds in bytes per second.

    `attempts` counts failures in a row without a byte of progress. `total` is how long one operation may
    spend waiting between attempts. A transfer slower than `slowest` over `window` is broken off and taken up
    again.
    """

    attempts: int = 5
    first: float = 1.0
    longest: float = 60.0
    total: float = 300.0
    connect: float = 15.0
    answer: float = 60.0
    commit: float = 300.0
    slowest: float = 1024.0
    window: float = 30.0


class Stopped(OciError):
    """The operation this was a part of has ended: another part failed, or the user interrupted it."""


class Interrupted(RegistryError):
    """A failure that may pass: trying again makes sense. `delay` is what the registry asked for, if it
    did."""

    def __init__(
        self, message: str, *, status: int = 0, codes: tuple[str, ...] = (), delay: float | None = None
    ) -> None:
        super().__init__(message, status=status, codes=codes)
        self.delay = delay


class Stop:
    """Ends all parts of one operation together. Waiting parts wake up; moving ones notice at the next
    piece."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._callbacks: list[Callable[[], None]] = []

    def set(self) -> None:
        """Let everything end."""
        self._event.set()
        for callback in tuple(self._callbacks):
            callback()

    def on_stop(self, callback: Callable[[], None]) -> None:
        """Have `callback` called by `set`."""
        self._callbacks.append(callback)

    def check(self) -> None:
        """Raise Stopped once `set` was called."""
        if self._event.is_set():
            raise Stopped("interrupted")

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond `set`."""
        self._event.wait(seconds)


class Backoff:
    """When a host may be asked again. All transfers with the host share it, so that a limit one of them hits
    is heard by the others."""

    def __init__(self, patience: Patience, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._until = 0.0
        self._lock = threading.Lock()

    def delay(self, attempt: int, asked: float | None) -> float:
        """Seconds before attempt number `attempt` (from 1): doubled each time, or as the registry asked,
        never longer than `longest`, spread a little so that waiting clients do not come back as one."""
        wanted = self._patience.first * 2 ** (attempt - 1) if asked is None else asked
        spread = random.uniform(0, 0.25) * max(wanted, self._patience.first)
        return min(wanted + spread, self._patience.longest)

    def hold(self, seconds: float) -> None:
        """Keep everybody from asking for `seconds`."""
        with self._lock:
            self._until = max(self._until, self._clock() + seconds)

    def remaining(self) -> float:
        """Seconds until the host may be asked."""
        with self._lock:
            return max(0.0, self._until - self._clock())


class Attempts:
    """Failures in a row of one operation, and how long it has waited for them."""

    def __init__(self, patience: Patience, backoff: Backoff) -> None:
        self._patience = patience
        self._backoff = backoff
        self._failed = 0
        self._waited = 0.0

    def progressed(self) -> None:
        """Bytes moved since the last failure: begin to count anew."""
        self._failed = 0

    def failed(self, error: Interrupted) -> None:
        """Count a failure and hold the host; raises the error when there is no point in going on."""
        self._failed += 1
        delay = self._backoff.delay(self._failed, error.delay)
        if self._failed >= self._patience.attempts or self._waited + delay > self._patience.total:
            raise error.with_traceback(None) from None
        self._waited += delay
        self._backoff.hold(delay)


class Pace:
    """Notices transfers that hardly move (R15). `moved` raises Interrupted."""

    def __init__(self, patience: Patience, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._since = clock()
        self._count = 0

    def moved(self, count: int) -> None:
        """`count` bytes have moved since the last call."""
        self._count += count
        elapsed = self._clock() - self._since
        if elapsed < self._patience.window:
            return
        if self._count < self._patience.slowest * elapsed:
            raise Interrupted(f"the transfer stalled: {self._count} bytes in {elapsed:.3g} s")
        self._since += elapsed
        self._count = 0
