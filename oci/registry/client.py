"""What the rest of the program asks of registries.

    with Client(config, credentials) as client:
        image = client.pull(Reference.parse("debian:12"), store, platforms.host())
        client.push(store, image, [Reference.parse("registry.example/debian:12")])

Every method raises RegistryError (exit code 3) or its child Unauthorized (4) with a message for people; a
damaged local blob is a DigestMismatch. With `offline` nothing touches the network, and asking is an error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType

from oci import media_types
from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import ManifestUnknown, RegistryError
from oci.image import Image, walk
from oci.model import Descriptor, Manifest, Platform, parse
from oci.reference import Reference
from oci.registry import download
from oci.registry import pull as pulling
from oci.registry import push as pushing
from oci.registry.auth import Credential, CredentialStore
from oci.registry.calls import Calls, Request, Warn
from oci.registry.config import Endpoint, RegistryConfig
from oci.registry.moving import Watch, unwatched
from oci.registry.patience import Patience, Stop
from oci.registry.repository import Repository

PARALLEL = 6
"""Blobs that move at once."""


class Client:
    """Registries, for one command or build. Threads may share it. Use it in `with`.

    `tls_verify` False accepts any certificate and plain http of the registries named in calls, as
    --tls-verify=false does. `warn` gets what users should know: warnings of registries, mirrors that failed,
    unverified certificates.
    """

    def __init__(
        self,
        config: RegistryConfig | None = None,
        credentials: CredentialStore | None = None,
        *,
        offline: bool = False,
        tls_verify: bool | None = None,
        parallel: int = PARALLEL,
        patience: Patience | None = None,
        warn: Warn | None = None,
        sleep: Callable[[float, Stop], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        user_agent: str = "pybuild",
    ) -> None:
        config = config or RegistryConfig()
        self._running: set[Stop] = set()
        self._calls = Calls(
            config if tls_verify is None else replace(config, tls_verify=tls_verify),
            credentials,
            offline=offline,
            parallel=parallel,
            patience=patience,
            warn=warn,
            sleep=sleep,
            clock=clock,
            user_agent=user_agent,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._calls.close()

    def interrupt(self) -> None:
        """End every operation that runs now, from any thread. What they have received is kept."""
        for stop in tuple(self._running):
            stop.set()

    def resolve(self, reference: Reference, platform: Platform | None = None) -> Descriptor:
        """What a name means now: the manifest for `platform`, or without one whatever it is, index or
        manifest.

        Raises ManifestUnknown if there is no such thing.
        """
        with self._reading(reference) as sources:
            found = self._head(sources, reference) if platform is None else None
            if found is not None:
                return found
            root = self._root(sources, reference)
            if platform is None:
                return root.descriptor
            return pulling.select(root, platform, pulling.reader(sources), sources).descriptor

    def fetch_manifest(self, reference: Reference) -> tuple[Descriptor, bytes]:
        """A manifest or index and its very bytes, verified."""
        with self._reading(reference) as sources:
            root = self._root(sources, reference)
            return root.descriptor, root.content

    def pull(
        self,
        reference: Reference,
        store: BlobStore,
        platform: Platform | None = None,
        watch: Watch = unwatched,
    ) -> Descriptor:
        """Bring an image into `store`: that for `platform`, or without one everything the name leads to.

        Returns what was brought: the platform's manifest, or the index. Nothing in `store` points at what is
        not there; what was received of a blob before an interruption is used by the next pull.
        """
        return self.pull_of(reference, store, platform, watch)[0]

    def pull_of(
        self, reference: Reference, store: BlobStore, platform: Platform | None, watch: Watch = unwatched
    ) -> tuple[Descriptor, Descriptor, bytes]:
        """The same, and what it was chosen from: what the name means, and its very bytes."""
        with self._reading(reference) as sources:
            read = pulling.reader(sources, store)
            root = found = self._root(sources, reference)
            if platform is not None:
                found = pulling.select(root, platform, read, sources)
            brought = pulling.bring(sources, pulling.tree(found, read), store, watch)
            return brought, root.descriptor, root.content

    def pull_documents(self, reference: Reference, store: BlobStore, platform: Platform) -> Image:
        """The image for `platform` without its layers: manifest and config alone are stored. `fetch_blob`
        brings layers when they are needed. Raises InvalidDocument for what is no image."""
        return self.pull_chosen(reference, store, platform)[0]

    def pull_chosen(
        self, reference: Reference, store: BlobStore, platform: Platform
    ) -> tuple[Image, Descriptor, bytes]:
        """The same, and what it was chosen from: what the name means, and its very bytes."""
        with self._reading(reference) as sources:
            root = self._root(sources, reference)
            found = pulling.select(root, platform, pulling.reader(sources, store), sources)
            if isinstance(found.value, Manifest):
                _fetch_config(sources, found.value.config, store)
            pulling.keep(store, found.descriptor.digest, found.content)
            return Image.load(store, found.descriptor), root.descriptor, root.content

    def has_blob(self, reference: Reference, descriptor: Descriptor) -> bool:
        """Whether a repository, or a mirror of it, says that it has a blob of this size."""
        with self._reading(reference) as sources:
            for source in sources[:-1]:
                try:
                    if source.blob_size(descriptor.digest) == descriptor.size:
                        return True
                except RegistryError as error:
                    self._calls.warn(f"{error}; asking elsewhere")
            return sources[-1].blob_size(descriptor.digest) == descriptor.size

    def fetch_blob(
        self, reference: Reference, descriptor: Descriptor, store: BlobStore, watch: Watch = unwatched
    ) -> None:
        """Bring one blob of a repository into `store`, verified; nothing to do if it is there."""
        if descriptor.digest in store:
            return
        with self._reading(reference) as sources:
            download.fetch(sources, descriptor, store, watch)

    def fetch_blobs(
        self,
        reference: Reference,
        descriptors: Sequence[Descriptor],
        store: BlobStore,
        watch: Watch = unwatched,
    ) -> None:
        """Bring blobs of a repository into `store` in parallel. The first failure stops the others."""
        with self._reading(reference) as sources:
            pulling.bring_blobs(sources, descriptors, store, watch)

    def push(
        self,
        store: BlobStore,
        descriptor: Descriptor,
        references: Sequence[Reference],
        watch: Watch = unwatched,
        *,
        mount_from: Mapping[Digest, Iterable[Reference]] | None = None,
        skip: frozenset[Digest] = frozenset(),
        chunk: int = 0,
    ) -> Descriptor:
        """Push what `descriptor` leads to under every reference; one without a tag pushes by digest.

        `mount_from` names repositories that have a blob already: on the same registry it is mounted, from
        another one it is streamed, if the local store lacks it. `skip` are blobs known to be there. With
        `chunk` bytes (or the configuration's) larger blobs go in pieces, for proxies that cut
        requests off. Raises BlobNotFound, DigestMismatch.
        """
        found = local_tree(store, descriptor)
        for repository, tags in _by_repository(references).items():
            known = {digest: tuple(names) for digest, names in (mount_from or {}).items()}
            with self._operation() as stop:
                sources = tuple(
                    name.path
                    for names in known.values()
                    for name in names
                    if name.domain == repository.domain
                )
                target = self._repository(repository, stop, write=True, sources=tuple(dict.fromkeys(sources)))
                elsewhere = {digest: self._elsewhere(names, target, stop) for digest, names in known.items()}
                most = chunk or self._calls.config.host(repository.domain).chunk
                shipment = pushing.Shipment(found, store, elsewhere, tags, skip, most)
                pushing.ship(target, shipment, watch)
        return found.root

    def copy(
        self,
        source: Reference,
        target: Reference,
        platform: Platform | None = None,
        watch: Watch = unwatched,
    ) -> Descriptor:
        """Copy from registry to registry, whole or one platform's image, with no local store: within a
        registry blobs are mounted, between two they are streamed. `target` without a tag is pushed by
        digest."""
        with self._reading(source) as sources:
            stop = sources[0].stop
            read = pulling.reader(sources)
            root = self._root(sources, source)
            if platform is not None:
                root = pulling.select(root, platform, read, sources)
            found = pulling.tree(root, read)
            into = self._repository(
                target, stop, write=True, sources=(source.path,) if source.domain == target.domain else ()
            )
            elsewhere = {blob.digest: sources for blob in found.blobs}
            tags = (target.tag,) if target.tag else ()
            most = self._calls.config.host(target.domain).chunk
            shipment = pushing.Shipment(found, None, elsewhere, tags, chunk=most)
            return pushing.ship(into, shipment, watch)

    def put_manifest(self, reference: Reference, content: bytes, media_type: str) -> Descriptor:
        """Store a manifest or index whose parts the registry has already, under a tag or by digest."""
        descriptor = Descriptor.of(media_type, content)
        with self._operation() as stop:
            document = pulling.Document(descriptor, content, parse(content, media_type))
            target = self._repository(reference, stop, write=True)
            shipment = pushing.Shipment(
                pulling.Tree((document,), ()), tags=(reference.tag,) if reference.tag else ()
            )
            return pushing.ship(target, shipment)

    def tags(self, reference: Reference) -> list[str]:
        """All tags of a repository. Raises ManifestUnknown if there is no such repository."""
        with self._operation() as stop:
            return list(self._repository(reference, stop).tags())

    def referrers(self, reference: Reference, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """What refers to an image (signatures, SBOMs ...), by the referrers API or the tag schema."""
        with self._reading(reference) as sources:
            digest = (
                reference.digest
                or (self._head(sources, reference) or self._root(sources, reference).descriptor).digest
            )
            return sources[-1].referrers(digest, artifact_type)

    def delete(self, reference: Reference) -> None:
        """Delete a tag or, by digest, a manifest with all its tags. Raises RegistryError where the registry
        does not allow it."""
        with self._operation() as stop:
            target = self._repository(reference, stop, write=True)
            subject = self._subject(target, reference.digest) if reference.digest else None
            target.delete_manifest(reference.digest or reference.with_default_tag().tag)
            if subject and reference.digest:
                pushing.unlist(target, reference.digest, subject)

    def ping(self, host: str) -> None:
        """Raise unless `host` is a registry that lets us in, with the credentials we have or without any."""
        endpoint = Endpoint.of(host)
        with self._operation() as stop:
            request = Request("GET", "", f"{host}: greeting the registry", stop)
            self._calls.call(endpoint, request).close()

    def authenticate(self, host: str, credential: Credential) -> None:
        """Raise Unauthorized unless the registry accepts this credential, as `login` must know before it
        keeps one. The client uses it from now on."""
        self._calls.use(Endpoint.of(host), credential)
        self.ping(host)

    @contextmanager
    def _operation(self) -> Iterator[Stop]:
        """One operation; however it ends, its transfers end with it."""
        stop = self._calls.stop()
        self._running.add(stop)
        try:
            yield stop
        except BaseException:
            stop.set()
            raise
        finally:
            self._running.discard(stop)

    @contextmanager
    def _reading(self, reference: Reference) -> Iterator[tuple[Repository, ...]]:
        """The places to read an image from, in order."""
        endpoints = self._calls.config.endpoints(reference)
        with self._operation() as stop:
            yield tuple(Repository(self._calls, endpoint, reference.path, stop) for endpoint in endpoints)

    def _repository(
        self, reference: Reference, stop: Stop, *, write: bool = False, sources: tuple[str, ...] = ()
    ) -> Repository:
        endpoint = Endpoint.of(reference.domain)
        return Repository(self._calls, endpoint, reference.path, stop, write=write, sources=sources)

    def _elsewhere(
        self, names: Iterable[Reference], target: Repository, stop: Stop
    ) -> tuple[Repository, ...]:
        found = [self._repository(name, stop) for name in names]
        return tuple(sorted(found, key=lambda other: other.endpoint.address != target.endpoint.address))

    def _root(self, sources: Sequence[Repository], reference: Reference) -> pulling.Document:
        document, source = pulling.root_of(sources, reference.digest or reference.locator)
        self._say_mirror(source, reference, document.descriptor)
        return document

    def _head(self, sources: Sequence[Repository], reference: Reference) -> Descriptor | None:
        """What the name means, as the first source that knows it says."""
        for source in sources:
            try:
                found = source.head_manifest(reference.digest or reference.locator)
            except RegistryError as error:
                if source is sources[-1]:
                    raise
                self._calls.warn(f"{error}; asking elsewhere")
                continue
            if found:
                self._say_mirror(source, reference, found)
                return found
        raise ManifestUnknown(f"{sources[-1]}: no manifest {reference.locator}", status=404)

    def _say_mirror(self, source: Repository, reference: Reference, descriptor: Descriptor) -> None:
        """A tag is what a mirror says it is: on record, so that it can be compared (S88)."""
        if source.endpoint.mirrors and not reference.digest:
            self._calls.warn(
                f"{reference.familiar()} is {descriptor.digest} according to the mirror "
                f"{source.endpoint.host}"
            )

    def _subject(self, target: Repository, digest: Digest) -> Digest | None:
        descriptor, content = target.manifest(digest)
        subject = parse(content, descriptor.media_type).subject
        return subject.digest if subject else None


def _fetch_config(sources: Sequence[Repository], config: Descriptor, store: BlobStore) -> None:
    """Bring an image's config; an artifact's may be as large as it likes, and nobody asked for it."""
    if config.media_type in media_types.CONFIGS and config.digest not in store:
        pulling.keep(store, config.digest, download.small(sources, config))


def local_tree(store: BlobStore, descriptor: Descriptor) -> pulling.Tree:
    """What is to be pushed, from the local store. Raises BlobNotFound for manifests that are not there."""
    documents: list[pulling.Document] = []
    blobs: dict[Digest, Descriptor] = {}
    for item in walk(store, descriptor):
        if item.media_type in pulling.READABLE:
            content = store.document(item)
            documents.append(pulling.Document(item, content, parse(content, item.media_type)))
        else:
            blobs.setdefault(item.digest, item)
    return pulling.Tree(tuple(reversed(documents)), tuple(blobs.values()))


def _by_repository(references: Sequence[Reference]) -> dict[Reference, tuple[str, ...]]:
    """Tags by repository, so that blobs go to each but once."""
    found: dict[Reference, tuple[str, ...]] = {}
    for reference in references:
        bare = replace(reference, tag="", digest=None)
        found[bare] = (*found.get(bare, ()), *((reference.tag,) if reference.tag else ()))
    return found
