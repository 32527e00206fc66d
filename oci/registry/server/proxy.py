"""A registry that fetches from another what it does not have, and keeps it: a pull-through cache.

What was fetched stays and is served when the other registry cannot be reached. A tag is asked for again
after a while; a digest never, for it cannot change.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from oci import media_types
from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import ManifestUnknown, RegistryError
from oci.model import Descriptor, Manifest
from oci.registry.server import documents
from oci.registry.server.documents import digest_of
from oci.registry.server.names import is_tag

if TYPE_CHECKING:
    from oci.registry.server.repositories import Repositories

FRESH_SECONDS = 60.0
"""How long a tag is served before it is asked for again."""


class Upstream(Protocol):
    """The registry behind the proxy. It raises ManifestUnknown for what it lacks, or RegistryError."""

    def fetch_manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        """A manifest's media type and bytes, by tag or digest."""

    def fetch_blob(self, repository: str, descriptor: Descriptor, store: BlobStore) -> None:
        """Put a blob into the store, verified."""


class Proxy:
    """Fetches on demand. Requests for the same thing at the same time wait for one transfer."""

    def __init__(self, upstream: Upstream, repositories: Repositories) -> None:
        self._upstream = upstream
        self._repositories = repositories
        self._lock = threading.Lock()
        self._busy: dict[object, threading.Lock] = {}

    def manifest(self, name: str, what: str) -> tuple[Digest, str] | None:
        """Digest and media type of a manifest that is in the store now; None if only local ways remain."""
        digest = digest_of(what)
        if digest is not None:
            if self._repositories.manifest(name, digest) is None:
                with self._alone((name, what)):
                    self._by_digest(name, digest)
            return None
        if not is_tag(what):
            return None
        with self._alone((name, what)):
            return self._by_tag(name, what)

    def blob(self, name: str, digest: Digest) -> bool:
        """Fetch a blob that a manifest here mentions; whether the other registry has it."""
        with self._alone(digest):
            if self._repositories.has_blob(name, digest):
                return True
            descriptor = self._mentioned(name, digest)
            if descriptor is None:
                return False
            with self._repositories.guard() as protection:
                protection.add((digest,))
                try:
                    self._upstream.fetch_blob(name, descriptor, self._repositories.blobs)
                except ManifestUnknown:
                    return False
                self._repositories.links.add_blob(name, digest)
        return True

    def _mentioned(self, name: str, digest: Digest) -> Descriptor | None:
        """The pointer to a blob, from a manifest of the repository: nothing else is fetched for anybody."""
        store = self._repositories.blobs
        for linked in self._repositories.links.manifests(name):
            if linked.media_type in media_types.MANIFESTS and linked.digest in store:
                manifest = Manifest.from_json(store.read(linked.digest), linked.media_type)
                for part in (manifest.config, *manifest.layers):
                    if part.digest == digest:
                        return part
        return None

    def _by_digest(self, name: str, digest: Digest) -> None:
        try:
            media_type, content = self._upstream.fetch_manifest(name, str(digest))
        except ManifestUnknown:
            return
        if (actual := Digest.of(content, digest.algorithm)) != digest:
            raise RegistryError(f"{actual} came for {digest}")
        self._keep(name, digest, media_type, content)

    def _by_tag(self, name: str, tag: str) -> tuple[Digest, str] | None:
        digest, asked = self._repositories.links.fetched(name).get(tag, (None, 0.0))
        if digest is None or not 0 <= time.time() - asked < FRESH_SECONDS:
            try:
                media_type, content = self._upstream.fetch_manifest(name, tag)
            except ManifestUnknown:
                return None
            except RegistryError:  # better an older answer than none
                if digest is None:
                    raise
            else:
                digest = Digest.of(content)
                self._keep(name, digest, media_type, content)
                self._repositories.links.add_fetched(name, tag, digest)
        linked = self._repositories.manifest(name, digest)
        return (digest, linked.media_type) if linked else None

    def _keep(self, name: str, digest: Digest, media_type: str, content: bytes) -> None:
        document = documents.read(content, media_type)
        store = self._repositories.blobs
        with self._repositories.guard() as protection:
            protection.add((digest,))
            if digest not in store:
                with store.writer(algorithm=digest.algorithm) as writer:
                    writer.write(content)
                    writer.commit(digest)
            # Its blobs are linked though they may not be there yet: this repository may have them.
            self._repositories.put(name, Descriptor(document.media_type, digest, len(content)), document, ())

    @contextmanager
    def _alone(self, key: object) -> Iterator[None]:
        with self._lock:
            lock = self._busy.setdefault(key, threading.Lock())
        try:
            with lock:
                yield
        finally:
            with self._lock:
                if not lock.locked():
                    self._busy.pop(key, None)
