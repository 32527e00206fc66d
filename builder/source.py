"""Where something was written: files, line ranges, and the excerpt that people see beside an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from functools import lru_cache

from oci.data import dataclass

_CONTEXT_LINES = 3


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A text people wrote. `name` is what they call it, `text` its content with `\\n` line ends, `included`
    the line of another file that brings it in.
    """

    name: str
    text: str
    included: SourceRange | None = field(default=None, repr=False)

    def lines(self) -> list[str]:
        """The lines without their ends."""
        return list(_lines(self.text))

    def line(self, number: int) -> str:
        """One line, counted from 1, without its end."""
        return _lines(self.text)[number - 1]


@dataclass(frozen=True, slots=True)
class SourceRange:
    """Lines `first` to `last` of `file`, counted from 1, both included."""

    file: SourceFile
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.file.name}:{self.first}"

    def order(self) -> tuple[int, ...]:
        """A sort key: the order in which lines count, those of included files where they are included."""
        return (*reversed([each.first for each in self.including()]), self.first)

    def excerpt(self) -> str:
        """The lines around the range, numbered, its own marked with `>>>`; then what includes the file."""
        lines = _lines(self.file.text)
        start = max(1, self.first - _CONTEXT_LINES)
        stop = min(len(lines), self.last + _CONTEXT_LINES)
        width = len(str(stop))
        rows = []
        for number in range(start, stop + 1):
            mark = ">>>" if self.first <= number <= self.last else "   "
            rows.append(f"{number:>{width}} | {mark} {lines[number - 1]}".rstrip())
        rows += [f"included by {each}: {each.file.line(each.first).strip()}" for each in self.including()]
        return "\n".join(rows)

    def including(self) -> Iterator[SourceRange]:
        """The lines that bring this file in, the nearest first: its own, then that of the file it is in."""
        above = self.file.included
        while above is not None:
            yield above
            above = above.file.included


@lru_cache(maxsize=4)
def _lines(text: str) -> tuple[str, ...]:
    """A large file with many places to quote is split once."""
    return tuple(text.split("\n"))
