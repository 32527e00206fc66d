"""Where something was written: files, line ranges, and the excerpt that people see beside an error."""

from __future__ import annotations

from functools import lru_cache

from oci.data import dataclass

_CONTEXT_LINES = 3


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A text people wrote. `name` is what they call it, `text` its content with `\\n` line ends."""

    name: str
    text: str

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

    def excerpt(self) -> str:
        """The lines around the range, numbered, those of the range marked with `>>>`."""
        lines = _lines(self.file.text)
        start = max(1, self.first - _CONTEXT_LINES)
        stop = min(len(lines), self.last + _CONTEXT_LINES)
        width = len(str(stop))
        rows = []
        for number in range(start, stop + 1):
            mark = ">>>" if self.first <= number <= self.last else "   "
            rows.append(f"{number:>{width}} | {mark} {lines[number - 1]}".rstrip())
        return "\n".join(rows)


@lru_cache(maxsize=4)
def _lines(text: str) -> tuple[str, ...]:
    """A large file with many places to quote is split once."""
    return tuple(text.split("\n"))
