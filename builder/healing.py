"""Damaged blobs of the store: put aside where they are met, so that they are fetched or made again (R16)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from oci import media_types
from oci.digest import Digest
from oci.errors import BlobNotFound, DigestMismatch, OciError
from oci.model import Manifest, parse

if TYPE_CHECKING:
    from builder.images import Images
    from oci.blobs import BlobStore
    from oci.model import Descriptor

DOCUMENTS = media_types.INDEXES | media_types.MANIFESTS


def put_aside(images: Images, error: BaseException) -> Digest | None:
    """The damaged blob that `error` or what led to it tells of, now out of the way; None if there is none.

    What the index then names in vain is named no more. The blob is read again first: nothing sound is moved.
    """
    digest = damaged(error)
    if digest is None or not quarantine(images.layout.blobs, digest):
        return None
    forget_unreadable(images)
    return digest


def damaged(error: BaseException) -> Digest | None:
    """The blob of a store that `error` or what led to it calls damaged."""
    for each in _chain(error):
        if isinstance(each, DigestMismatch) and each.blob:
            return Digest.parse(each.blob)
    return None


def quarantine(blobs: BlobStore, digest: Digest) -> str:
    """Where the blob went, "" for one that is sound or not there."""
    try:
        blobs.verify(digest)
    except DigestMismatch:
        return blobs.quarantine(digest)
    except BlobNotFound:
        pass
    return ""


def forget_unreadable(images: Images) -> list[str]:
    """Take names away that lead to no readable manifest or config, so that they are asked for anew; which."""
    gone = []
    with images.layout.editing() as names:
        for entry in list(names.entries):
            if unreadable(images.layout.blobs, entry):
                names.entries.remove(entry)
                gone.append(shown(entry))
    return gone


def unreadable(blobs: BlobStore, entry: Descriptor) -> str:
    """Why an entry of the index cannot be used: its manifest or config is not there or wrong; "" if it can.

    Layers may be elsewhere, and of an index some platforms' images.
    """
    if entry.media_type not in DOCUMENTS:
        return "" if entry.digest in blobs else f"{entry.digest} is not there"
    try:
        document = parse(blobs.document(entry), entry.media_type)
        if isinstance(document, Manifest):
            blobs.read(document.config.digest)
        elif document.manifests and not any(each.digest in blobs for each in document.manifests):
            return "none of the images of its index is there"
    except OciError as error:
        return str(error)
    return ""


def shown(entry: Descriptor) -> str:
    """An entry of the index as people know it."""
    from oci.layout import name_of

    return name_of(entry) or str(entry.digest)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
