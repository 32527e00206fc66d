"""Work that two processes share: a list of paths, each of which one of them takes."""

from __future__ import annotations

import marshal
import os
import sys
from array import array
from collections.abc import Iterator

MOST = 2_000
"""Paths that can be offered. Their numbers fit into the smallest pipe, a page: offering never waits."""


class Claims:
    """Made before the fork: then one of the two calls `offer` once, the other `only_take`, and both `taken`.

    Numbers wait in a pipe, so each goes to one process, and a pipe that is closed has no more. What the
    numbers stand for lies in memory that both have.
    """

    def __init__(self) -> None:
        self._paths = os.memfd_create("pybuild-claims")
        self._numbers, self._offering = os.pipe2(os.O_CLOEXEC)

    def offer(self, paths: list[bytes]) -> None:
        """Put up at most MOST paths; there will be no others."""
        with open(self._paths, "wb", closefd=False) as file:
            file.write(marshal.dumps(paths))
        os.write(self._offering, array("H", range(len(paths))).tobytes())
        self.only_take()

    def only_take(self) -> None:
        """Leave offering to the other process: when it has died, `taken` ends."""
        if self._offering >= 0:
            os.close(self._offering)
            self._offering = -1

    def taken(self) -> Iterator[bytes]:
        """Paths that are now this process's, until none is left. Waits until they are offered."""
        paths: list[bytes] = []
        while number := os.read(self._numbers, 2):
            if not paths:
                paths = marshal.loads(os.pread(self._paths, os.fstat(self._paths).st_size, 0))
            yield paths[int.from_bytes(number, sys.byteorder)]

    def close(self) -> None:
        """Let go of it."""
        self.only_take()
        for fd in (self._paths, self._numbers):
            os.close(fd)
