"""Layers in their compressed forms."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma

import zstandard

from oci.compress import Limits, open_compressed
from oci.errors import InvalidArchive, LimitExceeded

LIMITS = Limits(total=1 << 24, slack=1 << 20, ratio=250)
TEXT = b"0123456789" * 100
SEEDS = (
    gzip.compress(TEXT, mtime=0),
    gzip.compress(TEXT, mtime=0) * 2 + b"\0" * 20,
    zstandard.ZstdCompressor(write_checksum=True).compress(TEXT),
    zstandard.compress(TEXT) + b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" + zstandard.compress(b"x"),
    lzma.compress(TEXT),
    bz2.compress(TEXT),
    TEXT,
)
WORDS = (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\xfd7zXZ\0", b"BZh9")


class Pieces:
    """A stream that gives a few bytes at a time, as pipes do."""

    def __init__(self, data: bytes, size: int) -> None:
        self._stream = io.BytesIO(data)
        self._size = size

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, self._size))


def target(data: bytes) -> None:
    """Whole and in pieces: the same content, or a failure of both.

    A bomb that is damaged may be either: limits hold at the end of what was asked for.
    """
    whole, pieces = _read(Pieces(data, 1 << 20), 1 << 16), _read(Pieces(data, 7), 1000)
    assert whole == pieces or {whole, pieces} == {"invalid", "too much"}, (whole[:80], pieces[:80])


def _read(stream: Pieces, size: int) -> bytes | str:
    content = []
    try:
        opened = open_compressed(stream, limits=LIMITS)
        while chunk := opened.read(size):
            content.append(chunk)
    except InvalidArchive as error:
        assert str(error)
        return "invalid"
    except LimitExceeded as error:
        assert str(error)
        return "too much"
    return b"".join(content)
