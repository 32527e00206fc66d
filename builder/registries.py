"""Registries as one build or one command sees them: images in, images out, every transfer shown.

Nothing of the network is imported before something is asked of it. What has not arrived by the time somebody
needs it is fetched then, from where `builder.origins` says it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from typing import TYPE_CHECKING

from builder import origins
from builder.errors import BuildCancelled, NotFound, RegistryFailed
from builder.events import Emit, Transfer, Warning_, stamp
from builder.origins import ORIGIN, PUSHED, RESOLVED, ROOT, Origin, facts
from oci import media_types, platforms
from oci.data import dataclass
from oci.errors import OciError, RegistryError, Unauthorized
from oci.image import images, walk
from oci.model import Descriptor
from oci.reference import DEFAULT_DOMAIN

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from builder.images import Images
    from oci.blobs import BlobStore
    from oci.digest import Digest
    from oci.image import Image
    from oci.model import Platform
    from oci.reference import Reference
    from oci.registry.client import Client
    from oci.registry.moving import Moving, Watch
    from oci.registry.patience import Patience

_DOCUMENTS = media_types.INDEXES | media_types.MANIFESTS
_PLACES = 3
"""Repositories named as sources of one blob in a push."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How registries are reached. `config` is the path of a configuration ("" for none), `authfile` that of
    the only file with credentials ("" for the usual ones), `credentials` are (host, user, password).

    `cert_dir` holds certificates for the registries that are named, as Docker's `certs.d` ("" for none).
    `tls_verify` False accepts any certificate, and plain http, of those registries. With `offline` nothing is
    asked of anybody. `retries` are the attempts after a first one that failed (None: the usual), before which
    is waited at least `retry_delay_s` seconds (0: the usual).
    """

    config: str = ""
    authfile: str = ""
    cert_dir: str = ""
    credentials: tuple[tuple[str, str, str], ...] = field(default=(), repr=False)
    tls_verify: bool | None = None
    offline: bool = False
    retries: int | None = None
    retry_delay_s: float = 0.0


class Registries:
    """Registries for the images of a store. Use it in `with`: leaving ends what still moves.

    Threads may share it. Methods raise RegistryFailed (3, or 4 for credentials) with what the registry said,
    and NotFound for what nobody is asked for because of `offline`.
    """

    def __init__(self, access: Access, images: Images, emit: Emit, patience: Patience | None = None) -> None:
        self.access = access
        self._patience = patience
        self._images = images
        self.emit = emit
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[Digest, Future[None]] = {}
        self._pushed: dict[Digest, list[Origin]] = {}
        self.shipped: Descriptor | None = None
        """What was pushed last: an image may leave in another compression than it has here."""
        self._cancelled = False

    def __enter__(self) -> Registries:
        return self

    def __exit__(self, *exc: object) -> None:
        self.cancel()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def cancel(self) -> None:
        """End every transfer; what asks for more is told that the build was cancelled. From any thread."""
        with self._lock:
            self._cancelled = True
            client = self._client
        if client is not None:
            client.interrupt()

    @property
    def client(self) -> Client:
        """The client itself, made when first used. Its errors are its own: see `told`."""
        with self._lock:
            if self._cancelled:
                raise BuildCancelled("the build was cancelled")
            if self._client is None:
                self._client = connect(self.access, self._warn, self._patience)
            return self._client

    def _warn(self, text: str) -> None:
        self.emit(Warning_("Registry", text))

    # ---- in ----

    def image(self, reference: Reference, platform: Platform) -> Image:
        """What a name means now for `platform`: manifest and config, stored and named; layers come later."""
        shown = reference.familiar()
        if self.access.offline:
            raise NotFound(f"the image {shown!r} is not in the store", hint=_OFFLINE)
        what = f"resolving {shown}"
        self.emit(Transfer(what, what, 0, 0, stamp()))
        with told(reference):
            found, root, content = self.client.pull_chosen(reference, self._images.layout.blobs, platform)
        self._name(reference, found.descriptor, root, content)
        self.emit(Transfer(what, what, 0, 0, stamp(), done=True))
        return found

    def _name(self, reference: Reference, found: Descriptor, root: Descriptor, content: bytes) -> None:
        """Let a name mean the image that was found; one that means another image of the same index means the
        index then, of which those two are here."""
        came_from = {ROOT: str(root.digest)}
        if root.media_type not in media_types.INDEXES:
            self._images.pulled(reference, found, _pulled_from(reference) | came_from)
            return
        digest = found.digest
        before = self._images.find(reference)
        if before is not None and before.digest == root.digest:
            self._images.pulled(reference, root, _pulled_from(reference, digest) | came_from)
        elif (
            before is not None
            and before.digest != digest
            and before.annotations.get(ROOT) == str(root.digest)
        ):
            self._images.layout.blobs.write(content)
            self._images.pulled(reference, root, _pulled_from(reference, before.digest, digest) | came_from)
        else:
            self._images.pulled(reference, found, _pulled_from(reference) | came_from)

    def root(self, reference: Reference) -> Digest:
        """What a name means now: an index, or the manifest of an image. Nothing is stored."""
        self._check_online(reference)
        with told(reference):
            return self.client.resolve(reference.with_default_tag()).digest

    def documents(self, reference: Reference) -> list[Descriptor]:
        """All images behind a name, their manifests and configs brought into the store, unnamed."""
        from oci.image import is_image
        from oci.model import Index

        self._check_online(reference)
        blobs = self._images.layout.blobs
        with told(reference):
            root, content = self.client.fetch_manifest(reference)
            entries = [root]
            if root.media_type in media_types.INDEXES:
                index = Index.from_json(content, root.media_type)
                entries = [each for each in index.manifests if is_image(each)]
            for each in entries:
                pinned = reference.with_digest(each.digest)
                self.client.pull_documents(pinned, blobs, each.platform or platforms.host())
        return entries

    def pull(self, reference: Reference, platform: Platform | None) -> Descriptor:
        """Bring an image whole, for one platform or for all, and name it; its manifest or index."""
        self._check_online(reference)
        blobs = self._images.layout.blobs
        watch = self._watch(f"pulling {reference.familiar()}")
        with told(reference):
            found, root, content = self.client.pull_of(reference, blobs, platform, watch)
        if found.media_type in media_types.INDEXES:
            parts = [each.digest for each in images(blobs, found)]
            self._images.pulled(reference, found, _pulled_from(reference, *parts) | {ROOT: str(root.digest)})
        else:
            self._name(reference, found, root, content)
        return found

    def bring(self, reference: Reference, store: BlobStore, platform: Platform | None) -> Descriptor:
        """Bring an image whole into any store, without a name."""
        self._check_online(reference)
        watch = self._watch(f"pulling {reference.familiar()}")
        with told(reference):
            return self.client.pull(reference, store, platform, watch)

    def fetch(self, reference: Reference, wanted: Sequence[Descriptor], store: BlobStore) -> None:
        """Bring blobs of a repository into any store."""
        self._check_online(reference)
        with told(reference):
            watch = self._watch(f"pulling {reference.familiar()}")
            self.client.fetch_blobs(reference, wanted, store, watch)

    def restore(self, place: Reference, wanted: Descriptor) -> None:
        """Bring a blob of the store again, be it a manifest or an index, by its digest from a repository."""
        blobs = self._images.layout.blobs
        if wanted.media_type not in _DOCUMENTS:
            self.fetch(place, [wanted], blobs)
            return
        from oci.registry.pull import keep

        self._check_online(place)
        with told(place):
            _, content = self.client.fetch_manifest(place.with_digest(wanted.digest))
        keep(blobs, wanted.digest, wanted.check(content))

    def fetcher(self, image: Image) -> Callable[[int], bool]:
        """What makes layer number `i` (from 0) of an image present, and tells whether strangers wrote it.

        The first layer that is asked for sets all above it moving too, so that they arrive while it is
        unpacked.
        """
        return _Arrivals(self, image)

    def complete(self, descriptor: Descriptor) -> None:
        """Fetch whatever the store lacks of an image or index: nothing to do, and nobody asked, if it lacks
        nothing. Manifests of an index's other platforms may stay away."""
        missing = list(_missing(self._images, descriptor))
        by_place: dict[tuple[Reference, ...], list[Descriptor]] = {}
        for each, having in self._places_of(missing).items():
            by_place.setdefault(having, []).append(each)
        for having, some in by_place.items():
            self._bring(having, some)

    @staticmethod
    def is_complete(images: Images, descriptor: Descriptor) -> bool:
        """Whether the store has all of an image or index."""
        return next(_missing(images, descriptor), None) is None

    def begin(self, wanted: Sequence[Descriptor]) -> None:
        """Set layers moving, in this order; those that are here or move already are left alone."""
        blobs = self._images.layout.blobs
        with self._lock:
            new = [each for each in wanted if each.digest not in self._coming and each.digest not in blobs]
            if new and self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                from oci.registry.client import PARALLEL

                self._pool = ThreadPoolExecutor(PARALLEL, "arriving")
        if not new:
            return
        having = self._places_of(new)
        with self._lock:
            assert self._pool is not None
            if self._cancelled:
                raise BuildCancelled("the build was cancelled")
            for each in new:
                if each.digest not in self._coming:
                    self._coming[each.digest] = self._pool.submit(self._bring, having[each], [each])

    def arrived(self, digest: Digest) -> None:
        """Wait for a layer that was set moving; raises what went wrong with it."""
        with self._lock:
            future = self._coming.get(digest)
        if future is not None:
            future.result()

    def strangers(self, image: Image) -> int:
        """How many layers of an image, from the lowest, came from a registry."""
        found = origins.origins(self._images.layout, image.manifest.digest)
        return max((len(image.layers) if each.layers is None else each.layers for each in found), default=0)

    def _places_of(self, wanted: Sequence[Descriptor]) -> dict[Descriptor, tuple[Reference, ...]]:
        """Where each blob is to be had. Raises NotFound for those nobody knows of, or when offline."""
        if not wanted:
            return {}
        having = origins.places(self._images.layout, {each.digest for each in wanted})
        lost = [each for each in wanted if each.digest not in having]
        if lost or self.access.offline:
            listed = ", ".join(str(each.digest) for each in (lost or wanted)[:3])
            more = len(lost or wanted) - 3
            text = f"not in the store: {listed}" + (f" and {more} more" if more > 0 else "")
            raise NotFound(text, hint=_LOST if lost else _OFFLINE)
        return {each: having[each.digest] for each in wanted}

    def _bring(self, having: Sequence[Reference], wanted: Sequence[Descriptor]) -> None:
        """Fetch blobs from the first place that gives them all."""
        for place in having:
            try:
                with told(place):
                    watch = self._watch(f"pulling {place.familiar()}")
                    self.client.fetch_blobs(place, wanted, self._images.layout.blobs, watch)
                return
            except RegistryFailed as error:
                if place is having[-1]:
                    raise
                self._warn(f"{error}; asking elsewhere")

    # ---- out ----

    def push(
        self,
        store: BlobStore,
        descriptor: Descriptor,
        references: Sequence[Reference],
        *,
        insecure: bool = False,
    ) -> None:
        """Push an image or index under names; one without a tag by digest.

        Layers that the registry has in another repository are mounted; those that are not here are streamed
        from where they are.
        """
        self._check_online(references[0])
        shown = ", ".join(each.familiar() for each in references)
        blobs = {each.digest for each in walk(store, descriptor) if each.media_type not in _DOCUMENTS}
        own = {each.repository for each in references}
        having = {
            digest: [each for each in found if each.repository not in own][:_PLACES]
            for digest, found in origins.places(self._images.layout, blobs).items()
        }
        watch = self._watch(f"pushing {shown}")
        with told(references[0]):
            if insecure:
                with connect(replace(self.access, tls_verify=False), self._warn) as client:
                    client.push(store, descriptor, references, watch, mount_from=having)
            else:
                self.client.push(store, descriptor, references, watch, mount_from=having)
        self.shipped = descriptor
        known = self._pushed.setdefault(descriptor.digest, [])
        known += [Origin(replace(each, tag="", digest=None)) for each in references]
        self._images.note(descriptor.digest, self.pushed(descriptor.digest))

    def copy(self, source: Reference, target: Reference, platform: Platform | None) -> Descriptor:
        """Copy from registry to registry, for one platform or whole, past the store."""
        self._check_online(source)
        with told(source):
            watch = self._watch(f"copying {source.familiar()}")
            return self.client.copy(source, target.with_default_tag(), platform, watch)

    def pushed(self, digest: Digest) -> dict[str, str]:
        """What to remember of an image that was pushed here, for one that gets its entry only now."""
        return facts(*self._pushed.get(digest, ()), kind=PUSHED)

    def _check_online(self, reference: Reference) -> None:
        if self.access.offline:
            raise NotFound(f"{reference.domain} is not asked for {reference.familiar()}", hint=_OFFLINE)

    def _watch(self, what: str) -> Watch:
        def watch(moving: Moving) -> None:
            digest, present = moving.descriptor.digest, moving.state == "present"
            if present and what.startswith("pulling"):
                return
            note = {"present": " (already there)", "mounted": " (mounted)"}.get(moving.state, "")
            done = moving.state in ("done", "present", "mounted")
            count = 0 if note else moving.done
            text = f"{what} {digest.short}{note}"
            self.emit(Transfer(f"{what} {digest}", text, count, moving.descriptor.size, stamp(), done))

        return watch


def _missing(images: Images, descriptor: Descriptor) -> Iterator[Descriptor]:
    """What the store lacks of an image or index, but for the manifests of an index, and for layers that may
    stay where their `urls` are."""
    blobs = images.layout.blobs
    for each in walk(blobs, descriptor, sparse=True):
        if each.media_type not in _DOCUMENTS and each.digest not in blobs and not each.urls:
            yield each


class _Arrivals:
    """The layers of one image, each there when it is asked for."""

    def __init__(self, registries: Registries, image: Image) -> None:
        self._registries = registries
        self._image = image
        self._lock = threading.Lock()
        self._strangers = -1

    def __call__(self, position: int) -> bool:
        with self._lock:
            if self._strangers < 0:
                self._strangers = self._registries.strangers(self._image)
        self._registries.begin(self._image.layers[position:])
        self._registries.arrived(self._image.layers[position].digest)
        return position < self._strangers


_OFFLINE = "with --offline nothing is asked of the network"
_LOST = "pull the image again, or build it again"


def connect(access: Access, warn: Callable[[str], None], patience: Patience | None = None) -> Client:
    """A client with this access. Raises UsageError for a configuration or certificates that are wrong."""
    from builder import config
    from oci.registry.auth import Credential, CredentialStore
    from oci.registry.client import Client

    given = {host: Credential(user, password) for host, user, password in access.credentials}
    reach = config.registries(access.config)
    if access.cert_dir:
        reach = config.with_certificates(reach, access.cert_dir)
    return Client(
        reach,
        CredentialStore.default(access.authfile, given=given),
        offline=access.offline,
        tls_verify=access.tls_verify,
        patience=patience or _patience(access),
        warn=warn,
    )


def _patience(access: Access) -> Patience:
    from oci.registry.patience import Patience

    usual = Patience()
    first = access.retry_delay_s or usual.first
    attempts = usual.attempts if access.retries is None else access.retries + 1
    return replace(usual, attempts=attempts, first=first, longest=max(first, usual.longest))


@contextmanager
def told(reference: Reference) -> Iterator[None]:
    """A registry's refusals as people shall see them: with a hint and an exit code."""
    from oci.registry.patience import Stopped

    try:
        yield
    except Stopped:
        raise BuildCancelled("interrupted") from None
    except RegistryError as error:
        raise RegistryFailed(str(error), code=error.exit_code, hint=hint(error, reference)) from error


def hint(error: OciError, reference: Reference) -> str:
    """What to do about a registry's refusal."""
    from oci.errors import ManifestUnknown, TooManyRequests

    host = "" if reference.domain == DEFAULT_DOMAIN else f" {reference.domain}"
    match error:
        case Unauthorized() if not error.status:
            return ""  # we ourselves did not go on, and said why
        case Unauthorized():
            return f"is the name right? for what is not public: pybuild login{host}"
        case ManifestUnknown() if "NAME_UNKNOWN" in error.codes:
            return "is the name right? the registry has no such repository"
        case ManifestUnknown() if {"BLOB_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"} & set(error.codes):
            return ""  # of one that is there, or is being pushed
        case ManifestUnknown():
            return f"pybuild tags {replace(reference, tag='', digest=None).familiar()} lists what is there"
        case TooManyRequests():
            return f"pybuild login{host} may raise the limit; a mirror avoids it (docs/registries.md)"
        case RegistryError() if error.status == 413:
            return (
                f"`chunk` of {reference.domain} in the configuration sends it in pieces (docs/registries.md)"
            )
    return ""


def _pulled_from(reference: Reference, *digests: Digest) -> dict[str, str]:
    """What to remember of an image from a registry, or of an index with images of these `digests`."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    place = Origin(replace(reference, tag="", digest=None))
    parts = [Origin(place.repository.with_digest(each)) for each in digests]
    return {**facts(place, *parts, kind=ORIGIN), RESOLVED: moment}
