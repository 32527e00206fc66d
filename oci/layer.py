"""Layers: tar blocks on one side, a blob with two digests on the other (image-spec: layer.md, config.md).

    with LayerSink(codec("gzip"), store) as sink:
        tar = TarWriter(sink)
        ...
        tar.finish()
        layer = sink.finish()

Nothing is buffered whole: a sink holds a few blocks of 1 MiB. Hashing, compressing and writing run in
threads beside the producer (all release the GIL) once a layer is larger than one block.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from queue import Queue
from types import TracebackType
from typing import BinaryIO, Protocol

from oci.compress import DEFAULT_LIMITS, NO_LIMITS, Codec, Limits, open_compressed
from oci.data import dataclass
from oci.digest import Digest
from oci.errors import DigestMismatch, InvalidArchive
from oci.media_types import LAYER_CODECS
from oci.tar import BLOCK, TarReader

_AHEAD = 4
"""Blocks waiting for a lane."""


class Writer(Protocol):
    """A blob under construction, as `oci.blobs.BlobWriter` is one."""

    def write(self, data: bytes, /) -> object: ...
    def commit(self, expected: Digest | None = None) -> Digest: ...


class Store(Protocol):
    """Of a blob store, what layers need."""

    def open(self, digest: Digest) -> BinaryIO: ...
    def writer(self, *, hashing: bool = True) -> AbstractContextManager[Writer]: ...


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer in a store. Sizes are in bytes; `diff_id` is the digest of the tar, `digest` that of the
    blob.
    """

    media_type: str
    digest: Digest
    size: int
    diff_id: Digest
    uncompressed_size: int


class LayerSink:
    """Takes the blocks of a tar and makes a layer of them. Leaving the `with` block without `finish` leaves
    no trace.

    Errors of the threads (a full disk, say) are raised by the next call.
    """

    def __init__(self, codec: Codec, store: Store) -> None:
        self._codec = codec
        self._store = store
        self._exit = ExitStack()
        self._lanes: list[_Lane] = []
        self._first: bytes | None = None
        self._sha256 = hashlib.sha256()
        self._size = 0
        self._blob_size = 0

    def __enter__(self) -> LayerSink:
        self._compressor = self._codec.compressor()
        # An uncompressed layer's diffID is its blob's digest: computed once, in a thread beside the writing
        # one.
        self._hashing = self._codec.name != "uncompressed"
        self._writer = self._exit.enter_context(self._store.writer(hashing=self._hashing))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lane in self._lanes:
            lane.stop()
        self._exit.__exit__(kind, error, trace)

    def __call__(self, block: bytes) -> None:
        """Take the next bytes of the tar; blocks of exactly 1 MiB are taken without copying."""
        self._size += len(block)
        if self._first is None:
            self._first = block
            return
        if not self._lanes:
            self._start(self._first)
        for lane in self._lanes:
            lane.put(block)

    def finish(self, expected: Digest | None = None) -> Layer:
        """The layer, now in the store. Raises DigestMismatch, leaving no trace, when its diffID is not
        `expected`.
        """
        for lane in self._lanes:
            lane.finish()
        if not self._lanes and self._first:
            for work in self._work():
                work(self._first)
        self._write(self._compressor.finish())
        diff_id = Digest("sha256", self._sha256.hexdigest())
        if expected and diff_id != expected:
            raise DigestMismatch(f"the layer's content is {diff_id}; its diffID says {expected}")
        digest = self._writer.commit(None if self._hashing else diff_id)
        return Layer(self._codec.media_type, digest, self._blob_size, diff_id, self._size)

    def _work(self) -> list[Callable[[bytes], object]]:
        return [self._sha256.update, self._pack]

    def _pack(self, block: bytes) -> None:
        self._write(self._compressor.compress(block))

    def _write(self, packed: bytes) -> None:
        if packed:
            self._blob_size += len(packed)
            self._writer.write(packed)

    def _start(self, first: bytes) -> None:
        self._lanes = [_Lane(work) for work in self._work()]
        for lane in self._lanes:
            lane.put(first)


class _Lane:
    """A thread doing one piece of work for each block, in order. A failure never blocks the producer."""

    def __init__(self, work: Callable[[bytes], object]) -> None:
        self._work = work
        self._queue: Queue[bytes | None] = Queue(_AHEAD)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="layer", daemon=True)
        self._thread.start()

    def put(self, block: bytes) -> None:
        if self._error is not None:
            raise self._error
        self._queue.put(block)

    def finish(self) -> None:
        """Wait for all blocks; raise what went wrong with one."""
        self.stop(discard=False)
        if self._error is not None:
            raise self._error

    def stop(self, discard: bool = True) -> None:
        """End the thread, by default without working on what still waits. May be called again."""
        if self._thread.is_alive():
            self._discard = discard
            self._queue.put(None)
            self._thread.join()

    _discard = False

    def _run(self) -> None:
        while (block := self._queue.get()) is not None:
            if self._error is not None or self._discard:
                continue
            try:
                self._work(block)
            except BaseException as error:  # handed to the producer, which raises it
                self._error = error


def write_layer(tar: Iterable[bytes], codec: Codec, store: Store) -> Layer:
    """One pass: tar blocks -> diffID, codec -> blob digest -> store. Nothing is buffered whole."""
    with LayerSink(codec, store) as sink:
        for block in tar:
            sink(block)
        return sink.finish()


@contextmanager
def read_layer(
    store: Store,
    digest: Digest,
    media_type: str,
    *,
    limits: Limits = DEFAULT_LIMITS,
    diff_id: Digest | None = None,
) -> Iterator[TarReader]:
    """The entries of a layer's tar; iterating to the end has verified the blob.

    With `diff_id` the content is held against it at the end of the block: a stranger's config may claim the
    diffIDs of another image, by which unpacked layers are known.

    The format is found by magic bytes, since registries hold layers whose media type names another one.
    Raises InvalidArchive for a media type that is no layer's, BlobNotFound, DigestMismatch, LimitExceeded.
    """
    if media_type not in LAYER_CODECS:
        raise InvalidArchive(
            f"{media_type} is no layer media type; expected one of {', '.join(LAYER_CODECS)}"
        )
    with store.open(digest) as blob:
        content = open_compressed(blob, allow=("gzip", "zstd", "uncompressed"), limits=limits)
        if diff_id is None:
            yield TarReader(content, limits)
            while blob.read(BLOCK):  # a damaged blob shows at its very end
                pass
            return
        with closing(_Hashed(content.read, diff_id.algorithm)) as hashed:
            yield TarReader(hashed, limits)
            hashed.check(diff_id)


class _Hashed:
    """A stream whose bytes are hashed by a thread of their own, on their way to the reader."""

    def __init__(self, read: Callable[[int], bytes], algorithm: str) -> None:
        self._read = read
        self._hash = hashlib.new(algorithm)
        self._lane = _Lane(self._hash.update)

    def read(self, size: int, /) -> bytes:
        if chunk := self._read(size):
            self._lane.put(chunk)
        return chunk

    def check(self, expected: Digest) -> None:
        """Read what is left and compare. Raises DigestMismatch."""
        while self.read(BLOCK):
            pass
        self._lane.finish()
        if self._hash.hexdigest() != expected.hex:
            actual = f"{expected.algorithm}:{self._hash.hexdigest()}"
            raise DigestMismatch(f"the layer's content is {actual}; its image's config says {expected}")

    def close(self) -> None:
        self._lane.stop()


def recompress(layer: Layer, codec: Codec, store: Store) -> Layer:
    """`layer` in another compression, in the same store. Raises DigestMismatch unless its diffID stays the
    same.
    """
    with store.open(layer.digest) as blob, LayerSink(codec, store) as sink:
        content = open_compressed(blob, allow=("gzip", "zstd", "uncompressed"), limits=NO_LIMITS)
        while block := _full_block(content.read):
            sink(block)
        return sink.finish(layer.diff_id)


def _full_block(read: Callable[[int], bytes]) -> bytes:
    parts = [read(BLOCK)]
    missing = BLOCK - len(parts[0])
    while missing and (chunk := read(missing)):
        missing -= len(chunk)
        parts.append(chunk)
    return parts[0] if len(parts) == 1 else b"".join(parts)
