"""Processes that a test starts and finds again among all of the machine, other runs' leftovers among them."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable

_PATIENCE_S = 120


def nap() -> str:
    """A number of seconds, months at least, that no other process sleeps: `sleep NUMBER` is known by it."""
    return str(10**7 + secrets.randbelow(9 * 10**7))


def mentioning(text: str) -> list[int]:
    """The processes with `text` somewhere in their command line."""
    return [pid for pid, words in _commands() if text.encode() in b" ".join(words)]


def sleeping(number: str) -> list[int]:
    """The processes that sleep for that long, not the shells that are to start them."""
    return [pid for pid, words in _commands() if words[-2:] == [b"sleep", number.encode()]]


def until(condition: Callable[[], object]) -> None:
    """Wait for it. Nothing but a defect takes longer than two minutes."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _commands() -> list[tuple[int, list[bytes]]]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                found.append((int(name), file.read().removesuffix(b"\0").split(b"\0")))
        except OSError:  # it has ended meanwhile
            continue
    return found
