"""What is not here, from where it is: a pull-through cache of another registry, and the layers that images
of the store have left where they came from.

What was fetched stays and is served when the other registry cannot be reached. A tag is asked for again
after a while; a digest never, for it cannot change.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import ManifestUnknown, RegistryError
from oci.model import Descriptor
from oci.reference import Reference
from oci.registry.moving import Watch
from oci.registry.server import documents, sound
from oci.registry.server.documents import digest_of
from oci.registry.server.names import is_tag
from oci.registry.server.problems import Problem

if TYPE_CHECKING:
    from oci.registry.server.links import Linked
    from oci.registry.server.repositories import Repositories
    from oci.registry.server.transfers import Transfer, Transfers

FRESH_SECONDS = 60.0
"""How long a tag is served before it is asked for again."""


class Upstream(Protocol):
    """The registry behind the proxy. It raises ManifestUnknown for what it lacks, or RegistryError."""

    def fetch_manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        """A manifest's media type and bytes, by tag or digest."""

    def has_blob(self, repository: str, descriptor: Descriptor) -> bool:
        """Whether it has a blob, without fetching it."""

    def fetch_blob(self, repository: str, descriptor: Descriptor, store: BlobStore, watch: Watch) -> None:
        """Put a blob into the store, verified."""

    def close(self) -> None:
        """End what is under way, from any thread."""


class Origins(Protocol):
    """Knows where the layers are that images of the store lack."""

    def places(self, digest: Digest) -> tuple[Reference, ...]:
        """Repositories that have a blob, as far as was ever told."""

    def has_blob(self, place: Reference, descriptor: Descriptor) -> bool:
        """Whether a repository has a blob, without fetching it. Raises RegistryError."""

    def fetch_blob(self, place: Reference, descriptor: Descriptor, store: BlobStore, watch: Watch) -> None:
        """Put a blob of a repository into the store, verified. Raises RegistryError."""

    def close(self) -> None:
        """End what is under way, from any thread."""


class Lent:
    """The layers of sparse images, fetched when somebody asks for them."""

    def __init__(self, origins: Origins | None, repositories: Repositories, transfers: Transfers) -> None:
        self._origins = origins
        self._repositories = repositories
        self._transfers = transfers

    def blob(self, name: str, digest: Digest) -> Transfer | None:
        """The download of a layer that an image here lacks; None if no image here has it. Raises Problem
        (404) with what is known of a layer that cannot be fetched."""
        descriptor = self._repositories.mentioned(name, digest)
        if descriptor is None:
            return None
        origins, places = self._places(name, digest)

        def fetch(watch: Watch) -> None:
            blobs = self._repositories.blobs
            self._from_any(
                places, descriptor, lambda each: origins.fetch_blob(each, descriptor, blobs, watch)
            )

        return self._transfers.begin(descriptor, fetch)

    def known(self, name: str, digest: Digest) -> Descriptor | None:
        """A layer that an image here lacks, if it is to be had; nothing is fetched. Raises as `blob`."""
        descriptor = self._repositories.mentioned(name, digest)
        if descriptor is None or self._transfers.running(digest):
            return descriptor
        origins, places = self._places(name, digest)

        def look(place: Reference) -> None:
            if not origins.has_blob(place, descriptor):
                raise ManifestUnknown(f"{place.repository} has it no more", status=404)

        self._from_any(places, descriptor, look)
        return descriptor

    def close(self) -> None:
        """End what is under way."""
        if self._origins is not None:
            self._origins.close()

    def _places(self, name: str, digest: Digest) -> tuple[Origins, list[Reference]]:
        own = self._repositories.domains
        origins = self._origins
        places = [each for each in origins.places(digest) if each.domain not in own] if origins else []
        if origins is None or not places:
            raise _absent(name, digest, "and nothing here says where else it is; push the image again")
        return origins, places

    @staticmethod
    def _from_any(places: list[Reference], descriptor: Descriptor, ask: Callable[[Reference], None]) -> None:
        for place in places:
            try:
                ask(place)
                return
            except RegistryError as error:
                failed = error
        listed = ", ".join(each.repository for each in places)
        said = f"{descriptor.digest} is not in this store; it is known to be in {listed}, but: {failed}"
        if isinstance(failed, ManifestUnknown):
            raise Problem(404, "BLOB_UNKNOWN", said, detail={"digest": str(descriptor.digest)})
        raise RegistryError(said)


def _absent(name: str, digest: Digest, why: str) -> Problem:
    said = f"{name} needs {digest}, which is not in this store, {why}"
    return Problem(404, "BLOB_UNKNOWN", said, detail={"digest": str(digest)})


class Proxy:
    """Fetches on demand. Requests for the same thing at the same time share one transfer."""

    def __init__(self, upstream: Upstream, repositories: Repositories, transfers: Transfers) -> None:
        self._upstream = upstream
        self._repositories = repositories
        self._transfers = transfers
        self._lock = threading.Lock()
        self._busy: dict[object, threading.Lock] = {}

    def manifest(self, name: str, what: str) -> tuple[Digest, str] | None:
        """Digest and media type of a manifest that is in the store now; None if only local ways remain."""
        digest = digest_of(what)
        if digest is not None:
            if self._has(name, digest) is None:
                with self._alone((name, what)):
                    self._by_digest(name, digest)
            return None
        if not is_tag(what):
            return None
        with self._alone((name, what)):
            return self._by_tag(name, what)

    def blob(self, name: str, digest: Digest) -> Transfer | None:
        """The download of a blob that a manifest here mentions: nothing else is fetched for anybody."""
        descriptor = self._repositories.mentioned(name, digest)
        if descriptor is None:
            return None

        def fetch(watch: Watch) -> None:
            self._upstream.fetch_blob(name, descriptor, self._repositories.blobs, watch)

        self._repositories.links.add_blob(name, digest)
        return self._transfers.begin(descriptor, fetch)

    def known(self, name: str, digest: Digest) -> Descriptor | None:
        """A blob that a manifest here mentions, if the registry behind has it; nothing is fetched."""
        descriptor = self._repositories.mentioned(name, digest)
        if descriptor is None or self._transfers.running(digest):
            return descriptor
        return descriptor if self._upstream.has_blob(name, descriptor) else None

    def close(self) -> None:
        """End what is under way."""
        self._upstream.close()

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
        if digest is not None and self._has(name, digest) is None:
            digest = None
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

    def _has(self, name: str, digest: Digest) -> Linked | None:
        """A manifest that need not be fetched: the repository has it, and it is sound."""
        linked = self._repositories.manifest(name, digest)
        return linked if linked and sound.is_here(self._repositories.blobs, digest) else None

    def _keep(self, name: str, digest: Digest, media_type: str, content: bytes) -> None:
        document = documents.read(content, media_type)
        store = self._repositories.blobs
        with self._repositories.guard() as protection:
            protection.add((digest,))
            if not sound.is_here(store, digest):
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
