"""Signals by the names people give them."""

from __future__ import annotations

import signal

from builder.errors import UsageError

_LAST = 64


def number_of(text: str, *, option: str = "--signal") -> int:
    """`KILL`, `SIGKILL`, `kill`, `9`, `RTMIN+3`. Raises UsageError for what is none."""
    name = text.strip().upper()
    if name.isdigit() and 0 < int(name) <= _LAST:
        return int(name)
    base, plus, offset = name.removeprefix("SIG").partition("+")
    base, minus, back = base.partition("-")
    found = getattr(signal, f"SIG{base}", None)
    if isinstance(found, signal.Signals) and (offset or "0").isdigit() and (back or "0").isdigit():
        number = int(found) + int(offset or 0) - int(back or 0)
        if (not plus and not minus) or signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    raise UsageError(f"{option} {text!r} is no signal", hint="a name or a number: TERM, SIGKILL, 15, RTMIN+3")
