"""The distribution-spec's requests, one method each, on one repository at one endpoint. Uploads are in
`upload`.

Nothing a registry says is believed: sizes and digests are checked before a byte is parsed, types before a
document is used, and names before they become paths.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin

from oci import media_types
from oci.digest import Digest
from oci.errors import (
    InvalidDigest,
    InvalidDocument,
    InvalidReference,
    LimitExceeded,
    ManifestUnknown,
    RegistryError,
    WrongContent,
)
from oci.model import Descriptor, Index, Manifest, parse
from oci.reference import Reference
from oci.registry.calls import Calls, Request, origin
from oci.registry.config import Endpoint
from oci.registry.headers import next_link
from oci.registry.patience import Stop
from oci.registry.redact import redact
from oci.registry.tokens import Scopes, deleting, pulling, pushing
from oci.strict_json import MAX_DOCUMENT, loads

if TYPE_CHECKING:
    from oci.registry.transport import Answer

ACCEPT = ", ".join(sorted(media_types.INDEXES | media_types.MANIFESTS))
_MAX_PAGES = 10_000
_JSON = ("", "application/json", "text/plain", "application/octet-stream")


class Repository:
    """One repository of one registry, or of a mirror. `sources` are repositories that blobs may be mounted
    from."""

    def __init__(
        self,
        calls: Calls,
        endpoint: Endpoint,
        path: str,
        stop: Stop,
        *,
        write: bool = False,
        sources: tuple[str, ...] = (),
    ) -> None:
        self.calls = calls
        self.endpoint = endpoint
        self.path = f"{endpoint.prefix}{path}"
        self.stop = stop
        self.scopes: Scopes = pushing(self.path, *sources) if write else pulling(self.path)

    def __str__(self) -> str:
        stands_for = f" (mirror of {self.endpoint.mirrors})" if self.endpoint.mirrors else ""
        return f"{self.endpoint.host}/{self.path}{stands_for}"

    def target(self, *parts: str, **query: str) -> str:
        """The path below `/v2/` of something in the repository."""
        if self.endpoint.mirrors:
            query = {**query, "ns": self.endpoint.mirrors}
        path = "/".join((self.path, *parts))
        return f"{path}?{urlencode(query, safe=':/')}" if query else path

    def call(self, method: str, target: str, doing: str, **options: Any) -> Answer:
        """`Calls.call` with this repository's endpoint, scopes and stop."""
        options.setdefault("scopes", self.scopes)
        request = Request(method, target, f"{self}: {doing}", self.stop, **options)
        return self.calls.call(self.endpoint, request)

    def manifest(self, locator: str | Digest) -> tuple[Descriptor, bytes]:
        """A manifest or index by tag or digest, verified and well-formed. Raises ManifestUnknown,
        WrongContent, RegistryError."""
        doing = f"getting the manifest {locator}"
        headers = {"Accept": ACCEPT}
        target = self.target("manifests", str(locator))
        with self.call("GET", target, doing, headers=headers, limit=MAX_DOCUMENT) as answer:
            said = answer.headers.get("Docker-Content-Digest", "")
            kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            content = answer.content
        wanted = locator if isinstance(locator, Digest) else None
        digest = self._checked_digest(content, wanted, said, doing)
        return self._described(content, digest, kind, doing), content

    def head_manifest(self, locator: str | Digest) -> Descriptor | None:
        """What a tag or digest means, as the registry tells it without sending it; None if there is no such
        thing.

        Size and digest are not verified yet. Where the registry leaves something out, the manifest is
        fetched.
        """
        doing = f"looking up {locator}"
        try:
            with self.call(
                "HEAD", self.target("manifests", str(locator)), doing, headers={"Accept": ACCEPT}
            ) as answer:
                kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
                size = answer.headers.get("Content-Length", "")
                said = answer.headers.get("Docker-Content-Digest", "")
            if kind in media_types.INDEXES | media_types.MANIFESTS and size.isdigit() and said:
                digest = self._digest(said, doing)
                if not isinstance(locator, Digest) or digest == locator:
                    return Descriptor(kind, digest, int(size))
            return self.manifest(locator)[0]
        except ManifestUnknown:
            return None

    def put_manifest(self, content: bytes, media_type: str, locator: str | Digest) -> bool:
        """Store a manifest under a tag or its digest; whether the registry itself keeps track of its
        `subject`.

        Raises WrongContent if the registry thinks it has another digest (S89).
        """
        doing = f"putting the manifest {locator}"
        algorithm = locator.algorithm if isinstance(locator, Digest) else "sha256"
        digest = Digest.of(content, algorithm)
        with self.call(
            "PUT",
            self.target("manifests", str(locator)),
            doing,
            headers={"Content-Type": media_type},
            body=content,
            ok=(200, 201, 202),
        ) as answer:
            said = answer.headers.get("Docker-Content-Digest", "")
            subject = "OCI-Subject" in answer.headers
        if not said:
            found = self.head_manifest(locator)
            said = str(found.digest) if found else "nothing"
        if said != str(digest) and not self._same(said, content):
            raise WrongContent(
                f"{self}: {doing}: the registry keeps {redact(said, 150)} where {digest} was sent"
            )
        return subject

    def delete_manifest(self, locator: str | Digest) -> None:
        """Delete a tag, or a manifest with all its tags. Raises ManifestUnknown, RegistryError."""
        self._delete(self.target("manifests", str(locator)), f"deleting {locator}")

    def blob_size(self, digest: Digest) -> int | None:
        """The size of a blob in the repository, in bytes; None if it is not there."""
        try:
            with self.call("HEAD", self.target("blobs", str(digest)), f"looking for {digest}") as answer:
                size = answer.headers.get("Content-Length", "")
                return int(size) if size.isdigit() else 0
        except ManifestUnknown:
            return None

    def open_blob(self, digest: Digest, offset: int = 0, size: int = 0, etag: str = "") -> Answer:
        """The answer to a blob's GET from `offset` on: 200, 206 or 416. What may pass is raised as
        Interrupted. With the `etag` that came with the bytes before `offset`, what is another representation
        by now is sent whole (RFC 9110, 13.1.5)."""
        headers = {"Range": f"bytes={offset}-{size - 1 if size else ''}"} if offset else {}
        if offset and etag:
            headers["If-Range"] = etag
        return self.call(
            "GET",
            self.target("blobs", str(digest)),
            f"getting {digest}",
            headers=headers,
            ok=(200, 206, 416) if offset else (200,),
            retry=False,
        )

    def blob(self, descriptor: Descriptor) -> bytes:
        """A small blob whole, verified: a config. Raises WrongContent, RegistryError."""
        doing = f"getting {descriptor.digest}"
        if descriptor.size > MAX_DOCUMENT:
            raise RegistryError(
                f"{self}: {doing}: {descriptor.size} bytes; a document may have {MAX_DOCUMENT}"
            )
        target = self.target("blobs", str(descriptor.digest))
        with self.call("GET", target, doing, limit=descriptor.size) as answer:
            content = answer.content
        if len(content) != descriptor.size:
            raise WrongContent(f"{self}: {doing}: {len(content)} bytes came; {descriptor.size} are promised")
        self._checked_digest(content, descriptor.digest, "", doing)
        return content

    def tags(self, page: int = 1000) -> Iterator[str]:
        """All tags, as the registry orders them."""
        for value in self._pages(self.target("tags", "list", n=str(page)), "listing tags"):
            tags = value.get("tags", ()) if isinstance(value, dict) else value
            if not isinstance(value, dict) or not isinstance(tags, list | tuple | None):
                raise RegistryError(f"{self}: listing tags: the answer has no list of tags")
            for tag in tags or ():
                yield self._tag(tag)

    def referrers(self, digest: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Manifests whose `subject` is `digest`, by the referrers API or, where there is none, by the tag
        schema (distribution-spec: Listing Referrers)."""
        query = {"artifactType": artifact_type} if artifact_type else {}
        found: list[Descriptor] = []
        try:
            for value in self._pages(
                self.target("referrers", str(digest), **query), "listing referrers", MAX_DOCUMENT
            ):
                found += self._index(json.dumps(value).encode(), "listing referrers").manifests
        except ManifestUnknown:
            found = list(self.referrers_by_tag(digest))
        unique = {item.digest: item for item in found}
        return tuple(item for item in unique.values() if artifact_type in ("", item.artifact_type))

    def referrers_by_tag(self, digest: Digest) -> tuple[Descriptor, ...]:
        """What the index at the fallback tag lists; () if there is none."""
        try:
            descriptor, content = self.manifest(referrers_tag(digest))
        except ManifestUnknown:
            return ()
        return Index.from_json(content).manifests if descriptor.media_type == media_types.OCI_INDEX else ()

    def _pages(self, target: str, doing: str, limit: int = MAX_DOCUMENT) -> Iterator[Any]:
        """The parsed answers of a paginated list. The next page is on the same host, or we do not go
        there."""
        seen: set[str] = set()
        own = origin(self.calls.base(self.endpoint, self.stop))
        while target:
            if target in seen or len(seen) >= _MAX_PAGES:
                raise RegistryError(f"{self}: {doing}: the pages go round in circles")
            seen.add(target)
            with self.call("GET", target, doing, limit=limit) as answer:
                content = answer.content
                link = next_link(answer.headers.get("Link", ""))
                target = urljoin(answer.url, link) if link else ""
            if target and origin(target) != own:
                raise RegistryError(
                    f"{self}: {doing}: the next page is said to be on another host: {redact(target)}"
                )
            yield self._json(content, doing)

    def _delete(self, target: str, doing: str) -> None:
        scopes = deleting(self.path)
        with self.call("DELETE", target, doing, ok=(200, 202, 204), scopes=scopes):
            pass

    def _json(self, content: bytes, doing: str) -> Any:
        try:
            return loads(content, "answer")
        except (InvalidDocument, LimitExceeded) as error:
            raise RegistryError(f"{self}: {doing}: {redact(str(error))}") from None

    def _index(self, content: bytes, doing: str) -> Index:
        try:
            return Index.from_json(content)
        except (InvalidDocument, LimitExceeded) as error:
            raise RegistryError(f"{self}: {doing}: {redact(str(error))}") from None

    def _described(self, content: bytes, digest: Digest, kind: str, doing: str) -> Descriptor:
        """The descriptor of a manifest's bytes, once header, text and structure agree (S82)."""
        known = kind in media_types.INDEXES | media_types.MANIFESTS
        if not known and kind not in _JSON and "json" not in kind and "prettyjws" not in kind:
            words = "an HTML page" if kind == "text/html" else redact(kind, 80)
            raise RegistryError(f"{self}: {doing}: the answer is {words}, not a manifest")
        try:
            document = parse(content, kind if known else "")
        except (InvalidDocument, LimitExceeded) as error:
            raise RegistryError(f"{self}: {doing}: {redact(str(error))}") from None
        artifact = artifact_type_of(document)
        return Descriptor(document.media_type, digest, len(content), artifact_type=artifact)

    def _checked_digest(self, content: bytes, wanted: Digest | None, said: str, doing: str) -> Digest:
        """The digest of bytes that came, which must be the one asked for, and the one the registry names."""
        named = self._digest(said, doing) if said else None
        expected = wanted or named
        actual = Digest.of(content, expected.algorithm if expected else "sha256")
        if expected and actual != expected:
            raise WrongContent(f"{self}: {doing}: expected the bytes of {expected}, got {actual}")
        if named and named != actual and not self._same(said, content):
            raise WrongContent(f"{self}: {doing}: the registry calls {named} what is {actual}")
        return actual

    def _same(self, said: str, content: bytes) -> bool:
        """Whether a digest, of whatever algorithm, is that of `content`."""
        try:
            named = Digest.parse(said)
        except InvalidDigest:
            return False
        return Digest.of(content, named.algorithm) == named

    def _digest(self, text: str, doing: str) -> Digest:
        try:
            return Digest.parse(text)
        except InvalidDigest:
            raise RegistryError(
                f"{self}: {doing}: Docker-Content-Digest is {redact(repr(text), 100)}"
            ) from None

    def _tag(self, tag: Any) -> str:
        try:
            return Reference(self.endpoint.host, self.path).with_tag(tag if isinstance(tag, str) else "").tag
        except InvalidReference:
            raise RegistryError(f"{self}: listing tags: {redact(repr(tag), 150)} is no tag") from None


def referrers_tag(digest: Digest) -> str:
    """The tag under which a digest's referrers are listed where there is no API for it (distribution-spec:
    Referrers Tag Schema)."""
    return f"{digest.algorithm[:32]}-{digest.hex[:64]}"


def artifact_type_of(document: Manifest | Index) -> str:
    """The artifact type by which referrers are filtered: a manifest's own, else its config's media type."""
    if document.artifact_type or isinstance(document, Index):
        return document.artifact_type
    kind = document.config.media_type
    return "" if kind in media_types.CONFIGS else kind


def as_referrer(descriptor: Descriptor, document: Manifest | Index) -> Descriptor:
    """The entry of a manifest in its subject's list of referrers."""
    kind = artifact_type_of(document) or (
        document.config.media_type if isinstance(document, Manifest) else ""
    )
    return replace(descriptor, artifact_type=kind, annotations=document.annotations, platform=None)
