"""Moments as docker writes them: RFC 3339 with nanoseconds, in UTC."""

from __future__ import annotations

import time


def rfc3339(moment_ns: int) -> str:
    """A moment since the epoch, in nanoseconds."""
    seconds, rest = divmod(moment_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def now() -> str:
    """This moment."""
    return rfc3339(time.time_ns())
