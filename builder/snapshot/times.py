"""Times in layers (ARCHITECTURE.md 4.11): whole seconds, and with a clock none later than it."""

from __future__ import annotations

FIXED = 315532800
"""1980-01-01T00:00:00Z: the time context files have inside steps when there is a clock, and what RUN sees
as the clock.
"""


def settle(mtime: int, clock: int | None) -> int:
    """`mtime` (seconds) as a layer has it: FIXED becomes the clock, what is newer too; without a clock it
    stays.
    """
    if clock is None:
        return mtime
    return clock if mtime == FIXED or mtime > clock else mtime
