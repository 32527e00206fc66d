"""One member of an archive, as data."""

from __future__ import annotations

import re
from enum import IntEnum

from oci.data import dataclass

_UNTIDY = re.compile(rb"^/|/$|^\./|/\./|/\.$|//|^\.$")


class Kind(IntEnum):
    """What an entry is. The value is its ustar type flag (`ord`)."""

    FILE = 0x30
    HARDLINK = 0x31
    SYMLINK = 0x32
    CHAR = 0x33
    BLOCK = 0x34
    DIRECTORY = 0x35
    FIFO = 0x36


@dataclass(frozen=True, slots=True)
class Entry:
    """A file's name and metadata.

    `name` is relative, without `/` at either end and without `.` components; b"" is the root directory
    itself. `mode` has the twelve permission bits, `size` is in bytes (0 for all but FILE), `mtime` in whole
    seconds since 1970 and may be negative. `link` is a symlink's text or the name a hardlink shares its
    file with. `xattrs` are (name, value) pairs sorted by name.
    """

    name: bytes
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime: int = 0
    link: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()

    def __str__(self) -> str:
        return "/" + self.name.decode(errors="replace")


def clean_name(raw: bytes) -> bytes:
    """`raw` without leading, trailing and doubled slashes and without `.` components.

    `..` is kept: whether it may be followed is for those to say who write to a directory.
    """
    if not _UNTIDY.search(raw):
        return raw
    return b"/".join(part for part in raw.split(b"/") if part not in (b"", b"."))
