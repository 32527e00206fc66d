"""What a step prints: raw and complete in a file, live as events, its end in memory for the error.

SECURITY.md R26: nothing is clipped and nothing blocks.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from builder import space
from builder.errors import ResourceError
from builder.events import Emit, StepLog

_CHUNK = 1 << 16
_TAIL = 16 << 10
_TAIL_LINES = 20


class StepOutput:
    """The output of one step. Use it in `with`; give `write_fd` to the process, then `drain`.

    The file is made when the first byte arrives: most steps print nothing.
    """

    def __init__(self, path: str, digest: str, emit: Emit) -> None:
        self._path = path
        self._digest = digest
        self._emit = emit
        self._tail = b""
        self._file = -1
        self._read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)

    def __enter__(self) -> StepOutput:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close_writer()
        for fd in (self._read_fd, self._file):
            if fd >= 0:
                os.close(fd)
        self._read_fd = self._file = -1

    def close_writer(self) -> None:
        """Close our end of the pipe once the process has its own; `drain` ends when no writer is left."""
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def drain(self) -> None:
        """Take everything until the last writer is gone. Raises ResourceError when the disk is full."""
        while chunk := os.read(self._read_fd, _CHUNK):
            self._tail = (self._tail + chunk)[-_TAIL:]
            self._emit(StepLog(self._digest, chunk, time.time()))
            self._keep(chunk)

    def _keep(self, chunk: bytes) -> None:
        """Write to the file. One that fills the disk is given up: it must not stand in the way of all that
        could be done about it.
        """
        try:
            self._write(chunk)
        except OSError as error:
            if not space.is_full(error):
                raise
            full = OSError(error.errno, error.strerror, self._path)
            found = space.no_space(full, os.path.dirname(self._path))
            if self._file >= 0:
                os.ftruncate(self._file, 0)
            with suppress(OSError):
                os.unlink(self._path)
            raise ResourceError(str(found), log=self.last_lines(), hint=space.HINT) from error

    def _write(self, chunk: bytes) -> None:
        if self._file < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._file = os.open(self._path, flags, 0o600)
        view = memoryview(chunk)
        while view:
            view = view[os.write(self._file, view) :]

    def last_lines(self) -> tuple[str, ...]:
        """The last lines printed, fit for a screen: no control characters, bad UTF-8 replaced."""
        text = self._tail.decode("utf-8", "replace")
        lines = [line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n")]
        shown = ["".join(c if c.isprintable() or c == "\t" else "?" for c in line) for line in lines]
        while shown and not shown[-1]:
            shown.pop()
        return tuple(shown[-_TAIL_LINES:])
