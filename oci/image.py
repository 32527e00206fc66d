"""An image as a value: its manifest, its config, and the ways to make another one of it.

    image = Image.load(store, descriptor).append(layer, History(created_by="COPY . /app"))
    descriptor = image.write(store)

Nothing is changed in place and nothing touches a store before `write`. What was read keeps its bytes, and so
its digests, until something in it really changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from oci import media_types, platforms
from oci.blobs import BlobStore
from oci.data import dataclass
from oci.digest import Digest
from oci.errors import InvalidDocument, NotAnImage
from oci.model import Descriptor, History, ImageConfig, Index, Manifest, Platform, Raw, parse
from oci.progress import Progress, no_progress

if TYPE_CHECKING:
    from oci.layer import Layer

Kind = Literal["oci", "docker"]
MAX_DEPTH = 8
"""How deep indexes may nest."""

ATTESTATION = "vnd.docker.reference.type"
"""The annotation by which BuildKit marks an index entry that is about an image and is none."""

_DOCKER_OF = {
    media_types.OCI_INDEX: media_types.DOCKER_INDEX,
    media_types.OCI_MANIFEST: media_types.DOCKER_MANIFEST,
    media_types.OCI_CONFIG: media_types.DOCKER_CONFIG,
    media_types.OCI_LAYER: media_types.DOCKER_LAYER,
    media_types.OCI_LAYER_GZIP: media_types.DOCKER_LAYER_GZIP,
    media_types.OCI_LAYER_ZSTD: media_types.DOCKER_LAYER_ZSTD,
}
_OCI_OF = {docker: oci for oci, docker in _DOCKER_OF.items()}


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest and its config, each with its bytes; always consistent with each other."""

    manifest: Raw[Manifest]
    config: Raw[ImageConfig]

    @classmethod
    def of(
        cls,
        config: ImageConfig | Raw[ImageConfig],
        layers: tuple[Descriptor, ...] = (),
        *,
        annotations: Mapping[str, str] | None = None,
        kind: Kind = "oci",
    ) -> Image:
        """A new image. `config.diff_ids` must match `layers`, lowest first; raises InvalidDocument."""
        raw = config if isinstance(config, Raw) else Raw.of(config)
        pointer = Descriptor.of(media_types.OCI_CONFIG, raw.content)
        manifest = Manifest(pointer, layers, annotations=annotations or {})
        return cls(Raw.of(_converted(manifest, kind)), _checked(raw, manifest))

    @classmethod
    def scratch(cls, platform: Platform) -> Image:
        """The image without layers."""
        return cls.of(ImageConfig(platform))

    @classmethod
    def load(cls, store: BlobStore, descriptor: Descriptor) -> Image:
        """The image `descriptor` points at. Raises BlobNotFound, DigestMismatch, or InvalidDocument for an
        index, an artifact, or documents that contradict each other."""
        content = store.document(descriptor)
        if descriptor.media_type in media_types.INDEXES:
            raise InvalidDocument(f"{descriptor.digest} is an index of images; choose one by its platform")
        manifest = Manifest.from_json(content, descriptor.media_type)
        if manifest.config.media_type not in media_types.CONFIGS:
            raise NotAnImage(
                f"manifest.config.mediaType: {manifest.config.media_type!r}; an artifact, not an image"
            )
        config = store.document(manifest.config)
        raw = Raw(ImageConfig.from_json(config), config)
        return cls(Raw(manifest, content), _checked(raw, manifest))

    @property
    def id(self) -> Digest:
        """The image id: the config's digest."""
        return self.manifest.value.config.digest

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layers, lowest first."""
        return self.manifest.value.layers

    @property
    def platform(self) -> Platform:
        """What it runs on."""
        return self.config.value.platform

    @property
    def descriptor(self) -> Descriptor:
        """The pointer to this image, with its platform, as an index wants it."""
        plain = Descriptor.of(self.manifest.value.media_type, self.manifest.content)
        return replace(plain, platform=self.platform if self.platform.os else None)

    @property
    def kind(self) -> Kind:
        """Whose media types it has."""
        return "docker" if self.manifest.value.media_type == media_types.DOCKER_MANIFEST else "oci"

    def append(self, layer: Layer | None, history: History) -> Image:
        """This with one step more. A step without a layer gets `empty_layer` in its history."""
        config = self.config.value
        history = replace(history, empty_layer=layer is None)
        grown = replace(config, history=(*config.history, history))
        if layer is None:
            return self._with(grown, self.layers)
        grown = replace(grown, diff_ids=(*config.diff_ids, layer.diff_id))
        return self._with(grown, (*self.layers, Descriptor(layer.media_type, layer.digest, layer.size)))

    def with_config(self, config: ImageConfig) -> Image:
        """This with another config, whose diffIDs must fit the layers. Equal configs keep their bytes."""
        return self if config == self.config.value else self._with(config, self.layers)

    def annotated(self, annotations: Mapping[str, str]) -> Image:
        """This with more annotations on the manifest."""
        manifest = self.manifest.value
        merged = {**manifest.annotations, **annotations}
        if merged == manifest.annotations:
            return self
        return replace(self, manifest=Raw.of(replace(manifest, annotations=merged)))

    def converted(self, kind: Kind) -> Image:
        """This with OCI's or with Docker's media types; config and layers keep their bytes."""
        manifest = _converted(self.manifest.value, kind)
        return self if manifest == self.manifest.value else replace(self, manifest=Raw.of(manifest))

    def write(self, store: BlobStore) -> Descriptor:
        """Store config and manifest, in this order (the layers are there already); `descriptor`."""
        for document in (self.config, self.manifest):
            if document.digest not in store:
                store.write(document.content)
        return self.descriptor

    def _with(self, config: ImageConfig, layers: tuple[Descriptor, ...]) -> Image:
        raw = Raw.of(config)
        pointer = Descriptor.of(media_types.OCI_CONFIG, raw.content)
        manifest = replace(self.manifest.value, config=pointer, layers=layers)
        return Image(Raw.of(_converted(manifest, self.kind)), _checked(raw, manifest))


def _checked(config: Raw[ImageConfig], manifest: Manifest) -> Raw[ImageConfig]:
    diff_ids, layers = len(config.value.diff_ids), len(manifest.layers)
    if diff_ids != layers:
        raise InvalidDocument(f"config.rootfs.diff_ids: {diff_ids}, but the manifest has {layers} layers")
    return config


def _converted(manifest: Manifest, kind: Kind) -> Manifest:
    names = _DOCKER_OF if kind == "docker" else _OCI_OF

    def renamed(descriptor: Descriptor) -> Descriptor:
        return replace(descriptor, media_type=names.get(descriptor.media_type, descriptor.media_type))

    return replace(
        manifest,
        media_type=names.get(manifest.media_type, manifest.media_type),
        config=renamed(manifest.config),
        layers=tuple(renamed(layer) for layer in manifest.layers),
    )


def index_of(
    descriptors: tuple[Descriptor, ...], kind: Kind = "oci", *, annotations: Mapping[str, str] | None = None
) -> Raw[Index]:
    """An index of images, in the order given."""
    media_type = media_types.DOCKER_INDEX if kind == "docker" else media_types.OCI_INDEX
    return Raw.of(Index(descriptors, media_type, annotations=annotations or {}))


def walk(store: BlobStore, descriptor: Descriptor, *, sparse: bool = False) -> Iterator[Descriptor]:
    """Everything a pointer leads to, itself first, each index and manifest once.

    Only indexes and manifests are read. `sparse` passes over those the store does not hold, as after the
    pull of one platform. Raises BlobNotFound, DigestMismatch, and InvalidDocument beyond MAX_DEPTH.
    """
    yield from _walk(store, descriptor, sparse, 0, set())


def _walk(
    store: BlobStore, descriptor: Descriptor, sparse: bool, depth: int, seen: set[Digest]
) -> Iterator[Descriptor]:
    readable = descriptor.media_type in media_types.INDEXES | media_types.MANIFESTS
    if readable and (descriptor.digest in seen or (sparse and descriptor.digest not in store)):
        return
    yield descriptor
    if not readable:
        return
    seen.add(descriptor.digest)
    document = parse(store.document(descriptor), descriptor.media_type)
    if isinstance(document, Manifest):
        yield document.config
        yield from document.layers
        return
    _check_depth(descriptor, depth)
    for item in document.manifests:
        yield from _walk(store, item, sparse, depth + 1, seen)


def verify(store: BlobStore, *descriptors: Descriptor) -> None:
    """Read all that pointers lead to and that is here, but for what this process has read or written already:
    for who must not begin what cannot be finished. Raises DigestMismatch."""
    for descriptor in descriptors:
        for each in walk(store, descriptor, sparse=True):
            if each.digest in store and not store.is_fresh(each.digest):
                store.verify(each.digest)


def copy(
    source: BlobStore, descriptor: Descriptor, target: BlobStore, *, progress: Progress = no_progress
) -> None:
    """Copy all that a pointer leads to, each blob before those that point at it.

    Layers that are only ever fetched from `urls` may be missing. Raises BlobNotFound, DigestMismatch.
    """
    for item in reversed(tuple(walk(source, descriptor))):
        if item.digest in source or not item.urls:
            target.take(item.digest, source, progress)


def images(store: BlobStore, descriptor: Descriptor) -> tuple[Descriptor, ...]:
    """The images below a pointer, each with its platform; attestations are left out.

    A manifest is read only if its entry names no platform, so those of other platforms may be absent.
    """
    return tuple(_images(store, descriptor, 0, set()))


def _images(store: BlobStore, entry: Descriptor, depth: int, seen: set[Digest]) -> Iterator[Descriptor]:
    if entry.digest in seen or not is_image(entry):
        return
    seen.add(entry.digest)
    if entry.media_type in media_types.INDEXES:
        _check_depth(entry, depth)
        for item in Index.from_json(store.document(entry), entry.media_type).manifests:
            yield from _images(store, item, depth + 1, seen)
    elif entry.media_type in media_types.MANIFESTS:
        yield entry if entry.platform else Image.load(store, entry).descriptor


def _check_depth(descriptor: Descriptor, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidDocument(f"{descriptor.digest}: indexes are nested more than {MAX_DEPTH} deep")


def is_image(entry: Descriptor) -> bool:
    """Whether an index entry is an image, not an attestation about one."""
    unknown = entry.platform is not None and entry.platform.os == "unknown"
    return ATTESTATION not in entry.annotations and not unknown


def select(store: BlobStore, descriptor: Descriptor, platform: Platform) -> Descriptor | None:
    """The image below a pointer that fits `platform` best, None if none does. A manifest is taken as is."""
    if descriptor.media_type not in media_types.INDEXES:
        return descriptor
    offered = images(store, descriptor)
    position = platforms.best(platform, [item.platform for item in offered])
    return None if position is None else offered[position]
