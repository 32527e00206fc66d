"""Ctrl-C and its like, kept until somebody has heard them.

What a signal's handler raises is dropped by the interpreter when the signal comes while it runs a finaliser
or a weak reference's callback ("Exception ignored in ..."), and becomes another error when it comes in the
middle of an import. So the command line remembers what it was asked for; who works long asks for it again.
"""

from __future__ import annotations

LISTEN_S = 0.25
"""How long an interrupt may go unheard. One that comes just before a thread waits for a lock does not wake
it: the interpreter looks for it when the waiting ends."""

_asked: list[KeyboardInterrupt] = []


def ask(interrupt: KeyboardInterrupt) -> None:
    """Remember `interrupt`, which the caller raises."""
    _asked[:] = [interrupt]


def forget() -> None:
    """Begin anew: nobody has asked for anything."""
    _asked.clear()


def asked() -> KeyboardInterrupt | None:
    """What was asked for last."""
    return _asked[0] if _asked else None


def listen() -> None:
    """Raise what was asked for, if it was."""
    if _asked:
        raise _asked[0]
