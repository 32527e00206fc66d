"""Durations as Go writes and reads them (`1m30s`): HEALTHCHECK's options and its line of history."""

from __future__ import annotations

import re

MILLISECOND = 1_000_000
"""In nanoseconds, like everything here."""

_MAX = (1 << 63) - 1
_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": MILLISECOND, "s": 1_000_000_000}
_UNITS |= {"m": 60 * _UNITS["s"], "h": 3600 * _UNITS["s"]}
_TERM = re.compile(r"(\d{0,18})(?:\.(\d{0,18}))?(ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def parse(text: str) -> int | None:
    """Nanoseconds, or None for text that is no duration. A bare `0` is one; other numbers need a unit."""
    sign = -1 if text.startswith("-") else 1
    text = text[1:] if text[:1] in ("-", "+") else text
    if text == "0":
        return 0
    total = at = 0
    while at < len(text):
        match = _TERM.match(text, at)
        if match is None or not (match[1] or match[2]):
            return None
        unit = _UNITS[match[3]]
        total += int(match[1] or 0) * unit + int((match[2] or "0").ljust(18, "0")) * unit // 10**18
        at = match.end()
    return sign * total if at and total <= _MAX else None


def format_(nanoseconds: int) -> str:
    """`1h0m0s`, `1m30s`, `1.5s`, `250ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < _UNITS["s"]:
        for unit in ("ms", "µs", "ns"):
            if nanoseconds >= _UNITS[unit]:
                return f"{_decimal(nanoseconds, _UNITS[unit])}{unit}"
    hours, rest = divmod(nanoseconds, _UNITS["h"])
    minutes, rest = divmod(rest, _UNITS["m"])
    seconds = f"{_decimal(rest, _UNITS['s'])}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    digits = f"{fraction:0{len(str(unit)) - 1}d}".rstrip("0") if fraction else ""
    return f"{whole}.{digits}" if digits else str(whole)
