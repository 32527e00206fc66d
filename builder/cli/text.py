"""Words for people: sizes, ages, tables; and text from elsewhere made harmless (SECURITY.md R26)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(32), *range(0x7F, 0xA0)) if code not in (9, 10)}
# What reorders or hides the text around it: bidirectional controls, invisible characters, line separators.
_ESCAPES |= {
    code: f"\\u{code:04x}"
    for code in (0x200B, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
}
_AGES = (
    (60, 1, "second"),
    (3600, 60, "minute"),
    (48 * 3600, 3600, "hour"),
    (14 * 86400, 86400, "day"),
    (60 * 86400, 7 * 86400, "week"),
    (2 * 365 * 86400, 30 * 86400, "month"),
)


def safe(text: str) -> str:
    """`text` with everything that steers a terminal shown instead of obeyed; tabs and line ends stay."""
    return text.translate(_ESCAPES) if not text.isprintable() else text


def size(count: int) -> str:
    """Bytes as Docker shows them: three digits, powers of 1000."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g}{_UNITS[unit]}" if value < 999.5 else f"{value:.0f}{_UNITS[unit]}"


def duration(seconds: float) -> str:
    """A length of time in words, as Docker says it."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    for below, unit, name in _AGES:
        if whole < below:
            return _counted(whole // unit, name)
    return _counted(whole // (365 * 86400), "year")


def _counted(count: int, name: str) -> str:
    if count == 1 and name in ("minute", "hour"):
        return f"About {'an' if name == 'hour' else 'a'} {name}"
    return f"{count} {name}" + ("" if count == 1 else "s")


def age(created: str, now: float | None = None) -> str:
    """How long ago an RFC 3339 moment was; `N/A` for one that is no moment."""
    moment = seconds_of(created)
    if moment is None:
        return "N/A"
    return duration((time.time() if now is None else now) - moment) + " ago"


def seconds_of(created: str) -> float | None:
    """An RFC 3339 moment in seconds since 1970; None if it is none."""
    from datetime import datetime

    try:
        return datetime.fromisoformat(_microseconds(created)).timestamp()
    except (ValueError, OverflowError):
        return None


def _microseconds(created: str) -> str:
    """Without the digits beyond microseconds, which Docker writes and Python does not read."""
    head, dot, tail = created.partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return head + dot + tail[: min(digits, 6)] + tail[digits:]


def stamp(created: str) -> str:
    """An RFC 3339 moment as Docker's `CreatedAt` shows it, in local time."""
    moment = seconds_of(created)
    return "N/A" if moment is None else time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(moment))


def shortened(text: str, length: int) -> str:
    """At most `length` characters, an ellipsis in place of what was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows (the first is the heading) in columns: three spaces apart, ten wide at least, the last free."""
    cells = [[safe(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(10, max(map(len, column)) + 3) for column in zip(*cells, strict=True)]
    lines = ("".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "".join(line.rstrip() + "\n" for line in lines)
