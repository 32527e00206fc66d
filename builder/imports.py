"""Images from a bare root file system, as `docker import` makes them: one layer, and a config of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from builder.errors import DockerfileError, UsageError
from oci.compress import codec, open_compressed
from oci.errors import InvalidArchive, UnsafePath
from oci.image import Image
from oci.layer import Layer, LayerSink
from oci.model import Descriptor, History, ImageConfig, Platform
from oci.tar import BLOCK, Entry, Kind, TarReader

if TYPE_CHECKING:
    from oci.blobs import BlobStore

_ALLOWED = (
    "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME",
    "WORKDIR",
)  # fmt: skip


def import_rootfs(
    stream: BinaryIO,
    store: BlobStore,
    *,
    platform: Platform,
    created: str,
    changes: Iterable[str] = (),
    message: str = "",
) -> Descriptor:
    """Store the image whose only layer is the tar in `stream` (gzip, zstd, xz and bzip2 are unpacked).

    `changes` are Dockerfile lines that set its config, `created` is RFC 3339, `message` is for its history.
    Raises InvalidArchive when `stream` is no tar or would leave its root, UsageError for other instructions.
    """
    bare = Image.scratch(platform)
    config = changed(bare, tuple(changes))
    with store.staging() as staging:
        layer = _layer(stream, staging)
        image = bare.with_config(config).append(layer, History(created, "", "", message or "imported"))
        descriptor = image.with_config(replace(image.config.value, created=created)).write(staging)
        staging.publish()
    return descriptor


def _layer(stream: BinaryIO, store: BlobStore) -> Layer:
    """The tar as a layer, byte for byte. Its entries are read on the way: what is no tar is refused now."""
    with LayerSink(codec("gzip", 1), store) as sink:
        try:
            copied = _Copied(open_compressed(stream).read, sink)
            _check_entries(TarReader(copied))
        except InvalidArchive as error:
            raise type(error)(f"this is no tar archive of a root file system: {error}") from None
        copied.rest()
        layer = sink.finish()
    if not layer.uncompressed_size:
        raise InvalidArchive("there is nothing to import: the archive has no bytes")
    return layer


def _check_entries(entries: Iterable[Entry]) -> None:
    """Refuse what could not be unpacked: names that leave the root, hard links to nothing."""
    files: set[bytes] = set()
    for entry in entries:
        if b".." in entry.name.split(b"/"):
            raise UnsafePath(f"the entry {entry} leaves the root")
        if entry.kind is Kind.HARDLINK and entry.link not in files:
            target = os.fsdecode(entry.link)
            raise InvalidArchive(
                f"{entry} is a hardlink to /{target}, which the archive does not hold before it"
            )
        if entry.kind is not Kind.DIRECTORY:
            files.add(entry.name)


class _Copied:
    """A stream that hands on all that is read from it, in whole blocks."""

    def __init__(self, read: Callable[[int], bytes], sink: LayerSink) -> None:
        self._read = read
        self._sink = sink
        self._held: list[bytes] = []
        self._size = 0

    def read(self, size: int = -1) -> bytes:
        chunk = self._read(size)
        self._held.append(chunk)
        self._size += len(chunk)
        if self._size >= BLOCK:
            self._hand_on()
        return chunk

    def rest(self) -> None:
        """Everything after the tar's end as well: the diffID is of the whole stream."""
        while self.read(BLOCK):
            pass
        self._hand_on()

    def _hand_on(self) -> None:
        if self._size:
            self._sink(b"".join(self._held))
        self._held, self._size = [], 0


@contextmanager
def _as_option() -> Iterator[None]:
    try:
        yield
    except DockerfileError as error:
        raise UsageError(f"--change: {error}", hint=error.hint) from None


def changed(image: Image, changes: tuple[str, ...]) -> ImageConfig:
    """The config of `image`, which has no ONBUILD, after some Dockerfile instructions. Raises UsageError for
    those that change no config.
    """
    for line in changes:
        word = line.split(None, 1)[0].upper() if line.split() else ""
        if word not in _ALLOWED:
            raise UsageError(f"--change {line!r}: {word or 'nothing'} cannot change a config",
                             hint=f"there are {', '.join(_ALLOWED)}")  # fmt: skip
    if not changes:
        return image.config.value
    from builder.frontend.lower import PlanOptions, plan
    from builder.source import SourceFile

    text = "\n".join(("FROM imported", *(line.replace("\n", " ") for line in changes), ""))
    with _as_option():
        options = PlanOptions(platform=image.platform, build_platform=image.platform)
        return plan(SourceFile("--change", text), options, lambda name, wanted, at: image).config
