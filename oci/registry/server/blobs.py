"""Blobs on their way out: whole, in part, or only asked after (distribution-spec: Pulling blobs; RFC 9110,
14).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import BlobNotFound, DigestMismatch, ManifestUnknown
from oci.registry.server.documents import digest_of
from oci.registry.server.problems import Problem
from oci.registry.server.proxy import Lent, Proxy
from oci.registry.server.repositories import Repositories
from oci.registry.server.request import Request
from oci.registry.server.response import File, Response
from oci.registry.server.transfers import Transfer

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
RENEWED_SECONDS = 3600.0
"""How old a link may become before a client that asks for its blob renews it; far below a collector's age."""
_CACHED = ("Cache-Control", "max-age=31536000, immutable")


class Blobs:
    """The endpoint /v2/<name>/blobs/<digest>."""

    def __init__(self, repositories: Repositories, elsewhere: Sequence[Proxy | Lent]) -> None:
        self._repositories = repositories
        self._store = repositories.blobs
        self._elsewhere = elsewhere

    def get(self, request: Request, name: str, what: str) -> Response:
        """The blob, or the part of it that was asked for."""
        digest = digest_of(what)
        if digest is None:
            raise unknown(what)
        if not self._repositories.has_blob(name, digest):
            if request.method == "HEAD":
                return self._elsewhere_known(request, name, digest)
            transfer = self._fetched(name, digest)
            if not (matches(request, digest) or "range" in request.headers):
                return Response(200, _about(digest), transfer)
            transfer.finished()
        if request.method == "HEAD":  # who is told that it is here will not push it
            self._repositories.links.renew(name, digest, RENEWED_SECONDS)
        try:
            fd = self._store.open_fd(digest)
        except BlobNotFound:
            raise unknown(what) from None
        try:
            return self._answer(request, digest, fd)
        except DigestMismatch as error:
            self._store.quarantine_open(digest, fd)
            os.close(fd)
            text = "it was put aside: the next request gets it from elsewhere, or push it again"
            raise Problem(500, "UNKNOWN", f"{error}; {text}") from None
        except BaseException:
            os.close(fd)
            raise

    def delete(self, request: Request, name: str, what: str) -> Response:
        """Take the blob out of the repository."""
        digest = digest_of(what)
        if digest is None or not self._repositories.remove_blob(name, digest):
            raise unknown(what)
        return Response(202)

    def _fetched(self, name: str, digest: Digest) -> Transfer:
        """The download of a blob that is not here. Raises Problem when nobody has it."""
        for place in self._elsewhere:
            transfer = place.blob(name, digest)
            if transfer is not None:
                try:
                    transfer.started()
                except ManifestUnknown:
                    continue
                return transfer
        raise unknown(str(digest))

    def _elsewhere_known(self, request: Request, name: str, digest: Digest) -> Response:
        """The answer to who only asks after a blob that is not here. Raises Problem when nobody has it."""
        for place in self._elsewhere:
            descriptor = place.known(name, digest)
            if descriptor is not None:
                if matches(request, digest):
                    return Response(304, _about(digest))
                return Response(200, _about(digest), length=descriptor.size)
        raise unknown(str(digest))

    def _answer(self, request: Request, digest: Digest, fd: int) -> Response:
        size = os.fstat(fd).st_size
        if not size and not self._store.is_verified(digest, fd):  # nothing will be read of it later
            self._store.verify(digest)
        headers = _about(digest)
        if matches(request, digest):
            os.close(fd)
            return Response(304, headers)
        part = None if request.method == "HEAD" else _part(request, digest, size)
        if part is None:
            check = None if self._store.is_verified(digest, fd) else _Digesting(self._store, digest, fd)
            return Response(200, headers, File(fd, 0, size, check))
        if not self._store.is_verified(digest, fd):
            self._store.verify(digest)
        first, last = part
        headers.append(("Content-Range", f"bytes {first}-{last}/{size}"))
        return Response(206, headers, File(fd, first, last - first + 1))


def _about(digest: Digest) -> list[tuple[str, str]]:
    return [
        ("Content-Type", "application/octet-stream"),
        ("Docker-Content-Digest", str(digest)),
        ("ETag", f'"{digest}"'),
        ("Accept-Ranges", "bytes"),
        _CACHED,
    ]


@dataclass(slots=True)
class _Digesting:
    """Verifies a blob while it is sent for the first time; afterwards the kernel may send it."""

    store: BlobStore
    digest: Digest
    fd: int
    _hasher: hashlib._Hash = field(init=False)

    def __post_init__(self) -> None:
        self._hasher = hashlib.new(self.digest.algorithm)

    def update(self, block: memoryview) -> None:
        self._hasher.update(block)

    def passed(self) -> bool:
        if self._hasher.hexdigest() == self.digest.hex:
            self.store.trust(self.digest, self.fd)
            return True
        self.store.quarantine_open(self.digest, self.fd)
        sys.stderr.write(
            f"error: the blob {self.digest} in {self.store.root} is damaged: it was not sent whole, and is "
            "put aside\n"
        )
        return False


def matches(request: Request, digest: Digest) -> bool:
    """Whether the client has it already (If-None-Match)."""
    return is_among(request.headers.get("if-none-match", ""), digest)


def is_among(tags: str, digest: Digest | None) -> bool:
    """Whether a header's list of entity tags has the one of a digest; `*` is for whatever there is."""
    if digest is None:
        return False
    listed = (tag.strip().removeprefix("W/") for tag in tags.split(","))
    return any(tag in ("*", f'"{digest}"') for tag in listed)


def _part(request: Request, digest: Digest, size: int) -> tuple[int, int] | None:
    """First and last byte that are asked for, None for all. Raises Problem (416)."""
    text = request.headers.get("range", "")
    condition = request.headers.get("if-range", "")
    if not text.startswith("bytes=") or (condition and condition != f'"{digest}"') or "," in text:
        return None  # other units, an older version, several parts: all of it is a right answer
    match = _RANGE.fullmatch(text.replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        raise _not_satisfiable(size)
    if not match[1]:
        first, last = max(0, size - int(match[2])), size - 1
        empty = not int(match[2])
    else:
        first, last = int(match[1]), min(int(match[2] or size), size - 1)
        empty = False
    if empty or first >= size or last < first:
        raise _not_satisfiable(size)
    return first, last


def _not_satisfiable(size: int) -> Problem:
    headers = (("Content-Range", f"bytes */{size}"),)
    return Problem(416, "SIZE_INVALID", f"the blob has {size} bytes and no such range", headers=headers)


def unknown(what: str) -> Problem:
    """The answer for a blob that is not there; what is no digest is not there either."""
    return Problem(404, "BLOB_UNKNOWN", "the repository has no such blob", detail={"digest": what[:200]})
