"""Whiteouts: how a layer says that a name of a lower layer is gone (image-spec: layer.md, Whiteouts).

    .wh.NAME        NAME of the lower layers does not exist here
    .wh..wh..opq    nothing of the lower layers' directory shows here
    .wh..wh.*       AUFS's own bookkeeping: not part of the image

A whiteout speaks of lower layers only: an entry of the same layer is never removed by it.
"""

from __future__ import annotations

from oci.errors import InvalidArchive

PREFIX = b".wh."
OPAQUE = b".wh..wh..opq"
BOOKKEEPING = b".wh..wh."


def is_whiteout(name: bytes) -> bool:
    """Whether the base name `name` is reserved for whiteouts, so that no file may bear it."""
    return name.startswith(PREFIX)


def is_bookkeeping(name: bytes) -> bool:
    """Whether `name` belongs to AUFS (`.wh..wh.plnk`): to be left out without a word."""
    return name.startswith(BOOKKEEPING) and name != OPAQUE


def whiteout(name: bytes) -> bytes:
    """The base name that removes `name`. Raises ValueError for a name that is itself reserved."""
    if is_whiteout(name) or name in (b"", b".", b".."):
        raise ValueError(f"{name!r} cannot be whited out")
    return PREFIX + name


def target(name: bytes) -> bytes:
    """The base name that the whiteout `name` removes.

    Raises InvalidArchive when it names nothing a directory could hold: `.wh.` alone, `.wh..`, `.wh...`.
    """
    removed = name[len(PREFIX) :]
    if removed in (b"", b".", b".."):
        raise InvalidArchive(f"whiteout {name.decode(errors='replace')!r} names no file; expected .wh.NAME")
    return removed
