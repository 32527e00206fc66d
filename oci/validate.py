"""Is an image what it says it is? Every blob there, every digest true, every document by its schema.

    for finding in validate(layout.blobs, descriptor):
        print(finding)

Costs one read and one decompression of everything the pointer leads to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from oci import media_types, platforms, schema
from oci.blobs import BlobStore
from oci.compress import open_compressed
from oci.digest import Digest
from oci.durable import CHUNK
from oci.errors import OciError
from oci.image import MAX_DEPTH, is_image
from oci.layout import Layout
from oci.model import Descriptor, ImageConfig, Index, Manifest, parse
from oci.progress import Progress, no_progress
from oci.schema import Finding


def validate(
    where: Layout | BlobStore, descriptor: Descriptor, *, progress: Progress = no_progress
) -> list[Finding]:
    """What is wrong with what `descriptor` points at, in `where`; nothing found means a sound image."""
    store = where.blobs if isinstance(where, Layout) else where
    return list(_Walk(store, progress).pointer(descriptor, 0))


def content_digest(
    store: BlobStore, layer: Descriptor, *, progress: Progress = no_progress
) -> tuple[str, Digest]:
    """The codec a layer's bytes are in, and the digest of what is packed in them: its diffID.

    The blob is verified on the way. Raises InvalidArchive, DigestMismatch, BlobNotFound, LimitExceeded.
    """
    hasher = hashlib.sha256()
    with store.open(layer.digest) as blob:
        content = open_compressed(blob)
        while chunk := content.read(CHUNK):
            hasher.update(chunk)
            progress(len(chunk))
        while blob.read(CHUNK):
            pass
    return content.format, Digest("sha256", hasher.hexdigest())


class _Walk:
    """One validation; remembers what it has seen, so that what several images share is read once."""

    def __init__(self, store: BlobStore, progress: Progress) -> None:
        self._store = store
        self._progress = progress
        self._seen: set[Digest] = set()
        self._contents: dict[Digest, tuple[str, Digest]] = {}

    def pointer(self, descriptor: Descriptor, depth: int) -> Iterator[Finding]:
        """What is wrong behind one pointer."""
        if descriptor.digest in self._seen:
            return
        self._seen.add(descriptor.digest)
        if depth > MAX_DEPTH:
            yield _error(descriptor, f"indexes are nested more than {MAX_DEPTH} deep")
            return
        try:
            if descriptor.media_type in media_types.INDEXES | media_types.MANIFESTS:
                yield from self._document(descriptor, depth)
            else:
                yield from self._blob(descriptor)
        except OciError as error:
            yield _error(descriptor, str(error))

    def _document(self, descriptor: Descriptor, depth: int) -> Iterator[Finding]:
        content = self._store.document(descriptor)
        kind = "index" if descriptor.media_type in media_types.INDEXES else "manifest"
        yield from _inside(descriptor, schema.findings(kind, content))
        document = parse(content, descriptor.media_type)
        if isinstance(document, Index):
            for item in document.manifests:
                yield from self.pointer(item, depth + 1)
            return
        is_config = document.config.media_type in media_types.CONFIGS
        if is_config and is_image(descriptor):
            yield from self._image(descriptor, document)
            return
        for item in (document.config, *document.layers):
            yield from self.pointer(item, depth)

    def _image(self, descriptor: Descriptor, manifest: Manifest) -> Iterator[Finding]:
        content = self._store.document(manifest.config)
        yield from _inside(manifest.config, schema.findings("config", content))
        config = ImageConfig.from_json(content)
        yield from _agreement(descriptor, manifest, config)
        for position, layer in enumerate(manifest.layers):
            expected = config.diff_ids[position] if position < len(config.diff_ids) else None
            yield from self._layer(layer, expected)

    def _layer(self, layer: Descriptor, expected: Digest | None) -> Iterator[Finding]:
        try:
            yield from self._size(layer)
            if layer.digest not in self._contents:
                self._contents[layer.digest] = content_digest(self._store, layer, progress=self._progress)
        except OciError as error:
            yield _error(layer, str(error))
            return
        codec, actual = self._contents[layer.digest]
        named = media_types.LAYER_CODECS.get(layer.media_type)
        if named is None:
            yield Finding(
                "warning", str(layer.digest), f"{layer.media_type} is no layer type of OCI or Docker"
            )
        elif named != codec:
            yield _error(layer, f"its media type says {named}, its bytes are {codec}")
        if expected is not None and actual != expected:
            yield _error(layer, f"its content is {actual}; the config's diffID says {expected}")

    def _blob(self, descriptor: Descriptor) -> Iterator[Finding]:
        yield from self._size(descriptor)
        self._store.verify(descriptor.digest, self._progress)

    def _size(self, descriptor: Descriptor) -> Iterator[Finding]:
        size = self._store.size(descriptor.digest)
        if size != descriptor.size:
            yield _error(descriptor, f"has {size} bytes; its descriptor promises {descriptor.size}")


def _agreement(descriptor: Descriptor, manifest: Manifest, config: ImageConfig) -> Iterator[Finding]:
    """Whether descriptor, manifest and config tell one story."""
    layers, diff_ids = len(manifest.layers), len(config.diff_ids)
    if layers != diff_ids:
        yield _error(descriptor, f"the manifest has {layers} layers, the config {diff_ids} diffIDs")
    steps = sum(not item.empty_layer for item in config.history)
    if config.history and steps != diff_ids:
        yield Finding(
            "warning", str(manifest.config.digest), f"history tells of {steps} layers; there are {diff_ids}"
        )
    if descriptor.platform and not platforms.matches(descriptor.platform, config.platform):
        yield _error(descriptor, f"the index says {descriptor.platform}, the config {config.platform}")


def _inside(descriptor: Descriptor, found: list[Finding]) -> Iterator[Finding]:
    for finding in found:
        yield Finding(finding.severity, f"{descriptor.digest}: {finding.path}", finding.message)


def _error(descriptor: Descriptor, message: str) -> Finding:
    return Finding("error", str(descriptor.digest), message)
