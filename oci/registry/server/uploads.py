"""Blobs on their way in: one request or many, verified before anyone sees them (distribution-spec: Pushing
blobs).

An upload outlives the server that began it (`sessions`): the client of the next one goes on where it was.
Whoever speaks last to an upload owns it: a request whose connection is lost cannot keep the next one waiting.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from oci.digest import Digest
from oci.registry.server.documents import digest_of
from oci.registry.server.options import Options
from oci.registry.server.problems import Problem
from oci.registry.server.receive import BLOCK, Gone
from oci.registry.server.repositories import Repositories
from oci.registry.server.request import Request
from oci.registry.server.response import Response
from oci.registry.server.sessions import Session, Sessions

ALGORITHMS = ("sha256", "sha512")
RESTING_SECONDS = 60.0
"""After so long without a word an upload may have to make room for another."""
_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:\*|[0-9]{1,18}))?")
_SWEEP_SECONDS = 30.0


class Upload:
    """One blob under construction. What is hashed may lag behind what is there, after a restart."""

    def __init__(self, session: Session) -> None:
        self.id = session.id
        self.repository = session.repository
        self.used = time.monotonic()
        self._session = session
        self._lock = threading.Lock()
        self._hasher = hashlib.new(session.algorithm)
        self._hashed = 0
        self._turn = 0
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self._session.size

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
            current = self._hashed == self.size
            self._session.write(block)
            if current:
                self._hasher.update(block)
                self._hashed = self.size
            self.used = time.monotonic()

    def catch_up(self) -> None:
        """Hash what an earlier server has received, while the client sends more."""
        block = memoryview(bytearray(BLOCK))
        while True:
            with self._lock:
                if self._closed or not self._hash(block):
                    return

    @contextmanager
    def finishing(self, turn: int) -> Iterator[Session]:
        """The right to commit; nobody writes any more, and nothing is left unless it was committed."""
        with self._lock:
            if turn != self._turn or self._closed:
                raise Gone("another request took the upload over")
            self._closed = True
            try:
                yield self._session
            finally:
                self._session.discard()

    def digest(self, algorithm: str) -> Digest:
        """The digest of what is there, for who is `finishing`. Another algorithm than the one begun with
        costs one more reading."""
        if algorithm != self._hasher.name:
            self._hasher, self._hashed = hashlib.new(algorithm), 0
        block = memoryview(bytearray(BLOCK))
        while self._hash(block):
            pass
        return Digest(algorithm, self._hasher.hexdigest())

    def discard(self) -> None:
        """Give it up. Nothing is left of it, unless it was committed."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._session.discard()

    def rest(self) -> None:
        """Let go of it; the next server may go on."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._session.rest()

    def _hash(self, block: memoryview) -> int:
        """Hash one more block of what is there; how many bytes, 0 when all is hashed."""
        count = 0
        if self._hashed < self.size:
            count = os.preadv(self._session.fileno(), [block], self._hashed)
            self._hasher.update(block[:count])
            self._hashed += count
        return count


class Uploads:
    """The endpoints /v2/<name>/blobs/uploads/ and /v2/<name>/blobs/uploads/<id>."""

    def __init__(self, repositories: Repositories, options: Options) -> None:
        self._repositories = repositories
        self._options = options
        self._sessions = Sessions(repositories.layout.root, repositories.blobs)
        self._sessions.expire(options.upload_idle)
        self._lock = threading.Lock()
        self._open: dict[str, Upload] = {}
        self._swept = 0.0

    def close(self) -> None:
        """Let go of every upload; the next server may go on with it."""
        with self._lock:
            uploads = list(self._open.values())
            self._open.clear()
        for upload in uploads:
            upload.rest()

    def start(self, request: Request, name: str, what: str) -> Response:
        """Begin an upload, or mount a blob from another repository, or take a whole blob at once."""
        if mount := request.one("mount"):
            digest = digest_of(mount)
            if digest is not None and self._mount(name, digest, request.query.get("from")):
                return _created(name, digest)
        if "digest" in request.query and (request.body.length != 0 or _is_empty(request.one("digest"))):
            digest = _digest(request)
            upload = self._begin(name, digest.algorithm, lasting=False)
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
        with upload.finishing(turn) as session:
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
                    session.commit(expected)
                    self._repositories.links.add_blob(upload.repository, expected)
            finally:
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

    def _begin(self, name: str, algorithm: str, *, lasting: bool = True) -> Upload:
        self._sweep()
        self._make_room()
        upload = Upload(self._sessions.create(name, algorithm, lasting=lasting))
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
            upload = self._open.get(what) or self._resumed(what)
        if upload is None or upload.repository != name:
            raise Problem(404, "BLOB_UPLOAD_UNKNOWN", "there is no such upload; begin again with POST")
        upload.used = time.monotonic()
        return upload

    def _resumed(self, what: str) -> Upload | None:
        """An upload that an earlier server began, with the lock held."""
        session = self._sessions.resume(what)
        if session is None:
            return None
        upload = self._open[what] = Upload(session)
        if upload.size:
            threading.Thread(target=upload.catch_up, daemon=True).start()
        return upload

    def _forget(self, upload: Upload) -> None:
        with self._lock:
            self._open.pop(upload.id, None)
        upload.discard()

    def _sweep(self) -> None:
        """Give up what nobody has spoken of for long, of this server and of earlier ones."""
        now = time.monotonic()
        with self._lock:
            if now - self._swept < min(_SWEEP_SECONDS, self._options.upload_idle):
                return
            self._swept = now
            old = [each for each in self._open.values() if now - each.used > self._options.upload_idle]
        for upload in old:
            self._forget(upload)
        self._sessions.expire(self._options.upload_idle)


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


def _is_empty(text: str) -> bool:
    """Whether a digest is the one of no bytes: then no bytes are all of the blob."""
    digest = digest_of(text)
    return digest is not None and digest == Digest.of(b"", digest.algorithm)


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
