"""Disks that are full: recognised and told in one way, wherever it happened (SECURITY.md R05)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builder.errors import ResourceError

if TYPE_CHECKING:
    from builder.source import SourceRange

HINT = "free some space, or name another store with --root"
_NEARLY = 1 << 20


def is_full(error: BaseException) -> bool:
    """Whether `error` is the system's word for a full disk or quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def no_space(error: OSError, store: str, *, at: SourceRange | None = None) -> ResourceError:
    """`error` for people: what could not be written, else whose disk it is, and how much is free there."""
    where = os.fsdecode(error.filename) if error.filename is not None else store
    text = error.strerror or os.strerror(errno.ENOSPC)
    return ResourceError(f"{text}: {where} ({free(where, store)} bytes are free)", at=at, hint=HINT)


def free(*places: str) -> int:
    """Bytes that may still be written on the disk of the first place that is there, or its directory is."""
    for place in [each for name in places for each in (name, os.path.dirname(os.path.abspath(name)))]:
        try:
            disk = os.statvfs(place)
        except OSError:
            continue
        blocks = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
        return 0 if disk.f_files and not disk.f_ffree else blocks * disk.f_frsize
    return 0


def nearly_full(place: str) -> bool:
    """Whether a program that fails just now has failed for want of space, most likely."""
    return free(place) < _NEARLY


@contextmanager
def told(store: str, at: SourceRange | None = None) -> Iterator[None]:
    """Raise ResourceError in place of the system's own error when the disk is full.

    To be entered after what takes half-written files away: they are what fills it.
    """
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise no_space(error, store, at=at) from error
