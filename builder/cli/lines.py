"""A step's raw output as lines fit for a screen: complete, harmless, and cheap when there is a lot of it."""

from __future__ import annotations

from builder.cli.text import safe
from builder.events import StepDone

_STEERING = bytes(code for code in (*range(32), 0x7F) if code not in (9, 10))
_LONGEST = 1 << 16
"""A line without an end is cut here: what shows it must not hold it all."""


def ending(event: StepDone) -> str:
    """How a step ended, in BuildKit's words; empty if it was done."""
    if "build was cancelled" in event.error:  # the solver's words for steps that another's failure ended
        return "CANCELED"
    return "ERROR" if event.error else "CACHED" if event.cached else ""


class Lines:
    """The output of one step: bytes in, whole lines out. What a progress bar overwrote is not shown."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> bytes:
        """The lines that `data` completes, each with its end; empty if none."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        if len(self._rest) > _LONGEST:
            self._rest = _last_state(self._rest)
            if len(self._rest) > _LONGEST:
                end, self._rest, data = len(data) + 1, b"", data + b"\n"
        return cleaned(data[:end]) if end else b""

    def finish(self) -> bytes:
        """What is left: a last line without an end, with one."""
        rest, self._rest = self._rest, b""
        return cleaned(rest + b"\n") if rest else b""


def cleaned(lines: bytes) -> bytes:
    """Whole lines without what steers a terminal. Plain text, which is nearly all, passes as it is."""
    if lines.isascii() and len(lines.translate(None, _STEERING)) == len(lines):
        return lines
    shown = (_shown(line) for line in lines.split(b"\n"))
    return "\n".join(shown).encode()


def _shown(line: bytes) -> str:
    return safe(_without_sequences(_last_state(line).decode("utf-8", "replace")))


def _last_state(line: bytes) -> bytes:
    """What a terminal would show at last of a line that was written over with carriage returns."""
    if b"\r" not in line:
        return line
    return next((part for part in reversed(line.split(b"\r")) if part.strip()), b"")


def _without_sequences(text: str) -> str:
    """Without whole control sequences: colours and the like, which shown as text would only disturb."""
    if "\x1b" not in text:
        return text
    import re

    return re.sub(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))", "", text)
