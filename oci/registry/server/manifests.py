"""Manifests, indexes and artifacts: by tag and by digest (distribution-spec: Pulling, Pushing, Deleting
manifests).
"""

from __future__ import annotations

from contextlib import suppress

from oci import media_types
from oci.digest import Digest
from oci.errors import BlobNotFound, OciError
from oci.model import Descriptor
from oci.registry.server import documents, sound
from oci.registry.server.blobs import is_among, matches
from oci.registry.server.documents import Document, digest_of
from oci.registry.server.names import is_tag
from oci.registry.server.problems import Problem
from oci.registry.server.proxy import Lent, Proxy
from oci.registry.server.repositories import Allowed, Repositories, always
from oci.registry.server.request import Request
from oci.registry.server.response import Response
from oci.registry.server.transfers import Transfers
from oci.strict_json import MAX_DOCUMENT

MAX_TAGS = 100
"""Tags of one push (`?tag=` repeated)."""


class Manifests:
    """The endpoint /v2/<name>/manifests/<tag or digest>."""

    def __init__(
        self, repositories: Repositories, proxy: Proxy | None, lent: Lent, transfers: Transfers
    ) -> None:
        self._repositories = repositories
        self._lent = lent
        self._transfers = transfers
        self._store = repositories.blobs
        self._proxy = proxy

    def get(self, request: Request, name: str, what: str) -> Response:
        """The manifest as it was pushed, byte for byte, with the type it was pushed as."""
        found = self._proxy.manifest(name, what) if self._proxy else None
        digest, media_type = found or self._local(name, what)
        headers = [
            ("Content-Type", media_type),
            ("Docker-Content-Digest", str(digest)),
            ("ETag", f'"{digest}"'),
        ]
        try:
            content = sound.read(self._store, digest)
        except BlobNotFound as error:
            raise _unknown(name, what, str(error) if isinstance(error, sound.Damaged) else "") from None
        if matches(request, digest):
            return Response(304, headers)
        return Response(200, headers, content)

    def put(self, request: Request, name: str, what: str) -> Response:
        """Take a manifest, and make it visible under its digest and its tags."""
        expected, tags = _destination(request, what)
        content = request.body.read(MAX_DOCUMENT)
        document = documents.read(content, request.headers.get("content-type", ""))
        digest = Digest.of(content, expected.algorithm if expected else "sha256")
        if expected is not None and digest != expected:
            raise Problem(
                400, "DIGEST_INVALID", f"the manifest's digest is {digest}", detail={"digest": str(expected)}
            )
        with self._repositories.guard() as protection:
            protection.add(
                (digest, *document.need, *document.blobs, *(each.digest for each in document.manifests))
            )
            self._check(name, document)
            self._write(digest, content)
            pointer = _pointer(document, digest, len(content))
            self._repositories.put(name, pointer, document, tags, _condition(request))
        headers = [("Location", f"/v2/{name}/manifests/{digest}"), ("Docker-Content-Digest", str(digest))]
        if document.subject is not None:
            headers.append(("OCI-Subject", str(document.subject)))
        headers += [("OCI-Tag", tag) for tag in request.query.get("tag", ()) if expected is not None]
        return Response(201, headers)

    def delete(self, request: Request, name: str, what: str) -> Response:
        """Delete a tag, or a manifest with all tags that mean it."""
        digest = digest_of(what)
        if digest is not None:
            gone = self._repositories.remove(name, digest)
        else:
            gone = is_tag(what) and self._repositories.untag(name, what)
        if not gone:
            raise _unknown(name, what)
        return Response(202)

    def _local(self, name: str, what: str) -> tuple[Digest, str]:
        digest = digest_of(what)
        if digest is not None:
            linked = self._repositories.manifest(name, digest)
            if linked is not None:
                return digest, linked.media_type
        elif is_tag(what) and (descriptor := self._repositories.resolve(name, what)):
            return descriptor.digest, descriptor.media_type
        elif is_tag(what) and self._proxy is None and (linked := self._repositories.fetched(name, what)):
            return linked.digest, linked.media_type  # of a cache that is a cache no more
        raise _unknown(name, what)

    def _check(self, name: str, document: Document) -> None:
        """All that an image cannot be without must be here. An index may be sparse: lack some images."""
        missing = [digest for digest in document.need if not self._has(name, digest)]
        if missing:
            raise Problem.all(
                [
                    Problem(
                        404,
                        "MANIFEST_BLOB_UNKNOWN",
                        f"the manifest needs {digest}, which the repository does not have",
                        detail={"digest": str(digest)},
                    )
                    for digest in missing[:100]
                ]
            )

    def _has(self, name: str, digest: Digest) -> bool:
        """Whether the blob is here, arrives, or is fetched now: a client that saw it need not push it."""
        if self._repositories.has_blob(name, digest):
            return True
        with suppress(OciError, OSError, Problem):
            transfer = self._transfers.running(digest) or self._lent.blob(name, digest)
            if transfer is not None:
                transfer.finished()
        return self._repositories.has_blob(name, digest)

    def _write(self, digest: Digest, content: bytes) -> None:
        if not sound.is_here(self._store, digest):
            with self._store.writer(algorithm=digest.algorithm) as writer:
                writer.write(content)
                writer.commit(digest)


def _pointer(document: Document, digest: Digest, size: int) -> Descriptor:
    """As it is named in the store. An artifact says so there: who lists images passes over it unread."""
    is_image = document.media_type in media_types.INDEXES or document.artifact_type in media_types.CONFIGS
    kind = "" if is_image else document.artifact_type
    return Descriptor(document.media_type, digest, size, artifact_type=kind)


def _destination(request: Request, what: str) -> tuple[Digest | None, tuple[str, ...]]:
    """The digest that is claimed, and the tags that are wanted. Raises Problem (400)."""
    digest = digest_of(what)
    if digest is None and ":" in what:
        raise Problem(400, "DIGEST_INVALID", f"{what[:200]!r} is no digest", detail={"digest": what[:200]})
    tags = tuple(request.query.get("tag", ())) if digest is not None else (what,)
    if len(tags) > MAX_TAGS:
        raise Problem(414, "UNSUPPORTED", f"{len(tags)} tags; at most {MAX_TAGS} are taken at once")
    for tag in tags:
        if not is_tag(tag):
            raise Problem(400, "MANIFEST_INVALID", f"{tag[:200]!r} is no tag", detail={"tag": tag[:200]})
    return digest, tags


def _condition(request: Request) -> Allowed:
    """What If-Match and If-None-Match demand of a tag before it is moved (RFC 9110, 13.1)."""
    wanted, unwanted = request.headers.get("if-match"), request.headers.get("if-none-match")
    if wanted is None and unwanted is None:
        return always

    def allowed(before: Descriptor | None) -> None:
        digest = before.digest if before else None
        if (wanted is None or is_among(wanted, digest)) and not (unwanted and is_among(unwanted, digest)):
            return
        said = f"the tag means {digest} by now" if digest else "there is no such tag"
        raise Problem(412, "DENIED", said, headers=(("ETag", f'"{digest}"'),) if digest else ())

    return allowed


def _unknown(name: str, what: str, why: str = "") -> Problem:
    return Problem(
        404,
        "MANIFEST_UNKNOWN",
        f"{name} has no manifest {what[:200]}" + (f": {why}" if why else ""),
        detail={"name": name, "reference": what[:200]},
    )
