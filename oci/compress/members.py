"""Streams made of several parts: gzip members, xz and bzip2 streams, zstd frames. No codec is imported
here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from oci.errors import InvalidArchive


class Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Decoder(Protocol):
    """What bz2, lzma and isal agree upon."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


MAGIC = {
    "gzip": b"\x1f\x8b",
    "zstd": b"\x28\xb5\x2f\xfd",
    "xz": b"\xfd7zXZ\0",
    "bzip2": b"BZh",
}


class Members:
    """Content of one or several members (gzip) or streams (xz, bzip2) in a row."""

    _CHUNK = 1 << 17

    def __init__(
        self, source: Stream, form: str, new: Callable[[], Decoder], errors: tuple[type[Exception], ...]
    ) -> None:
        self._source = source
        self._form = form
        self._new = new
        self._errors = errors
        self._decoder: Decoder | None = new()

    def read(self, size: int, /) -> bytes:
        while self._decoder is not None:
            chunk = self._step(self._decoder, size)
            if self._decoder.eof:
                self._next_member(self._decoder.unused_data)
            if chunk:
                return chunk
        return b""

    def _step(self, decoder: Decoder, size: int) -> bytes:
        data = b""
        if decoder.needs_input:
            data = self._source.read(self._CHUNK)
            if not data:
                raise InvalidArchive(f"the {self._form} stream ends too early")
        return self._decode(decoder, data, size)

    def _decode(self, decoder: Decoder, data: bytes, size: int) -> bytes:
        try:
            return decoder.decompress(data, size)
        except self._errors as error:
            raise InvalidArchive(f"the {self._form} stream is damaged: {error}") from None

    def _next_member(self, rest: bytes) -> None:
        """Begin what follows a member: another one, or zeros up to the end."""
        while not rest.strip(b"\0"):
            rest = self._source.read(self._CHUNK)
            if not rest:
                self._decoder = None
                return
        rest = rest.lstrip(b"\0")
        magic = MAGIC[self._form]
        while len(rest) < len(magic) and (more := self._source.read(self._CHUNK)):
            rest += more
        if not rest.startswith(magic):
            raise InvalidArchive(
                f"the {self._form} stream is followed by {len(rest)} or more bytes of something else"
            )
        self._decoder = _Fed(self._new(), rest)


class _Fed:
    """A decoder whose first input is already there."""

    def __init__(self, decoder: Decoder, data: bytes) -> None:
        self._decoder = decoder
        self._data = data

    @property
    def eof(self) -> bool:
        return self._decoder.eof

    @property
    def needs_input(self) -> bool:
        return not self._data and self._decoder.needs_input

    @property
    def unused_data(self) -> bytes:
        return self._decoder.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        first, self._data = self._data + data, b""
        return self._decoder.decompress(first, max_length)


class Frames:
    """Passes a zstd stream through and knows whether it stands between two frames (RFC 8878, 3.1)."""

    def __init__(self, source: Stream) -> None:
        self._source = source
        self._held = b""
        self._skip = 0
        self._inside = False
        self._checksum = 0
        self.promised = 0
        """How many bytes of content the frames so far have at least: what their headers say."""

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        if data:
            self._follow(data)
        elif self._inside or self._held or self._skip:
            raise InvalidArchive("the zstd stream ends too early")
        return data

    def _follow(self, data: bytes) -> None:
        data = self._held + data
        at = 0
        while True:
            step = min(self._skip, len(data) - at)
            at += step
            self._skip -= step
            need = self._need(data, at)
            if self._skip or len(data) - at < need:
                break
            at += need if need else 0
            self._advance(data[at - need : at])
        self._held = data[at:]

    def _need(self, data: bytes, at: int) -> int:
        """Bytes of the next header: a block's 3, a frame's up to 18 (its fifth byte says), a skippable
        frame's 8.
        """
        if self._inside:
            return 3
        if data[at + 1 : at + 4] == b"\x2a\x4d\x18":
            return 8
        if len(data) - at < 5:
            return 5
        flags = data[at + 4]
        single = flags >> 5 & 1
        return 5 + (1 - single) + (0, 1, 2, 4)[flags & 3] + ((single, 2, 4, 8)[flags >> 6])

    def _advance(self, header: bytes) -> None:
        if self._inside:
            block = int.from_bytes(header, "little")
            self._skip = 1 if block >> 1 & 3 == 1 else block >> 3
            if block & 1:
                self._inside = False
                self._skip += self._checksum
        elif header[1:4] == b"\x2a\x4d\x18":
            self._skip = int.from_bytes(header[4:8], "little")
        else:
            self._inside = True
            self._checksum = 4 if header[4] >> 2 & 1 else 0
            self.promised += _content_size(header)


def _content_size(header: bytes) -> int:
    """The size of its content that a whole frame header tells; 0 when it tells none."""
    flags = header[4]
    single = flags >> 5 & 1
    length = (single, 2, 4, 8)[flags >> 6]
    size = int.from_bytes(header[len(header) - length :], "little") if length else 0
    return size + 256 if length == 2 else size
