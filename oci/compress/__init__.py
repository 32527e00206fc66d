"""Codecs of layers, and a reader for everything a tar may arrive in.

    codec("gzip").compressor()     blocks -> bytes that depend on content and level alone
    open_compressed(stream)        bytes of any known format -> content, within `Limits`

**gzip** is one member of raw deflate blocks of exactly 1 MiB input, each primed with the 32 KiB before it
and ended by a sync flush (RFC 1951, 1952). Blocks are compressed by a small pool, so a layer uses all
processors, and the bytes are the same for any number of workers and any cutting of the input. Levels 0 to 3
are isal's, and store a block as it is when samples of it do not shrink; levels above are zlib's. **zstd**
always runs with worker threads, because libzstd writes other bytes without.

Bytes are promised per codec, level and library version; what is promised for ever is the diffID.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection
from importlib import import_module
from typing import IO, TYPE_CHECKING, Protocol, cast

from oci.compress.limits import DEFAULT_LIMITS, NO_LIMITS, Limits
from oci.compress.members import MAGIC, Decoder, Frames, Members, Stream
from oci.data import dataclass
from oci.errors import InvalidArchive
from oci.media_types import OCI_LAYER

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = [
    "ALL",
    "BLOCK",
    "DEFAULT_LIMITS",
    "NO_LIMITS",
    "Codec",
    "Compressor",
    "Decompressed",
    "Limits",
    "codec",
    "detect",
    "open_compressed",
]

ALL = ("gzip", "zstd", "xz", "bzip2", "uncompressed")
BLOCK = 1 << 20

_DICTIONARY = 32768
# RFC 1952, 2.3: magic, deflate, no flags, no time, no hint about the effort, unknown operating system.
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_EMPTY_LAST_BLOCK = b"\x03\0"
_STORED = 0xFFFF
_SAMPLE, _SAMPLES = 2048, 8
_LEVELS = {"gzip": (0, 9, 1), "zstd": (0, 22, 3), "uncompressed": (0, 0, 0)}


class Compressor(Protocol):
    """A stream being compressed. Output may lag behind input; `finish` gives the rest."""

    def compress(self, block: bytes, /) -> bytes: ...
    def finish(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Codec:
    """A way to compress a layer: `name` is gzip, zstd or uncompressed. Make one with `codec`."""

    name: str
    level: int

    @property
    def media_type_suffix(self) -> str:
        """What the layer's media type ends in: `+gzip`, `+zstd` or nothing (image-spec: layer.md)."""
        return "" if self.name == "uncompressed" else f"+{self.name}"

    @property
    def media_type(self) -> str:
        """The OCI media type of a layer compressed so."""
        return OCI_LAYER + self.media_type_suffix

    def compressor(self) -> Compressor:
        """A new stream."""
        if self.name == "gzip":
            return _Gzip(self.level)
        if self.name == "zstd":
            return _Zstd(self.level)
        return _Identity()


def codec(name: str, level: int | None = None) -> Codec:
    """The codec `name` at `level`, or at its default (gzip 1, zstd 3). zstd's level 0 is its default, as the
    format's own library has it.

    Raises ValueError for unknown names and levels; the text suits a usage error.
    """
    if name not in _LEVELS:
        raise ValueError(f"unknown compression {name!r}; expected gzip, zstd or uncompressed")
    least, most, default = _LEVELS[name]
    if level is None or name == "uncompressed":
        return Codec(name, default)
    if not least <= level <= most:
        raise ValueError(f"{name} has no level {level}; expected {least} to {most}")
    return Codec(name, level)


class _Identity:
    def compress(self, block: bytes) -> bytes:
        return block

    def finish(self) -> bytes:
        return b""


class _Zstd:
    def __init__(self, level: int) -> None:
        import zstandard

        self._stream = zstandard.ZstdCompressor(level=level, threads=_workers()).compressobj()

    def compress(self, block: bytes) -> bytes:
        return self._stream.compress(block)

    def finish(self) -> bytes:
        return self._stream.flush()


class _Gzip:
    """See the module's text for the format. At most `_AHEAD` blocks are with the pool at a time."""

    _AHEAD = 4

    def __init__(self, level: int) -> None:
        from isal import isal_zlib

        self._deflate = _deflate_of(level)
        self._crc32: Callable[[bytes, int], int] = isal_zlib.crc32
        self._crc = 0
        self._size = 0
        self._pending = bytearray()
        self._dictionary = b""
        self._running: deque[Future[bytes]] = deque()
        self._started = False

    def compress(self, block: bytes) -> bytes:
        if not self._pending and len(block) == BLOCK:
            return self._block(bytes(block))
        self._pending += block
        done = []
        while len(self._pending) >= BLOCK:
            done.append(self._block(bytes(self._pending[:BLOCK])))
            del self._pending[:BLOCK]
        return b"".join(done)

    def finish(self) -> bytes:
        last = bytes(self._pending)
        if last and not self._size:  # a small stream is not worth a thread
            self._count(last)
            body = self._deflate(last, b"")
        else:
            body = self._block(last) if last else b""
        rest = [future.result() for future in self._running]
        self._running.clear()
        trailer = self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        return b"".join((self._header(), body, *rest, _EMPTY_LAST_BLOCK, trailer))

    def _header(self) -> bytes:
        if self._started:
            return b""
        self._started = True
        return _GZIP_HEADER

    def _count(self, block: bytes) -> None:
        self._crc = self._crc32(block, self._crc)
        self._size += len(block)

    def _block(self, block: bytes) -> bytes:
        self._count(block)
        self._running.append(_pool().submit(self._deflate, block, self._dictionary))
        self._dictionary = block[-_DICTIONARY:]
        if len(self._running) <= self._AHEAD:
            return b""
        return self._header() + self._running.popleft().result()


def _deflate_of(level: int) -> Callable[[bytes, bytes], bytes]:
    """A function from a block and the 32 KiB before it to raw deflate that ends at a byte boundary."""
    engine = import_module("isal.isal_zlib" if level <= 3 else "zlib")

    def deflate(block: bytes, dictionary: bytes) -> bytes:
        primed = {"zdict": dictionary} if dictionary else {}
        stream = engine.compressobj(level, engine.DEFLATED, -15, **primed)
        return bytes(stream.compress(block) + stream.flush(engine.Z_SYNC_FLUSH))

    def deflate_or_store(block: bytes, dictionary: bytes) -> bytes:
        if len(block) == BLOCK:
            sample = b"".join([block[at : at + _SAMPLE] for at in range(0, BLOCK, BLOCK // _SAMPLES)])
            if len(deflate(sample, b"")) > 0.99 * len(sample):
                return _stored(block)
        return deflate(block, dictionary)

    return deflate_or_store if level <= 3 else deflate


def _stored(block: bytes) -> bytes:
    """Deflate blocks that hold `block` as it is (RFC 1951, 3.2.4): zero, length, complement, bytes."""
    parts: list[bytes | memoryview] = []
    for at in range(0, len(block), _STORED):
        part = memoryview(block)[at : at + _STORED]
        parts += (bytes(1), len(part).to_bytes(2, "little"), (len(part) ^ 0xFFFF).to_bytes(2, "little"), part)
    return b"".join(parts)


def _workers() -> int:
    return min(4, max(2, len(os.sched_getaffinity(0))))


_shared: list[ThreadPoolExecutor] = []


def _pool() -> ThreadPoolExecutor:
    """The workers all gzip streams of the process share."""
    if not _shared:
        from concurrent.futures import ThreadPoolExecutor

        _shared.append(ThreadPoolExecutor(_workers(), "deflate"))
    return _shared[0]


# ---- reading ----


def detect(head: bytes) -> str:
    """The format of a stream that begins with `head`: one of `ALL`, "uncompressed" when no magic fits."""
    for name, magic in MAGIC.items():
        if head.startswith(magic):
            return name
    if head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:  # a skippable frame (RFC 8878, 3.1.2)
        return "zstd"
    return "uncompressed"


class Decompressed:
    """The content of a stream, as `open_compressed` gives it. `format` says what it was packed in."""

    def __init__(self, source: _Counted, form: str, limits: Limits) -> None:
        self.format = form
        self.size = 0
        """Bytes of content read so far."""
        self._source = source
        self._limits = limits
        self._content: Stream = source if form == "uncompressed" else _content(form, source)

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, all that are left when negative, b"" at the end.

        Raises InvalidArchive when the stream is damaged, ends early or goes on behind its end; LimitExceeded.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(BLOCK), b""))
        chunk = self._content.read(size) if size else b""
        self.size += len(chunk)
        if self.format != "uncompressed" or self.size > self._limits.total:
            self._limits.check_size(self.size, self._source.size)
        return chunk


def open_compressed(
    stream: Stream, *, allow: Collection[str] = ALL, limits: Limits = DEFAULT_LIMITS
) -> Decompressed:
    """The content of `stream`, whose format is found by its first bytes.

    Raises InvalidArchive when that format is not in `allow`. Several gzip members, xz streams or zstd
    frames in a row are one content; zeros behind the last (tape padding) are ignored. Close `stream`
    yourself.
    """
    source = _Counted(stream)
    form = detect(source.peek(6))
    if form not in allow:
        raise InvalidArchive(f"the stream is {form}; expected {' or '.join(sorted(allow))}")
    return Decompressed(source, form, limits)


class _Counted:
    """A stream with its first bytes put back, counting what was taken."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._head = b""
        self.size = 0

    def peek(self, size: int) -> bytes:
        while len(self._head) < size and (chunk := self._stream.read(size - len(self._head))):
            self._head += chunk
        return self._head

    def read(self, size: int, /) -> bytes:
        if self._head:
            chunk, self._head = self._head[:size], self._head[size:]
            if len(chunk) < size:
                chunk += self._stream.read(size - len(chunk))
        else:
            chunk = self._stream.read(size)
        self.size += len(chunk)
        return chunk


def _content(form: str, source: _Counted) -> Stream:
    if form == "zstd":
        return _ZstdContent(source)
    if form == "gzip":
        from isal import igzip_lib

        def gunzip() -> Decoder:
            decoder: Decoder = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            return decoder

        damaged = cast(type[Exception], igzip_lib.IsalError)
        return Members(source, form, gunzip, (damaged,))
    if form == "xz":
        import lzma

        def unxz() -> Decoder:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=1 << 30)

        return Members(source, form, unxz, (lzma.LZMAError,))
    import bz2

    return Members(source, form, bz2.BZ2Decompressor, (OSError, ValueError))


class _ZstdContent:
    """Content of zstd frames. libzstd's reader takes an early end for the end, so frames are followed here
    too, and what they promise is counted.
    """

    def __init__(self, source: _Counted) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._given = 0
        self._frames = Frames(source)
        # 128 MiB is the window a conforming decoder may refuse beyond; `zstd --ultra -22` needs all of it.
        unpack = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        self._reader = unpack.stream_reader(
            cast(IO[bytes], self._frames), read_size=1 << 17, read_across_frames=True
        )

    def read(self, size: int, /) -> bytes:
        try:
            found = self._reader.read(size)
        except self._error as error:
            raise InvalidArchive(f"the zstd stream is damaged: {error}") from None
        self._given += len(found)
        if size and not found and self._given < self._frames.promised:
            raise InvalidArchive("the zstd stream is damaged: it has less content than it says")
        return found
