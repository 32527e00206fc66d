"""One thread that watches many sockets (epoll(7)) and calls whom each belongs to."""

from __future__ import annotations

import heapq
import os
import select
import socket
import time
from collections.abc import Callable
from itertools import count

IN = select.EPOLLIN
EDGE = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
"""Told once of every change, until which a socket is read or written as far as it goes."""

Handler = Callable[[int], None]

_AT_ONCE = 256


class Loop:
    """Sockets and moments that a thread waits for. All but `stop` is for the thread that is in `run`, or for
    the time before it.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._bell, IN)
        self._watched: dict[int, tuple[socket.socket, Handler]] = {}
        self._dropped: list[socket.socket] = []
        self._busy: list[Callable[[], None]] = []
        self._moments: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def watch(self, what: socket.socket, events: int, handler: Handler) -> None:
        """Call `handler` with what epoll says of the socket. It is the loop's to close from now on.

        What comes may be old news: a handler finds out by trying. OSError: out of memory, or of watches.
        """
        self._epoll.register(what.fileno(), events)
        self._watched[what.fileno()] = what, handler

    def pause(self, what: socket.socket, seconds: float) -> None:
        """Hear nothing of the socket for that long."""
        fd = what.fileno()
        self._epoll.modify(fd, 0)
        self.after(seconds, lambda: self._epoll.modify(fd, IN) if fd in self._watched else None)

    def drop(self, what: socket.socket) -> None:
        """Close a socket. Its number is not given to another before all that was heard with it is handled."""
        if self._watched.pop(what.fileno(), None) is not None:
            self._dropped.append(what)

    def soon(self, job: Callable[[], None]) -> None:
        """Call `job` after the others had their turn."""
        self._busy.append(job)

    def after(self, seconds: float, job: Callable[[], None]) -> None:
        """Call `job` then."""
        heapq.heappush(self._moments, (time.monotonic() + seconds, next(self._number), job))

    def run(self) -> None:
        """Serve until `stop`."""
        while True:
            for fd, events in self._epoll.poll(self._patience(), _AT_ONCE):
                if fd == self._bell:
                    return
                if (found := self._watched.get(fd)) is not None:
                    found[1](events)
            busy, self._busy = self._busy, []
            for job in busy:
                job()
            while self._moments and self._moments[0][0] <= time.monotonic():
                heapq.heappop(self._moments)[2]()
            self._bury()

    def stop(self) -> None:
        """End `run`. Every thread may say so, and before it has begun too."""
        os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Close all sockets that are watched, after `run`."""
        self._dropped += [what for what, _ in self._watched.values()]
        self._watched.clear()
        self._bury()
        self._busy.clear()
        self._moments.clear()
        self._epoll.close()
        os.close(self._bell)

    def _patience(self) -> float:
        if self._busy:
            return 0
        return max(0.0, self._moments[0][0] - time.monotonic()) if self._moments else -1

    def _bury(self) -> None:
        for what in self._dropped:
            what.close()
        self._dropped.clear()
