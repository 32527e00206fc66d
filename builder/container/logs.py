"""What a container printed, kept: a JSON object per line, as docker's `json-file` has it.

    {"log": "text\\n", "stream": "stdout", "time": "2026-01-01T00:00:00.000000000Z"}

Bytes that are no UTF-8 are kept too (as lone surrogates in the JSON), so that `logs` prints what was printed.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from builder.container.moments import now
from oci.data import dataclass

_LONGEST = 1 << 14
"""Of a line without an end, so much is kept in one piece."""
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True, slots=True)
class Line:
    """A piece of output: its bytes, `stdout` or `stderr`, and when it came."""

    text: bytes
    stream: str
    time: str


class LogWriter:
    """Writes the log at `path`. A disk that is full loses output, never the container."""

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        self._held = {"stdout": b"", "stderr": b""}
        self.lost = False

    def write(self, stream: str, chunk: bytes) -> None:
        """Keep what came; the beginning of a line waits for its end."""
        text = self._held[stream] + chunk
        lines = (
            text.splitlines(keepends=True) if b"\r" not in text else text.replace(b"\n", b"\n\0").split(b"\0")
        )
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        while len(rest) >= _LONGEST:
            lines.append(rest[:_LONGEST])
            rest = rest[_LONGEST:]
        self._held[stream] = rest
        self._put(stream, [each for each in lines if each])

    def close(self) -> None:
        """Write down lines that never ended."""
        for stream, rest in self._held.items():
            self._put(stream, [rest] if rest else [])
        os.close(self._fd)

    def _put(self, stream: str, lines: list[bytes]) -> None:
        if not lines or self.lost:
            return
        moment = now()
        rows = [
            json.dumps({"log": each.decode("utf-8", "surrogateescape"), "stream": stream, "time": moment})
            + "\n"
            for each in lines
        ]
        view = memoryview("".join(rows).encode())
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            self.lost = True


def read(
    path: str,
    *,
    tail: int = -1,
    since: str = "",
    until: str = "",
    follow: Callable[[], bool] | None = None,
) -> Iterator[Line]:
    """The log at `path`, the last `tail` lines of it (-1: all), those from `since` to `until` (RFC 3339).

    `follow` is asked, at the end, whether there may be more.
    """
    if not os.path.exists(path):
        return
    with open(path, "rb") as file:
        rows: Iterable[bytes] = _whole(file)
        if tail >= 0:
            rows = deque(rows, tail)
        yield from _chosen(rows, since, until)
        while follow is not None:
            more = follow()  # asked first: what was written before the end is there afterwards
            yield from _chosen(_whole(file), since, until)
            if not more:
                return
            time.sleep(_LOOK_EVERY_S)


def _whole(file: object) -> Iterator[bytes]:
    """The lines that are complete; of another one nothing is taken."""
    while row := file.readline():  # type: ignore[attr-defined]
        if not row.endswith(b"\n"):
            file.seek(-len(row), os.SEEK_CUR)  # type: ignore[attr-defined]
            return
        yield row


def _chosen(rows: Iterable[bytes], since: str, until: str) -> Iterator[Line]:
    for row in rows:
        line = _line(row)
        if line is not None and (not since or line.time >= since) and (not until or line.time <= until):
            yield line


def _line(row: bytes) -> Line | None:
    try:
        found = json.loads(row)
        return Line(found["log"].encode("utf-8", "surrogateescape"), found["stream"], found["time"])
    except (ValueError, KeyError, TypeError):
        return None  # half of one: the machine went down
