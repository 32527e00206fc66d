"""What a step gives: a stack of parts, each one layer that may still be in the making and may become a
directory.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import field, replace
from functools import partial
from typing import TYPE_CHECKING

from builder.interrupts import LISTEN_S, listen
from builder.snapshot.below import Lowers
from oci.data import dataclass
from oci.digest import chain_ids
from oci.errors import InvalidArchive, LimitExceeded, UnsafePath
from oci.layer import Layer

if TYPE_CHECKING:
    from builder.snapshot.base import Snapshotter
    from builder.snapshot.view import IndexLayer
    from oci.blobs import BlobStore
    from oci.image import Image
    from oci.tar import Entry, TarReader

Unpack = Callable[["Part", Lowers], str]
"""Makes the directory of a part that has none; the directories below it are given, topmost first."""

LARGE = 1 << 20
"""From this size of its blob on, in bytes, a layer is unpacked beside others (decision 0013)."""


@dataclass(slots=True, eq=False)
class Part:
    """One layer of a result. `layer` gives None for an empty diff.

    `directory` holds the layer's files in overlay form: a RUN's upper directory, or what `unpack` made of
    the blob; empty as long as nobody asked. `index` tells what a COPY wrote, for looking things up without
    a directory. `fetch` makes the blob present before it is read, and tells whether strangers wrote it.
    """

    layer: Future[Layer | None]
    name: str
    directory: str = ""
    index: Callable[[], IndexLayer] | None = None
    fetch: Callable[[], bool] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The parts of a step and of all below it, lowest first, and the key that stands for them."""

    key: str
    parts: tuple[Part, ...] = ()

    def on_top(self, key: str, part: Part | None) -> Result:
        """This with one part more; None when nothing changed."""
        return Result(key, self.parts if part is None else (*self.parts, part))


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """What history says of one step: its layer and when it first ran."""

    layer: Future[Layer | None]
    created: str


def directories(result: Result, unpack: Unpack, abreast: int = 0) -> tuple[str, ...]:
    """The directories of `result`, topmost first, as an overlay wants its lowers. Missing ones are made,
    lowest first; large layers up to `abreast` at a time (0: as many as there are cores).
    """
    if sum(_is_large(part) for part in result.parts) > 1:
        _make_abreast(result.parts, unpack, abreast or len(os.sched_getaffinity(0)))
    found: tuple[str, ...] = ()
    for part in result.parts:
        found = _above(found, _directory(part, unpack, found))
    return found


def _is_large(part: Part) -> bool:
    """Whether a layer that is to be unpacked is worth a thread."""
    if part.directory or not part.layer.done() or part.layer.exception() is not None:
        return False
    layer = part.layer.result()
    return layer is not None and layer.size >= LARGE


def _directory(part: Part, unpack: Unpack, below: Lowers) -> str:
    """A part's directory, made if it is missing; "" for a part with nothing in it."""
    with part.lock:
        if not part.directory and not _is_empty(part):
            part.directory = unpack(part, below)
    return part.directory


def _above(below: tuple[str, ...], directory: str) -> tuple[str, ...]:
    return (directory, *below) if directory else below


def _make_abreast(parts: Sequence[Part], unpack: Unpack, abreast: int) -> None:
    """Make what is missing, several at a time. None waits but for parts below it, which were begun before."""
    from concurrent.futures import ThreadPoolExecutor

    futures: list[Future[str]] = []

    def below(position: int) -> tuple[str, ...]:
        return tuple(filter(None, (future.result() for future in reversed(futures[:position]))))

    with ThreadPoolExecutor(abreast, "unpacking") as pool:
        for position, part in enumerate(parts):
            futures.append(pool.submit(_directory, part, unpack, partial(below, position)))
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()


def parts_of(image: Image, fetch: Callable[[int], bool] | None = None) -> tuple[Part, ...]:
    """The layers of an image, each named by its chainID. `fetch` makes one of them present, by its number."""
    parts: list[Part] = []
    diff_ids = image.config.value.diff_ids
    for descriptor, diff_id, chain in zip(image.layers, diff_ids, chain_ids(diff_ids), strict=True):
        layer = Layer(descriptor.media_type, descriptor.digest, descriptor.size, diff_id, 0)
        bring = partial(fetch, len(parts)) if fetch else None
        parts.append(Part(done(layer), f"chain-{chain.hex}", fetch=bring))
    return tuple(parts)


def unpacker(snapshots: Snapshotter, blobs: BlobStore, clock: int | None = None) -> Unpack:
    """How a part's directory is made: from its blob, with the times that steps see when there is a clock.

    What strangers wrote is held against its diffID, which its chainID is made of, and against limits. What
    was written or verified here (by load, import) may have any size.
    """
    edit = _reclocked(clock) if clock is not None else None

    def unpack(part: Part, lowers: Lowers) -> str:
        layer = part.layer.result()
        assert layer is not None
        return snapshots.unpack(part.name, lambda: _read(part, layer, blobs), lowers, edit)

    return unpack


def packed(part: Part, blobs: BlobStore, folder: str, clock: int | None = None) -> IndexLayer:
    """A part as a layer to look into, without a directory: for a process that may not give files their
    owners. Contents go to the file system of the host directory `folder`.
    """
    from builder.snapshot.packed import packed_layer

    layer = part.layer.result()
    assert layer is not None
    edit = _reclocked(clock) if clock is not None else None
    return packed_layer(lambda: _read(part, layer, blobs), folder, edit)


@contextmanager
def _read(part: Part, layer: Layer, blobs: BlobStore) -> Iterator[TarReader]:
    """The layer's archive. Raises DigestMismatch, whatever else it looks like, when its blob is damaged."""
    from oci.compress import DEFAULT_LIMITS, NO_LIMITS
    from oci.layer import read_layer

    strange = part.fetch is not None and part.fetch()
    limits, diff_id = (DEFAULT_LIMITS, layer.diff_id) if strange else (NO_LIMITS, None)
    try:
        with read_layer(blobs, layer.digest, layer.media_type, limits=limits, diff_id=diff_id) as reader:
            yield reader
    except (InvalidArchive, LimitExceeded, UnsafePath):
        blobs.verify(layer.digest)
        raise


def merge(result: Result, blobs: BlobStore, folder: str, clock: int | None = None) -> None:
    """Write the merged files of `result` into the empty host directory `folder`."""
    from oci.apply import apply

    edit = _reclocked(clock) if clock is not None else None
    for part in result.parts:
        if (layer := part.layer.result()) is not None:
            with _read(part, layer, blobs) as reader:
                apply(reader, folder, style="plain", filter=edit)


def _reclocked(clock: int) -> Callable[[Entry], Entry | None]:
    """Entries of a layer with the times that steps see: what became the clock is fixed again."""
    from builder.snapshot.times import FIXED

    def edit(entry: Entry) -> Entry:
        return replace(entry, mtime=FIXED) if entry.mtime == clock else entry

    return edit


def _is_empty(part: Part) -> bool:
    return part.layer.result() is None


def done(layer: Layer | None) -> Future[Layer | None]:
    """A future that is done already."""
    future: Future[Layer | None] = Future()
    future.set_result(layer)
    return future


def settle(futures: list[Future[Layer | None]]) -> None:
    """Wait for all; raise the first error. An interrupt that was dropped is heard meanwhile."""
    waiting = set(futures)
    while waiting:
        listen()
        ended, waiting = wait(waiting, LISTEN_S, return_when=FIRST_EXCEPTION)
        for future in ended:
            future.result()


def forget(futures: list[Future[Layer | None]]) -> None:
    """Wait for all, whatever they say: the build failed for another reason."""
    for future in futures:
        future.cancel()
        with suppress(BaseException):
            future.result()
