"""One direction of a TCP connection that is passed on, by splice(2): the bytes never come here.

A pipe holds what was taken and not yet given. It is lent only while it is needed, so that an idle connection
holds its two sockets and nothing else; where none can be had, bytes are copied.
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress

from builder.container.inside import SHORT

_CHUNK = 1 << 18
_COPIED = 1 << 16
_ROUNDS = 16
_KEPT = 64
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK

Pipe = tuple[int, int]


class Pipes:
    """Empty pipes to be lent: reading end, writing end."""

    def __init__(self) -> None:
        self._free: list[Pipe] = []
        self._lent: set[Pipe] = set()

    def take(self) -> Pipe | None:
        """An empty pipe; None if there is no descriptor left."""
        if self._free:
            self._lent.add(pipe := self._free.pop())
            return pipe
        try:
            pipe = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in SHORT:
                return None
            raise
        with suppress(OSError):  # a user who has many pipes gets small ones (pipe(7))
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, _CHUNK)
        self._lent.add(pipe)
        return pipe

    def back(self, pipe: Pipe, *, empty: bool) -> None:
        """Take a pipe back; one that still holds something is closed."""
        self._lent.discard(pipe)
        if empty and len(self._free) < _KEPT:
            self._free.append(pipe)
        else:
            for fd in pipe:
                os.close(fd)

    def close(self) -> None:
        """Close all, at the end: those of connections in full flow, too."""
        for pipe in (*self._free, *self._lent):
            for fd in pipe:
                os.close(fd)
        self._free.clear()
        self._lent.clear()


class Flow:
    """From `source` to `target`. Whoever hears of a socket sets `readable` and `writable`."""

    __slots__ = ("_copy", "_held", "_pipe", "_pipes", "_source", "_target", "ended", "readable", "writable")

    def __init__(self, source: socket.socket, target: socket.socket, pipes: Pipes) -> None:
        self._source, self._target, self._pipes = source, target, pipes
        self._pipe: Pipe | None = None
        self._held = 0
        self._copy = b""
        self.readable = self.writable = True
        self.ended = False

    def pump(self) -> bool:
        """Move what can be moved now; whether there is more, which others should not have to wait for.

        The source's end is passed on. Does the target break, this direction has ended, but the other may
        still have something. OSError: the source broke.
        """
        for _ in range(_ROUNDS):
            if self.ended or not (self._held or (self.readable and self._fill())):
                break
            if not (self.writable and self._pour()):
                return False
        else:
            return True
        self._give_back()
        return False

    def close(self) -> None:
        """End it wherever it is. The sockets are not its own."""
        self.ended = True
        self._give_back()

    def _fill(self) -> bool:
        """Take what the source has; whether that was something. Nothing is held when this begins, so a call
        that would wait waits for the source.
        """
        try:
            if self._pipe is None:
                self._pipe = self._pipes.take()
            if self._pipe is not None:
                self._held = os.splice(self._source.fileno(), self._pipe[1], _CHUNK, flags=_FLAGS)
            else:
                self._copy = self._source.recv(_COPIED)
                self._held = len(self._copy)
        except BlockingIOError:
            self.readable = False
            return False
        if not self._held:
            self.close()
            with suppress(OSError):  # the other end has gone, which its own direction will tell
                self._target.shutdown(socket.SHUT_WR)
        return self._held > 0

    def _pour(self) -> bool:
        """Give the target what is held; whether it took everything."""
        try:
            while self._held:
                if self._pipe is not None:
                    self._held -= os.splice(self._pipe[0], self._target.fileno(), self._held, flags=_FLAGS)
                else:
                    self._copy = self._copy[self._target.send(self._copy) :]
                    self._held = len(self._copy)
        except BlockingIOError:
            self.writable = False
            return False
        except OSError:
            self.close()
            return False
        return True

    def _give_back(self) -> None:
        if self._pipe is not None:
            self._pipes.back(self._pipe, empty=not self._held)
            self._pipe = None
        self._held, self._copy = 0, b""
