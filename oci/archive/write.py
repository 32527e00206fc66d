"""Writing image archives: a layout in a tar, sorted, with fixed modes and times, so that bytes repeat."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

from oci import platforms
from oci.blobs import BlobStore
from oci.data import dataclass
from oci.digest import Digest
from oci.durable import write_all
from oci.errors import BlobNotFound, DigestMismatch, InvalidDocument
from oci.image import Image, images, verify, walk
from oci.layout import named, version_document, without_names
from oci.model import Descriptor, Index, Platform
from oci.progress import Progress, no_progress
from oci.reference import DEFAULT_TAG, Reference
from oci.strict_json import dumps
from oci.tar import Entry, Kind
from oci.tar.write import header

_END = bytes(1024)
_STDERR = 2


@dataclass(frozen=True, slots=True)
class Named:
    """An image (or an index of some) and the names it has in an archive."""

    descriptor: Descriptor
    names: tuple[Reference, ...] = ()


def write_archive(
    what: Sequence[Named],
    store: BlobStore,
    out: BinaryIO | int,
    *,
    docker: bool = False,
    platform: Platform | None = None,
    progress: Progress = no_progress,
) -> int:
    """Write images to a file, or to a pipe; the archive's size in bytes.

    `out` is a descriptor or has one, which is written where it stands. Before the first byte goes to a pipe
    or to standard output, where nothing can be taken back, all is read and found sound. With `docker`, a
    `manifest.json` is added; it has room for one platform of an index: `platform`, or the host's, or the
    first. Blobs that this process has not verified yet are verified on the way. Raises BlobNotFound,
    DigestMismatch; the archive is then useless.
    """
    fd = out if isinstance(out, int) else _descriptor_of(out)
    documents = {
        "index.json": _index(what).to_json(),
        "oci-layout": version_document(),
    }
    if docker:
        documents["manifest.json"] = _docker_manifest(what, store, platform or platforms.host())
    blobs = _blobs(what, store)
    if fd <= _STDERR or not stat.S_ISREG(os.fstat(fd).st_mode):
        verify(store, *(each.descriptor for each in what))
    size = 0
    for entry in _directories(blobs):
        size += _put(fd, entry, b"")
    for digest in sorted(blobs):
        size += _send(fd, store, blobs[digest], progress)
    for name in sorted(documents):
        size += _put(fd, _file(name, len(documents[name])), documents[name])
    write_all(fd, _END)
    return size + len(_END)


def _descriptor_of(out: BinaryIO) -> int:
    out.flush()
    return out.fileno()


def _index(what: Sequence[Named]) -> Index:
    """`index.json`: an entry for each name. The short name is the tag, as other tools have it."""
    entries = []
    for item in what:
        plain = without_names(item.descriptor)
        for name in item.names:
            annotations = {**plain.annotations, **named(str(name), name.tag or DEFAULT_TAG)}
            entries.append(replace(plain, annotations=annotations))
        if not item.names:
            entries.append(plain)
    return Index(tuple(entries))


def _docker_manifest(what: Sequence[Named], store: BlobStore, platform: Platform) -> bytes:
    """`manifest.json`, which `docker load` prefers: paths of config and layers, lowest first, and tags."""
    entries = []
    for item in what:
        image = Image.load(store, _one_platform(item.descriptor, store, platform))
        entries.append(
            {
                "Config": blob_path(image.id),
                "RepoTags": [replace(name, digest=None).familiar() for name in item.names if name.tag],
                "Layers": [blob_path(layer.digest) for layer in image.layers],
            }
        )
    return dumps(entries)


def _one_platform(descriptor: Descriptor, store: BlobStore, platform: Platform) -> Descriptor:
    here = [each for each in images(store, descriptor) if each.digest in store]
    if not here:
        raise InvalidDocument(f"{descriptor.digest} holds no image, so there is nothing for docker to load")
    return here[platforms.best(platform, [each.platform for each in here]) or 0]


def _blobs(what: Sequence[Named], store: BlobStore) -> dict[Digest, Descriptor]:
    """All that must be in the archive. Layers that are only ever fetched from `urls` may be missing, and of
    an index the images that are not in the store."""
    blobs: dict[Digest, Descriptor] = {}
    for item in what:
        for descriptor in walk(store, item.descriptor, sparse=True):
            if descriptor.digest in store:
                blobs[descriptor.digest] = descriptor
            elif not descriptor.urls:
                raise BlobNotFound(f"{descriptor.digest} ({descriptor.media_type}) is not in {store.root}")
    return blobs


def _directories(blobs: dict[Digest, Descriptor]) -> Iterator[Entry]:
    algorithms = {"sha256"} | {digest.algorithm for digest in blobs}
    for name in ("blobs", *(f"blobs/{algorithm}" for algorithm in sorted(algorithms))):
        yield Entry(name.encode(), Kind.DIRECTORY, 0o755)


def _file(name: str, size: int) -> Entry:
    return Entry(name.encode(), Kind.FILE, 0o644, size=size)


def _put(fd: int, entry: Entry, content: bytes) -> int:
    record = header(entry) + content + _padding(len(content))
    write_all(fd, record)
    return len(record)


def _send(fd: int, store: BlobStore, blob: Descriptor, progress: Progress) -> int:
    size = store.size(blob.digest)
    if size != blob.size:
        raise DigestMismatch(
            f"blob {blob.digest} is damaged: {size} bytes; its descriptor promises {blob.size}",
            blob=str(blob.digest),
        )
    head = header(_file(blob_path(blob.digest), size))
    write_all(fd, head)
    sent = store.send(blob.digest, fd, progress)
    if sent != size:
        raise DigestMismatch(f"blob {blob.digest} changed while it was read", blob=str(blob.digest))
    write_all(fd, _padding(size))
    return len(head) + size + len(_padding(size))


def _padding(size: int) -> bytes:
    return bytes(-size % 512)


def blob_path(digest: Digest) -> str:
    """A blob's place in a layout, with forward slashes."""
    return f"blobs/{digest.algorithm}/{digest.hex}"
