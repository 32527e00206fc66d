"""Reading archives in one pass, as the tars of the world write them.

Understood: v7, ustar (POSIX.1-2017), pax records global and local, GNU long names (`L`, `K`) and base-256
numbers, GNU sparse files in all four dialects, which read as the expanded file. Everything else is an error
that says what was met; nothing is guessed, and nothing an archive says makes the reader hold more than
`Limits` allow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol
from zlib import adler32

from oci.compress import DEFAULT_LIMITS, Limits
from oci.errors import InvalidArchive, LimitExceeded
from oci.tar import sparse
from oci.tar.entry import Entry, Kind, clean_name

_CHUNK = 1 << 18
_LARGEST = 1 << 20  # a header may lie about a size: memory is asked for as bytes come
_LARGEST_ID = 0xFFFFFFFF
_LATEST = 10**18
_ZERO_BLOCK = bytes(512)
_FLAGS = {int(kind): kind for kind in Kind} | {0: Kind.FILE, 0x37: Kind.FILE}
_FILE = Kind.FILE
_Pax = dict[bytes, bytes]


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class TarReader:
    """The entries of an archive in order; `read` gives the content of the one just yielded.

    Iteration raises InvalidArchive for what is no tar or ends too early, LimitExceeded beyond `limits`.
    After the last entry the stream is read to its end, so that a checksum or digest behind it is verified
    too.
    """

    def __init__(self, stream: Readable, limits: Limits = DEFAULT_LIMITS) -> None:
        self._stream = stream
        self.limits = limits
        self._buffer = b""
        self._at = 0
        self._left = 0  # of the current entry's bytes in the archive
        self._padding = 0
        self._map: sparse.Expander | None = None
        self._holes = 0  # bytes that sparse files' maps conjure up
        self._global: _Pax = {}
        self._ids: dict[bytes, tuple[int, int, int]] = {}
        self.entries = 0

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            self.entries += 1
            if self.entries > self.limits.entries:
                raise LimitExceeded(f"the archive has more than {self.limits.entries} entries")
            if len(entry.name) > 200:
                self.limits.check_name(entry.name)
            yield entry
        self._drain()

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes of the current entry (all that are left when negative), b"" at its end.

        Fewer bytes than asked for come only at the end. Raises InvalidArchive when the archive ends first.
        """
        if self._map is not None:
            return self._map.read(size)
        return self._read_raw(size)

    def _read_raw(self, size: int) -> bytes:
        if size < 0 or size > self._left:
            size = self._left
        if not size:
            return b""
        self._left -= size
        return self._take(size)

    # ---- bytes ----

    def _take(self, size: int) -> bytes:
        """Exactly `size` bytes of the archive."""
        end = self._at + size
        if end <= len(self._buffer):
            chunk = self._buffer[self._at : end]
            self._at = end
            return chunk
        return self._gather(size)

    def _gather(self, size: int) -> bytes:
        parts = [self._buffer[self._at :]]
        missing = size - len(parts[0])
        self._buffer, self._at = b"", 0
        while missing:
            chunk = self._stream.read(min(max(missing, _CHUNK), _LARGEST))
            if not chunk:
                raise InvalidArchive(f"the archive ends {missing} bytes too early")
            if len(chunk) > missing:
                self._buffer, self._at = chunk, missing
                chunk = chunk[:missing]
            missing -= len(chunk)
            parts.append(chunk)
        return b"".join(parts)

    def _skip(self, size: int) -> None:
        self._at += size
        while (beyond := self._at - len(self._buffer)) > 0:
            self._buffer, self._at = self._stream.read(_CHUNK), beyond
            if not self._buffer:
                raise InvalidArchive(f"the archive ends {beyond} bytes too early")

    def _drain(self) -> None:
        self._buffer, self._at = b"", 0
        while self._stream.read(_CHUNK):
            pass

    def _next_header(self) -> bytes | None:
        """The next header block; None at the end, which is two zero blocks or the stream's own end."""
        if self._at == len(self._buffer):
            self._buffer, self._at = self._stream.read(_CHUNK), 0
            if not self._buffer:
                return None
        block = self._take(512)
        if block != _ZERO_BLOCK:
            return block
        if self._at == len(self._buffer):
            self._buffer, self._at = self._stream.read(_CHUNK), 0
        if self._buffer and self._take(512) != _ZERO_BLOCK:
            raise InvalidArchive("the archive goes on behind an end-of-archive block")
        return None

    # ---- headers ----

    def _next(self) -> Entry | None:
        if self._left or self._padding:
            self._skip(self._left + self._padding)
            self._left = self._padding = 0
        self._map = None
        local: _Pax = {}
        while (block := self._next_header()) is not None:
            _verify(block)
            flag = block[156]
            if flag in b"xX":
                _parse_pax(self._record_body(block), local)
            elif flag in b"LK":
                # GNU: the text ends at its NUL; it stands for the next header's field.
                text = self._record_body(block).partition(b"\0")[0]
                local.setdefault(b"path" if flag == 0x4C else b"linkpath", text)
            elif flag == 0x67:
                _parse_pax(self._record_body(block), self._global)
            elif flag == 0x56:  # GNU volume label: no file
                continue
            else:
                return self._entry(block, {**self._global, **local} if self._global else local)
        if local:
            raise InvalidArchive("the archive ends behind an extended header")
        return None

    def _record_body(self, block: bytes) -> bytes:
        size = _number(block[124:136], "size")
        if size > self.limits.record:
            raise LimitExceeded(f"an extended header of {size} bytes; the limit is {self.limits.record}")
        if size < 0:
            raise InvalidArchive(f"an extended header announces {size} bytes")
        body = self._take(size)
        self._take(-size % 512)
        return body

    def _entry(self, block: bytes, pax: _Pax) -> Entry:
        flag = block[156]
        kind = _FLAGS.get(flag)
        name = block[:100].partition(b"\0")[0]
        ids = self._ids.get(key := block[100:124])
        if ids is None:
            ids = self._ids_of(key)
        size = _number(block[124:136], "size")
        mtime = _number(block[136:148], "mtime")
        if not -_LATEST < mtime < _LATEST:
            raise InvalidArchive(f"a header's mtime is {mtime} seconds, which is no time")
        # GNU's own header ("ustar  ") uses the prefix field for other things.
        if block[345] and block[257:263] == b"ustar\0":
            name = block[345:500].partition(b"\0")[0] + b"/" + name
        if pax or kind is None:
            return self._unusual(block, pax, kind, name, ids, size, mtime)
        if kind is _FILE:
            # v7 has no flag for directories. With ustar's flag it is a file, as Go and Python read it.
            if not flag and name.endswith(b"/"):
                return Entry(clean_name(name), Kind.DIRECTORY, *ids, 0, mtime)
            self._expect(size)
            return Entry(clean_name(name), kind, *ids, size, mtime)
        return self._finish(block, kind, name, ids, 0, mtime, block[157:257].partition(b"\0")[0], ())

    def _ids_of(self, key: bytes) -> tuple[int, int, int]:
        """mode, uid and gid of a header, remembered: a tree has few different ones."""
        if len(self._ids) > 1000:
            self._ids.clear()
        ids = _number(key[:8], "mode") & 0o7777, _number(key[8:16], "uid"), _number(key[16:24], "gid")
        _check_owner(*ids[1:])
        self._ids[key] = ids
        return ids

    def _expect(self, size: int) -> None:
        """`size` bytes of content follow in the archive."""
        if size < 0:
            raise InvalidArchive(f"a header announces {size} bytes of content")
        self._left = size
        self._padding = -size % 512

    def _finish(
        self,
        block: bytes,
        kind: Kind,
        name: bytes,
        ids: tuple[int, int, int],
        size: int,
        mtime: int,
        link: bytes,
        xattrs: tuple[tuple[bytes, bytes], ...],
    ) -> Entry:
        major = minor = 0
        if kind in (Kind.CHAR, Kind.BLOCK):
            major, minor = _number(block[329:337], "device"), _number(block[337:345], "device")
            if not (0 <= major <= _LARGEST_ID and 0 <= minor <= _LARGEST_ID):
                raise InvalidArchive(f"a header has the device {major}:{minor}, which cannot be")
        if kind is Kind.HARDLINK:
            link = clean_name(link)
        elif kind is not Kind.SYMLINK:
            link = b""
        return Entry(clean_name(name), kind, *ids, size, mtime, link, major, minor, xattrs)

    def _unusual(
        self,
        block: bytes,
        pax: _Pax,
        kind: Kind | None,
        name: bytes,
        ids: tuple[int, int, int],
        size: int,
        mtime: int,
    ) -> Entry:
        """An entry with pax records, or of a kind that ustar does not have."""
        flag = block[156]
        name = pax.get(b"path", name)
        size = _decimal(pax, b"size", size)
        ids = ids[0], _decimal(pax, b"uid", ids[1]), _decimal(pax, b"gid", ids[2])
        _check_owner(*ids[1:])
        if b"mtime" in pax:
            mtime = _seconds(pax[b"mtime"])
        link = pax.get(b"linkpath", block[157:257].partition(b"\0")[0])
        xattrs = tuple(
            sorted((k[13:], v) for k, v in pax.items() if k.startswith(b"SCHILY.xattr.") and k[13:])
        )
        if flag == 0x44:  # GNU dump directory: its content is a list of names, of no use here
            self._expect(size)
            kind, size = Kind.DIRECTORY, 0
        elif flag == 0x53 or any(key.startswith(b"GNU.sparse.") for key in pax):
            name, size = self._sparse(block, pax, name, size)
            kind = Kind.FILE
        elif kind is _FILE:
            if not flag and name.endswith(b"/"):
                kind, size = Kind.DIRECTORY, 0
            self._expect(size)
        elif kind is None:
            raise InvalidArchive(
                f"/{name.decode(errors='replace')} is of type {chr(flag)!r}, which is no file type of tar"
            )
        else:
            size = 0
        return self._finish(block, kind, name, ids, size, mtime, link, xattrs)

    def _sparse(self, block: bytes, pax: _Pax, name: bytes, size: int) -> tuple[bytes, int]:
        self._expect(size)
        if block[156] == 0x53:
            self._left = self._padding = 0  # the map may go on in blocks that `size` does not count
            regions, real = sparse.old_gnu(block, lambda: self._take(512), self.limits.record)
            self._expect(size)
        else:
            regions, real = sparse.from_pax(pax, self._read_raw, self.limits.record)
        self._holes += max(0, real - self._left)
        self.limits.check_size(self._holes, self._left)
        self._map = sparse.Expander(regions, real, self._left, self._read_raw)
        return pax.get(b"GNU.sparse.name", name), real


def _verify(block: bytes) -> None:
    """Raise InvalidArchive unless the header's checksum is right (unsigned, or signed as ancient tars
    summed it).
    """
    field = block[148:156]
    stored = _number(field, "checksum")
    # adler32 sums 512 bytes in 0.1 microseconds; its low half is 1 plus their sum, modulo 65521.
    if (stored - 255 + sum(field) - (adler32(block) & 0xFFFF)) % 65521 == 0:
        return
    signed = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + b" " * 8 + block[156:])
    if stored != signed:
        raise InvalidArchive("this is no tar archive, or a damaged one: a header's checksum is wrong")


def _check_owner(uid: int, gid: int) -> None:
    """The last number of 32 bits tells chown(2) to leave an owner as it is: it can be nobody's id."""
    if not (0 <= uid < _LARGEST_ID and 0 <= gid < _LARGEST_ID):
        raise InvalidArchive(f"a header has the owner {uid}:{gid}, which cannot be")


def _number(field: bytes, what: str) -> int:
    """A numeric field: octal text, or GNU's base 256 when the top bit is set."""
    try:
        return int(field.rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        pass
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0x80 << (8 * (len(field) - 1)))
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    text = field.partition(b"\0")[0].strip()
    if not text:
        return 0
    try:
        return int(text, 8)
    except ValueError:
        raise InvalidArchive(f"a header's {what} is {field!r}, which is no octal number") from None


def _decimal(pax: _Pax, key: bytes, otherwise: int) -> int:
    text = pax.get(key)
    if not text:
        return otherwise
    if not text.isdigit() or len(text) > 20:
        raise InvalidArchive(
            f"pax record {key.decode()}={text[:40]!r}: expected a number that is not negative"
        )
    return int(text)


def _seconds(text: bytes) -> int:
    """A pax time, whose fraction is dropped towards the past: whole seconds are what layers keep."""
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    digits = whole[1:] if negative else whole
    if not digits.isdigit() or (fraction and not fraction.isdigit()) or len(digits) > 18:
        raise InvalidArchive(f"pax record mtime={text!r}: expected seconds since 1970")
    if not negative:
        return int(digits)
    return -int(digits) - (1 if fraction.strip(b"0") else 0)


def _parse_pax(body: bytes, into: _Pax) -> None:
    """Add the records of a pax header. An empty value takes a record back (but an xattr may be empty)."""
    at = 0
    while at < len(body):
        space = body.find(b" ", at, at + 20)
        length = body[at : max(at, space)]
        end = at + int(length) if length.isdigit() else -1
        if not at < space < end <= len(body) or body[end - 1] != 0x0A:
            raise InvalidArchive("a pax header holds a record that is not `LENGTH KEY=VALUE`")
        key, equals, value = body[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise InvalidArchive("a pax header holds a record that is not `LENGTH KEY=VALUE`")
        _keep(key, value, into)
        at = end


def _keep(key: bytes, value: bytes, into: _Pax) -> None:
    if key in (b"path", b"linkpath") and b"\0" in value:
        raise InvalidArchive(f"pax record {key.decode()} holds a NUL byte")
    if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
        # Format 0.0 repeats these two; together they are 0.1's map.
        old = into.get(b"GNU.sparse.map")
        into[b"GNU.sparse.map"] = value if old is None else old + b"," + value
    elif value or key.startswith(b"SCHILY.xattr."):
        into[key] = value
    else:
        into.pop(key, None)
