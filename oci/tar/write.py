"""Making archives: headers by hand, handed over in blocks of 1 MiB.

The bytes depend on the entries alone: no user names, no clock, no record padding (the archive ends with two
zero blocks, as Go's `archive/tar` ends it). A header is POSIX ustar; a pax header stands before it only for
what ustar cannot say (POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"): names that
are long or not ASCII, ids above 2097151, sizes from 8 GiB, times before 1970, extended attributes
(`SCHILY.xattr.NAME`).
"""

from __future__ import annotations

from collections.abc import Callable
from zlib import adler32

from oci.errors import InvalidArchive
from oci.tar.entry import Entry, Kind

BLOCK = 1 << 20
"""Bytes handed to the sink at a time (the last block is shorter)."""

_MAX_ID = 0o7777777
_MAX_OCTAL12 = 0o77777777777
_FILE = Kind.FILE
_PADDING = tuple(bytes(-size % 512) for size in range(512))
_HEAD = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0"
_TAIL = b"%c%bustar\x0000" + bytes(64) + b"%07o\0%07o\0%b" + bytes(12)
_FILE_TAIL = _TAIL % (Kind.FILE, bytes(100), 0, 0, bytes(155))
# adler32's low half is 1 plus the sum of the bytes modulo 65521: exact for headers, which are ASCII (at
# most 512 * 127). The eight spaces that stand for the checksum itself add 256 (POSIX: chksum).
_CHECKSUM_SPACES = 256
_FILE_TAIL_SUM = sum(_FILE_TAIL) + _CHECKSUM_SPACES


class ChangedWhileReading(InvalidArchive):
    """A file gave fewer or more bytes than the size its header already promises."""


class TarWriter:
    """An archive under construction; `sink` receives it as immutable blocks of `BLOCK` bytes.

    The sink owns what it is given, so it may be another thread's queue. Without `finish` the archive has no
    end.
    """

    __slots__ = ("_parts", "_pending", "_sink", "entries", "size")

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        # Parts are joined once a block is full: a growing bytearray costs twice the time in page faults.
        self._parts: list[bytes] = []
        self._pending = 0
        self.entries = 0
        self.size = 0
        """Bytes handed to the sink so far."""

    def add(self, entry: Entry, data: bytes = b"") -> None:
        """Append `entry` with its whole content.

        Raises ChangedWhileReading when `data` is not `entry.size` bytes, InvalidArchive for what tar cannot
        say.
        """
        size = len(data)
        if size != entry.size:
            raise _changed(entry, size)
        self._put(header(entry), data)

    def add_file(self, name: bytes, mode: int, uid: int, gid: int, mtime: int, data: bytes) -> None:
        """`add` for a regular file without extended attributes, from plain values: most files are such.

        Raises InvalidArchive for what tar cannot say.
        """
        size = len(data)
        block = _plain(name, mode, uid, gid, size, mtime)
        self._put(block or header(Entry(name, _FILE, mode, uid, gid, size, mtime)), data)

    def _put(self, block: bytes, data: bytes) -> None:
        """Append the header `block` and the whole content behind it."""
        self.entries += 1
        padding = _PADDING[len(data) & 511]
        self._parts += (block, data, padding)
        self._pending += len(block) + len(data) + len(padding)
        if self._pending >= BLOCK:
            self._flush()

    def add_stream(self, entry: Entry, read: Callable[[int], bytes]) -> None:
        """Append `entry`, its content from `read(n)`, which gives at most n bytes and b"" at the end.

        Raises ChangedWhileReading when not exactly `entry.size` bytes come: the archive is then useless.
        """
        self.entries += 1
        self._append(header(entry))
        left = entry.size
        while left:
            # Asking for what completes a block makes all but a file's first block pass through uncopied.
            chunk = read(min(left, BLOCK - self._pending))
            if not chunk:
                raise _changed(entry, entry.size - left)
            left -= len(chunk)
            self._append(chunk)
        if read(1):
            raise _changed(entry, entry.size + 1)
        self._append(_PADDING[entry.size & 511])

    def finish(self) -> int:
        """End the archive with two zero blocks and give its size in bytes."""
        self._append(bytes(1024))
        if self._pending:
            self._hand_over(b"".join(self._parts))
            self._parts.clear()
            self._pending = 0
        return self.size

    def _append(self, part: bytes) -> None:
        self._parts.append(part)
        self._pending += len(part)
        if self._pending >= BLOCK:
            self._flush()

    def _flush(self) -> None:
        """Hand over all whole blocks; less than one stays."""
        while self._pending >= BLOCK:
            rest: list[bytes] = []
            over = self._pending - BLOCK
            while over >= len(self._parts[-1]):
                rest.append(self._parts.pop())
                over -= len(rest[-1])
            if over:
                last = self._parts.pop()
                self._parts.append(last[:-over])
                rest.append(last[-over:])
            self._hand_over(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
            self._parts = rest[::-1]
            self._pending -= BLOCK

    def _hand_over(self, block: bytes) -> None:
        self.size += len(block)
        self._sink(block)


def _changed(entry: Entry, got: int) -> ChangedWhileReading:
    came = f"{got} bytes" if got <= entry.size else f"more than {entry.size} bytes"
    return ChangedWhileReading(
        f"{entry} changed while it was read: its size was {entry.size} bytes, but {came} came"
    )


def header(entry: Entry) -> bytes:
    """The header blocks of `entry`: one of ustar, or a pax header and its records before it."""
    name = entry.name
    if entry.kind == _FILE and not entry.xattrs:
        block = _plain(name, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime)
        if block:
            return block
    elif entry.kind == Kind.DIRECTORY:
        name = name + b"/" if name else b"./"
    return _general(entry, name)


def _plain(name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int) -> bytes:
    """The header of a regular file, b"" when it needs more than the plain fields of ustar."""
    # The limits are one less than powers of two: a bit-wise or passes them exactly when each number does.
    if (
        not 0 < len(name) <= 100
        or not 0 <= mtime | size <= _MAX_OCTAL12
        or not 0 <= uid | gid <= _MAX_ID
        or not name.isascii()
        or b"\0" in name
    ):
        return b""
    head = _HEAD % (name.ljust(100, b"\0"), mode & 0o7777, uid, gid, size, mtime)
    return head + b"%06o\0 " % ((adler32(head) & 0xFFFF) - 1 + _FILE_TAIL_SUM) + _FILE_TAIL


def _general(entry: Entry, name: bytes) -> bytes:
    _check(entry)
    records: dict[bytes, bytes] = {}
    short, prefix = _fit_name(name, records)
    link = _fit(entry.link, b"linkpath", records)
    uid = _fit_number(entry.uid, _MAX_ID, b"uid", records)
    gid = _fit_number(entry.gid, _MAX_ID, b"gid", records)
    size = _fit_number(entry.size, _MAX_OCTAL12, b"size", records)
    mtime = _fit_number(entry.mtime, _MAX_OCTAL12, b"mtime", records)
    for key, value in entry.xattrs:
        records[b"SCHILY.xattr." + key] = value
    block = _ustar(
        entry.kind, short, prefix, link, entry.mode, uid, gid, size, mtime, entry.major, entry.minor
    )
    if not records:
        return block
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    base = _ascii(name.rstrip(b"/").rpartition(b"/")[2])[:80]
    pax = _ustar(ord("x"), b"PaxHeaders/" + base, b"", b"", 0o644, 0, 0, len(body), 0, 0, 0)
    return b"".join((pax, body, _PADDING[len(body) & 511], block))


def _check(entry: Entry) -> None:
    if not entry.name and entry.kind != Kind.DIRECTORY:
        raise InvalidArchive(
            f"the root of an archive can only be a directory, not a {entry.kind.name.lower()}"
        )
    if b"\0" in entry.name or b"\0" in entry.link:
        raise InvalidArchive(f"{entry} has a NUL byte in its name or link, which tar cannot hold")
    if min(entry.uid, entry.gid, entry.size, entry.major, entry.minor) < 0:
        raise InvalidArchive(f"{entry} has a negative id, size or device number")
    if max(entry.major, entry.minor) > _MAX_ID:
        raise InvalidArchive(
            f"{entry} has device number {entry.major}:{entry.minor}; tar holds up to {_MAX_ID}"
        )
    if entry.size and entry.kind != Kind.FILE:
        raise InvalidArchive(f"{entry} is a {entry.kind.name.lower()} with a size; only files have content")
    for key, _ in entry.xattrs:
        if not key or b"=" in key or b"\0" in key:
            raise InvalidArchive(f"{entry} has extended attribute {key!r}; pax names hold no `=` and no NUL")


def _fit_name(name: bytes, records: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    """The name and prefix fields for `name`, or a pax record and a stand-in."""
    if len(name) <= 100 and name.isascii():
        return name, b""
    if len(name) <= 256 and name.isascii():
        # The last slash that leaves at most 100 bytes behind it, or the one before a directory's own.
        cut = name.find(b"/", max(0, len(name) - 101))
        if 0 < cut <= 155 and cut < len(name) - 1:
            return name[cut + 1 :], name[:cut]
    records[b"path"] = name
    return _ascii(name)[-100:].lstrip(b"/") or b"_", b""


def _fit(text: bytes, key: bytes, records: dict[bytes, bytes]) -> bytes:
    if len(text) <= 100 and text.isascii():
        return text
    records[key] = text
    return _ascii(text)[:100]


def _fit_number(value: int, most: int, key: bytes, records: dict[bytes, bytes]) -> int:
    if 0 <= value <= most:
        return value
    records[key] = b"%d" % value
    return 0


def _ascii(text: bytes) -> bytes:
    return text if text.isascii() else bytes(byte if byte < 128 else 0x5F for byte in text)


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, where LENGTH counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _ustar(
    flag: int,
    name: bytes,
    prefix: bytes,
    link: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    mtime: int,
    major: int,
    minor: int,
) -> bytes:
    head = _HEAD % (name.ljust(100, b"\0"), mode & 0o7777, uid, gid, size, mtime)
    tail = _TAIL % (flag, link.ljust(100, b"\0"), major, minor, prefix.ljust(155, b"\0"))
    return b"%b%06o\0 %b" % (head, sum(head) + sum(tail) + _CHECKSUM_SPACES, tail)
