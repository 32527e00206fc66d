"""An image or an index into a repository: blobs in parallel, each only if it is not there; then child
manifests, the index, and at the very end the tags (S89). Blobs that are not in the local store are mounted
or streamed from where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field

from oci.blobs import BlobStore
from oci.data import dataclass
from oci.digest import Digest
from oci.errors import BlobNotFound, WrongContent
from oci.image import index_of
from oci.model import Descriptor
from oci.registry.body import Outgoing, PiecesBody
from oci.registry.moving import Track, Watch, together, unwatched
from oci.registry.patience import Interrupted
from oci.registry.pull import Document, Tree
from oci.registry.repository import Repository, as_referrer, referrers_tag
from oci.registry.upload import Source, StoredBlob, Upload, mount

Elsewhere = Mapping[Digest, Sequence[Repository]]
"""Repositories, opened for reading, that have a blob; those of the target's own registry come first."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """What goes into one repository: a tree, where its blobs are, and under which tags it ends (none: by
    digest)."""

    tree: Tree
    store: BlobStore | None = None
    elsewhere: Elsewhere = field(default_factory=dict, hash=False)
    tags: tuple[str, ...] = ()
    skip: frozenset[Digest] = frozenset()
    chunk: int = 0


def ship(target: Repository, shipment: Shipment, watch: Watch = unwatched) -> Descriptor:
    """Push. Raises BlobNotFound before anything is sent if a blob is nowhere; else RegistryError and its
    children."""
    blobs = [blob for blob in shipment.tree.blobs if blob.digest not in shipment.skip]
    _check_all_there(blobs, shipment)

    def task(blob: Descriptor) -> Callable[[], None]:
        return lambda: _push_blob(target, blob, shipment, watch)

    largest_first = sorted(blobs, key=lambda blob: -blob.size)
    together([task(blob) for blob in largest_first], target.calls.parallel, target.stop)
    for document in shipment.tree.documents[:-1]:
        _put(target, document, document.descriptor.digest)
    root = shipment.tree.documents[-1]
    for locator in shipment.tags or (root.descriptor.digest,):
        _put(target, root, locator)
    return root.descriptor


def _check_all_there(blobs: Sequence[Descriptor], shipment: Shipment) -> None:
    for blob in blobs:
        here = shipment.store is not None and blob.digest in shipment.store
        if not (here or blob.digest in shipment.elsewhere or blob.urls):
            raise BlobNotFound(f"{blob.digest} is neither in the local store nor known to be in a registry")


def _push_blob(target: Repository, blob: Descriptor, shipment: Shipment, watch: Watch) -> None:
    track = Track(blob, watch)
    if target.blob_size(blob.digest) is not None:
        track.end("present")
        return
    others = shipment.elsewhere.get(blob.digest, ())
    session = ""
    for other in [other for other in others if other.endpoint.address == target.endpoint.address]:
        answer = mount(target, blob, other.path)
        if answer is None:
            track.end("mounted")
            return
        session = answer or session
    source = _source(blob, shipment, others)
    if source is None:
        track.end("present")  # a layer that lives at its `urls` only
        return
    try:
        upload = Upload(target, blob, source, track, chunk=shipment.chunk)
        upload.run(session)
    finally:
        source.close()
    track.end("mounted" if upload.mounted else "done")


def _source(blob: Descriptor, shipment: Shipment, others: Sequence[Repository]) -> Source | None:
    if shipment.store is not None and blob.digest in shipment.store:
        return StoredBlob(shipment.store, blob.digest)
    return RemoteBlob(others, blob) if others else None


class RemoteBlob:
    """A blob on its way from one registry to another: nothing of it is kept here."""

    def __init__(self, sources: Sequence[Repository], descriptor: Descriptor) -> None:
        self._sources = sources
        self._descriptor = descriptor

    def body(self, offset: int, count: int, track: Track) -> Outgoing:
        """The bytes from `offset` on, as they arrive."""
        return PiecesBody(_bounded(self._pieces(offset), count), count, progress=track.add)

    def close(self) -> None:
        """Nothing is open between bodies."""

    def _pieces(self, offset: int) -> Iterator[bytes]:
        """The bytes, whole only if they are right: the last piece is held back until the digest is known."""
        import hashlib

        digest, size = self._descriptor.digest, self._descriptor.size
        hasher = hashlib.new(digest.algorithm)
        position, held = offset, b""
        for piece in self._stream(offset):
            if held:
                yield held
            held = piece
            position += len(piece)
            if position > size:
                raise WrongContent(f"{self._sources[0]}: {digest} goes on after its {size} bytes")
            if not offset:
                hasher.update(piece)
        if not offset and hasher.hexdigest() != digest.hex:
            raise WrongContent(f"{self._sources[0]}: expected the bytes of {digest}, got others")
        if held:
            yield held

    def _stream(self, offset: int) -> Iterator[bytes]:
        """The bytes from `offset` on, through drops and from one source after the other."""
        source = self._sources[0]
        attempts = source.calls.attempts(source.endpoint)
        position = offset
        while position < self._descriptor.size:
            before = position
            try:
                with source.open_blob(self._descriptor.digest, position, self._descriptor.size) as answer:
                    skip = position if answer.status == 200 else 0
                    for piece in answer.pieces():
                        if skip:
                            piece, skip = piece[skip:], max(0, skip - len(piece))
                        if piece:
                            position += len(piece)
                            yield piece
                if position < self._descriptor.size:
                    raise Interrupted(f"{source}: {self._descriptor.digest} ended after {position} bytes")
            except Interrupted as error:
                if position > before:
                    attempts.progressed()
                source.calls.failed(error, attempts)


def _bounded(pieces: Iterator[bytes], count: int) -> Iterator[bytes]:
    for piece in pieces:
        if count <= 0:
            return
        yield piece[:count]
        count -= len(piece)


def _put(target: Repository, document: Document, locator: str | Digest) -> None:
    """Put one manifest, and where the registry does not do it, note it in its subject's list of referrers."""
    kept = target.put_manifest(document.content, document.descriptor.media_type, locator)
    subject = document.value.subject
    if subject is None or kept:
        return
    entry = as_referrer(document.descriptor, document.value)
    listed = target.referrers_by_tag(subject.digest)
    if all(item.digest != entry.digest for item in listed):
        _list(target, subject.digest, (*listed, entry))


def unlist(target: Repository, digest: Digest, subject: Digest) -> None:
    """Take a deleted manifest out of its subject's list, where the list is a tag of ours to keep."""
    listed = target.referrers_by_tag(subject)
    rest = tuple(item for item in listed if item.digest != digest)
    if len(rest) != len(listed):
        _list(target, subject, rest)


def _list(target: Repository, subject: Digest, entries: tuple[Descriptor, ...]) -> None:
    raw = index_of(entries)
    target.put_manifest(raw.content, raw.value.media_type, referrers_tag(subject))
