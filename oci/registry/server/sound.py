"""Manifests of the store as a registry reads them: a damaged one is put aside where it is met, and from then
on it is not here. A push, or the registry behind a proxy, brings it again.
"""

from __future__ import annotations

import sys
from contextlib import suppress

from oci.blobs import BlobStore
from oci.digest import Digest
from oci.durable import CHUNK, VerifiedReader
from oci.errors import BlobNotFound, DigestMismatch, LimitExceeded, OciError
from oci.model import Descriptor
from oci.strict_json import MAX_DOCUMENT


class Damaged(BlobNotFound):
    """It was in the store, but was damaged; now it is not there."""


def read(blobs: BlobStore, digest: Digest) -> bytes:
    """A manifest's bytes. Raises BlobNotFound, Damaged for a damaged one, and LimitExceeded."""
    fd = blobs.open_fd(digest)
    with VerifiedReader(fd, digest) as reader:
        content = bytearray()
        try:
            while chunk := reader.read(CHUNK):
                if len(content) <= MAX_DOCUMENT:
                    content += chunk
        except DigestMismatch as error:
            _put_aside(blobs, digest, fd, error)
        if len(content) > MAX_DOCUMENT:
            raise LimitExceeded(f"{digest} is larger than the {MAX_DOCUMENT} bytes that a manifest may have")
        blobs.trust(digest, fd)
    return bytes(content)


def document(blobs: BlobStore, descriptor: Descriptor) -> bytes:
    """The same for a pointer, which must tell the truth. Raises DigestMismatch where it does not."""
    return descriptor.check(read(blobs, descriptor.digest))


def is_here(blobs: BlobStore, digest: Digest) -> bool:
    """Whether a manifest is in the store and sound. Nothing is read that was found so before and is untouched
    since."""
    with suppress(OciError):
        if not blobs.is_fresh(digest):
            read(blobs, digest)
        return True
    return False


def _put_aside(blobs: BlobStore, digest: Digest, fd: int, error: DigestMismatch) -> None:
    blobs.quarantine_open(digest, fd)
    sys.stderr.write(
        f"error: the manifest {digest} in {blobs.root} is damaged: it is put aside, and not known until it "
        "is pushed again or fetched from elsewhere\n"
    )
    raise Damaged(f"{error}; it was put aside: push it again") from None
