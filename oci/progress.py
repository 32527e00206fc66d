"""How long work tells its caller that bytes have moved."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int], None]
"""Called with the number of bytes that moved since the last call; cheap, and may come from any thread."""


def no_progress(count: int) -> None:
    """For callers that do not watch."""
