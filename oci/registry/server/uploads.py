"""Blobs on their way in: one request or many, verified before anyone sees them (distribution-spec: Pushing
blobs).

An upload lives in this process and in a temporary file that is locked: when the process dies, both are as
good as gone, and the client begins again. Whoever speaks last to an upload owns it: a request whose
connection is lost cannot keep the next one waiting.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from oci.blobs import BlobStore, BlobWriter
from oci.digest import Digest
from oci.registry.server.documents import digest_of
from oci.registry.server.options import Options
from oci.registry.server.problems import Problem
from oci.registry.server.receive import BLOCK, Gone
from oci.registry.server.repositories import Repositories
from oci.registry.server.request import Request
from oci.registry.server.response import Response

ALGORITHMS = ("sha256", "sha512")
RESTING_SECONDS = 60.0
"""After so long without a word an upload may have to make room for another."""
_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:\*|[0-9]{1,18}))?")
_SWEEP_SECONDS = 30.0


class Upload:
    """One blob under construction."""

    def __init__(self, store: BlobStore, repository: str, algorithm: str) -> None:
        self.id = _identifier()
        self.repository = repository
        self.writer: BlobWriter = store.writer(hashing=False)
        self.used = time.monotonic()
        self._lock = threading.Lock()
        self._hasher = hashlib.new(algorithm)
        self._turn = 0
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.writer.size

    def take_over(self) -> int:
        """Become the one who writes; every earlier one's next block is refused."""
        with self._lock:
            self._turn += 1
            return self._turn

    def append(self, turn: int, block: memoryview) -> None:
        """One more block. Raises Gone when somebody else took over."""
        with self._lock:
            if turn != self._turn or self._closed:
                raise Gone("another request took the upload over")
            self.writer.write(block)
            self._hasher.update(block)
            self.used = time.monotonic()

    @contextmanager
    def finishing(self, turn: int) -> Iterator[BlobWriter]:
        """The right to commit; nobody writes any more."""
        with self._lock:
            if turn != self._turn or self._closed:
                raise Gone("another request took the upload over")
            self._closed = True
            yield self.writer

    def digest(self, algorithm: str) -> Digest:
        """The digest of what is there. Another algorithm than the one begun with costs one more reading."""
        if algorithm == self._hasher.name:
            return Digest(algorithm, self._hasher.hexdigest())
        hasher = hashlib.new(algorithm)
        block = memoryview(bytearray(BLOCK))
        position = 0
        while count := os.preadv(self.writer.fileno(), [block], position):
            hasher.update(block[:count])
            position += count
        return Digest(algorithm, hasher.hexdigest())

    def close(self) -> None:
        """Give it up. Nothing is left of it, unless it was committed."""
        with self._lock:
            self._closed = True
            self.writer.close()


class Uploads:
    """The endpoints /v2/<name>/blobs/uploads/ and /v2/<name>/blobs/uploads/<id>."""

    def __init__(self, repositories: Repositories, options: Options) -> None:
        self._repositories = repositories
        self._options = options
        self._lock = threading.Lock()
        self._open: dict[str, Upload] = {}
        self._swept = 0.0

    def close(self) -> None:
        """Give up every upload."""
        with self._lock:
            uploads = list(self._open.values())
            self._open.clear()
        for upload in uploads:
            upload.close()

    def start(self, request: Request, name: str, what: str) -> Response:
        """Begin an upload, or mount a blob from another repository, or take a whole blob at once."""
        if mount := request.one("mount"):
            digest = digest_of(mount)
            if digest is not None and self._mount(name, digest, request.query.get("from")):
                return _created(name, digest)
        if "digest" in request.query and request.body.length != 0:
            digest = _digest(request)
            upload = self._begin(name, digest.algorithm)
            try:
                return self._complete(upload, request, digest)
            except BaseException:  # nobody knows its id
                self._forget(upload)
                raise
        upload = self._begin(name, _algorithm(request))
        response = _state(upload, 202)
        if self._options.chunk_min_length:
            response.headers.append(("OCI-Chunk-Min-Length", str(self._options.chunk_min_length)))
        return response

    def status(self, request: Request, name: str, what: str) -> Response:
        """How far an upload has come."""
        return _state(self._find(name, what), 204)

    def append(self, request: Request, name: str, what: str) -> Response:
        """The next chunk, or all that is to come as one stream."""
        upload = self._find(name, what)
        self._receive(upload, upload.take_over(), request)
        return _state(upload, 202)

    def finish(self, request: Request, name: str, what: str) -> Response:
        """The last chunk, if there is one more, and the digest that all of it must have."""
        upload = self._find(name, what)
        return self._complete(upload, request, _digest(request))

    def cancel(self, request: Request, name: str, what: str) -> Response:
        """Give an upload up."""
        self._forget(self._find(name, what))
        return Response(204)

    def _complete(self, upload: Upload, request: Request, expected: Digest) -> Response:
        turn = upload.take_over()
        self._receive(upload, turn, request)
        with upload.finishing(turn) as writer:
            try:
                actual = upload.digest(expected.algorithm)
                if actual != expected:
                    raise Problem(
                        400,
                        "DIGEST_INVALID",
                        f"the {upload.size} bytes are those of {actual}",
                        detail={"digest": str(expected)},
                    )
                with self._repositories.guard():
                    writer.commit(expected)
                    self._repositories.links.add_blob(upload.repository, expected)
            finally:
                writer.close()
                with self._lock:
                    self._open.pop(upload.id, None)
        return _created(upload.repository, expected)

    def _receive(self, upload: Upload, turn: int, request: Request) -> None:
        _check_range(upload, request)
        block = memoryview(bytearray(BLOCK))
        while count := request.body.readinto(block):
            try:
                upload.append(turn, block[:count])
            except OSError:  # the disk is full: nobody knows how much of the block it took
                self._forget(upload)
                raise

    def _mount(self, name: str, digest: Digest, sources: list[str] | None) -> bool:
        with self._repositories.guard() as protection:
            protection.add((digest,))
            if sources:
                there = self._repositories.has_blob(sources[0], digest)
            else:
                there = bool(self._repositories.holder(digest))
            if there:
                self._repositories.links.add_blob(name, digest)
        return there

    def _begin(self, name: str, algorithm: str) -> Upload:
        self._sweep()
        self._make_room()
        upload = Upload(self._repositories.blobs, name, algorithm)
        with self._lock:
            self._open[upload.id] = upload
        return upload

    def _make_room(self) -> None:
        """When too many are open, the one that rests longest goes. Raises Problem (429) if none rests."""
        with self._lock:
            if len(self._open) < self._options.uploads:
                return
            oldest = min(self._open.values(), key=lambda each: each.used)
        if time.monotonic() - oldest.used < RESTING_SECONDS:
            headers = (("Retry-After", "10"),)
            raise Problem(429, "TOOMANYREQUESTS", "too many uploads are open", headers=headers)
        self._forget(oldest)

    def _find(self, name: str, what: str) -> Upload:
        with self._lock:
            upload = self._open.get(what)
        if upload is None or upload.repository != name:
            raise Problem(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload; begin again with POST")
        upload.used = time.monotonic()
        return upload

    def _forget(self, upload: Upload) -> None:
        with self._lock:
            self._open.pop(upload.id, None)
        upload.close()

    def _sweep(self) -> None:
        """Give up what nobody has spoken of for long."""
        now = time.monotonic()
        with self._lock:
            if now - self._swept < min(_SWEEP_SECONDS, self._options.upload_idle):
                return
            self._swept = now
            old = [each for each in self._open.values() if now - each.used > self._options.upload_idle]
        for upload in old:
            self._forget(upload)


@dataclass(frozen=True, slots=True)
class _Chunk:
    first: int
    last: int


def _check_range(upload: Upload, request: Request) -> None:
    """Chunks come in order, and are as long as they say. Raises Problem: 416 with where to go on, or 400."""
    text = request.headers.get("content-range")
    if text is None:
        return
    match = _RANGE.fullmatch(text)
    if match is None or int(match[1]) != upload.size or int(match[2]) < int(match[1]):
        raise Problem(
            416,
            "BLOB_UPLOAD_INVALID",
            f"the chunk {text[:60]!r} does not follow the {upload.size} bytes that are here",
            headers=tuple(_headers(upload)),
        )
    expected = int(match[2]) - int(match[1]) + 1
    if request.body.length not in (None, expected):
        raise Problem(400, "SIZE_INVALID", f"the chunk {text!r} has {request.body.length} bytes")


def _state(upload: Upload, status: int) -> Response:
    return Response(status, _headers(upload))


def _headers(upload: Upload) -> list[tuple[str, str]]:
    return [
        ("Location", f"/v2/{upload.repository}/blobs/uploads/{upload.id}"),
        ("Range", f"0-{max(0, upload.size - 1)}"),
        ("Docker-Upload-UUID", upload.id),
    ]


def _created(name: str, digest: Digest) -> Response:
    return Response(201, [("Location", f"/v2/{name}/blobs/{digest}"), ("Docker-Content-Digest", str(digest))])


def _digest(request: Request) -> Digest:
    text = request.one("digest")
    digest = digest_of(text)
    if digest is None:
        raise Problem(
            400,
            "DIGEST_INVALID",
            f"digest={text[:200]!r} is no digest; sha256 and sha512 are taken",
            detail={"digest": text[:200]},
        )
    return digest


def _algorithm(request: Request) -> str:
    text = request.one("digest-algorithm") or "sha256"
    if text not in ALGORITHMS:
        raise Problem(400, "DIGEST_INVALID", f"{text[:40]!r} is not among {', '.join(ALGORITHMS)}")
    return text


def _identifier() -> str:
    """128 random bits, in the shape of a UUID, which some clients expect."""
    text = os.urandom(16).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
