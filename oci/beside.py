"""A child beside a program that is still starting: it works where the loading of modules leaves a processor
idle.

Only a single-threaded process may have one: a fork takes one thread along, and nothing of the others. Nothing
may rest on it: what it has not done, or could not, is done again by whoever forked it, who then has the
error.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn


class Beside:
    """A process that runs `work`, and what it tells: `told` is at its end when it has ended. Close it.

    `work` gets the other end of that pipe and a function to call now and then, which ends the child when it
    was left alone. It ends the child too when it returns or raises.
    """

    def __init__(self, work: Callable[[int, Callable[[], None]], None]) -> None:
        self.told, telling = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            _run(work, telling, parent)
        os.close(telling)

    @property
    def finished(self) -> bool:
        """Whether it has ended, or was closed."""
        if self.pid <= 0:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def close(self) -> bool:
        """End it if it is still there; False when it was closed before."""
        pid, self.pid = self.pid, 0
        if pid <= 0:
            return False
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(self.told)
        return True


def is_possible() -> bool:
    """Whether this process may have a child like that."""
    return threading.active_count() == 1


def _run(work: Callable[[int, Callable[[], None]], None], telling: int, parent: int) -> NoReturn:
    """The child: nothing of the parent's may run here, neither its cleaning up nor its signal handlers."""

    def go_on() -> None:
        if os.getppid() != parent:
            os._exit(1)

    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        work(telling, go_on)
    finally:
        os._exit(0)
