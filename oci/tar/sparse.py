"""Sparse files of GNU tar, expanded while they are read (GNU tar manual, D.2 "Storing Sparse Files").

Four dialects say which regions of a file are in the archive: the old GNU header (type `S`), and pax formats
0.0, 0.1 and 1.0. A region is (offset, length); what lies between regions is zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from oci.errors import InvalidArchive, LimitExceeded

Regions = list[tuple[int, int]]
_BAD = "a sparse file's map is damaged"


class Expander:
    """The expanded content of a sparse file; `read_packed` gives the regions' bytes, one behind the other."""

    def __init__(self, regions: Regions, size: int, packed: int, read_packed: Callable[[int], bytes]) -> None:
        """Raises InvalidArchive for regions that overlap, go backwards, leave the file or are not `packed`
        bytes.
        """
        end = 0
        for offset, length in regions:
            if offset < end or length < 0:
                raise InvalidArchive(f"{_BAD}: its regions overlap or go backwards")
            end = offset + length
        if end > size or sum(length for _, length in regions) != packed:
            raise InvalidArchive(f"{_BAD}: its regions do not fit the file")
        self._regions = [region for region in reversed(regions) if region[1]]
        self._size = size
        self._at = 0
        self._read = read_packed

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes of the file, all that are left when negative."""
        left = self._size - self._at
        want = left if size < 0 else min(size, left)
        parts: list[bytes] = []
        while want:
            part = self._piece(want)
            self._at += len(part)
            want -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _piece(self, want: int) -> bytes:
        """At least one and at most `want` bytes: of the hole or of the region the position is in."""
        if not self._regions:
            return bytes(want)
        offset, length = self._regions[-1]
        if self._at < offset:
            return bytes(min(want, offset - self._at))
        rest = offset + length - self._at
        if want >= rest:
            self._regions.pop()
        return self._read(min(want, rest))


def old_gnu(block: bytes, next_block: Callable[[], bytes], cap: int) -> tuple[Regions, int]:
    """Regions and real size from a header of type `S` and the map blocks behind it (at most `cap` bytes of
    them).
    """
    regions = _pairs(block[386:482])
    size = _octal(block[483:495])
    more = block[482]
    while more:
        cap -= 512
        if cap < 0:
            raise LimitExceeded("a sparse file's map is larger than an extended header may be")
        block = next_block()
        regions += _pairs(block[:504])
        more = block[504]
    return regions, size


def from_pax(pax: Mapping[bytes, bytes], read: Callable[[int], bytes], cap: int) -> tuple[Regions, int]:
    """Regions and real size from the records of pax format 0.0, 0.1 or 1.0 (whose map stands before the
    content).
    """
    if pax.get(b"GNU.sparse.major") == b"1":
        return _read_map(read, cap), _count(pax.get(b"GNU.sparse.realsize", b""))
    size = _count(pax.get(b"GNU.sparse.size") or pax.get(b"GNU.sparse.realsize", b""))
    numbers = (
        [_count(text) for text in pax[b"GNU.sparse.map"].split(b",")] if pax.get(b"GNU.sparse.map") else []
    )
    if len(numbers) % 2:
        raise InvalidArchive(f"{_BAD}: it has an odd number of values")
    return list(zip(numbers[::2], numbers[1::2], strict=True)), size


def _read_map(read: Callable[[int], bytes], cap: int) -> Regions:
    """Format 1.0: decimal numbers, one a line, the first their count; padded to a whole block."""
    pending = b""
    numbers: list[int] = []
    while not numbers or len(numbers) < 1 + 2 * numbers[0]:
        chunk = read(512)
        cap -= len(chunk)
        if len(chunk) < 512:
            raise InvalidArchive(f"{_BAD}: it has no end")
        if cap < 0:
            raise LimitExceeded("a sparse file's map is larger than an extended header may be")
        *lines, pending = (pending + chunk).split(b"\n")
        numbers += [_count(line) for line in lines[: _missing(numbers, lines)]]
    return list(zip(numbers[1::2], numbers[2::2], strict=True))


def _missing(numbers: list[int], lines: list[bytes]) -> int:
    """How many of `lines` still belong to the map: behind them stand only the block's zeros."""
    if numbers:
        return 1 + 2 * numbers[0] - len(numbers)
    return 1 + 2 * _count(lines[0]) if lines else 0


def _pairs(area: bytes) -> Regions:
    pairs = []
    for at in range(0, len(area) - 23, 24):
        if not area[at]:
            break
        pairs.append((_octal(area[at : at + 12]), _octal(area[at + 12 : at + 24])))
    return pairs


def _octal(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ((1 << 87) - 1)
    try:
        return int(field.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise InvalidArchive(f"{_BAD}: {field!r} is no octal number") from None


def _count(text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise InvalidArchive(f"{_BAD}: {text[:40]!r} is no number")
    return int(text)
