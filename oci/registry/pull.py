"""An image or an index from a registry into a store: documents first, to know what is missing; then blobs in
parallel; then the documents are stored, children before those that point at them. What is in the store is
never fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from oci import media_types, platforms
from oci.blobs import BlobStore
from oci.data import dataclass
from oci.digest import Digest
from oci.errors import InvalidDocument, LimitExceeded, ManifestUnknown, RegistryError
from oci.image import MAX_DEPTH, is_image
from oci.model import Descriptor, ImageConfig, Index, Manifest, Platform, parse
from oci.registry.download import fetch, small
from oci.registry.moving import Watch, together, unwatched
from oci.registry.redact import redact
from oci.registry.repository import Repository

READABLE = media_types.INDEXES | media_types.MANIFESTS


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index, its bytes and what they mean."""

    descriptor: Descriptor
    content: bytes
    value: Manifest | Index


@dataclass(frozen=True, slots=True)
class Tree:
    """All that a pull brings: documents, children first, and the blobs they point at, each once."""

    documents: tuple[Document, ...]
    blobs: tuple[Descriptor, ...]

    @property
    def root(self) -> Descriptor:
        """What the name means."""
        return self.documents[-1].descriptor


Documents = Callable[[Descriptor], Document]


def root_of(sources: Sequence[Repository], locator: str | Digest) -> tuple[Document, Repository]:
    """The manifest a name means, and who said so; mirrors that fail are passed over."""
    for source in sources[:-1]:
        try:
            return _document(*source.manifest(locator)), source
        except RegistryError as error:
            source.calls.warn(f"{error}; asking elsewhere")
    return _document(*sources[-1].manifest(locator)), sources[-1]


def reader(sources: Sequence[Repository], store: BlobStore | None = None) -> Documents:
    """Fetches documents that others point at; from the store if they are there."""

    def read(descriptor: Descriptor) -> Document:
        if store is not None and descriptor.digest in store:
            return _document(descriptor, store.document(descriptor))
        found, _ = root_of(sources, descriptor.digest)
        if len(found.content) != descriptor.size:
            raise RegistryError(
                f"{sources[-1]}: {descriptor.digest} has {len(found.content)} bytes; "
                f"what points at it promises {descriptor.size}"
            )
        if found.descriptor.media_type != descriptor.media_type:
            raise RegistryError(
                f"{sources[-1]}: {descriptor.digest} is {found.descriptor.media_type}; "
                f"what points at it says {redact(descriptor.media_type, 120)}"
            )
        return replace(found, descriptor=replace(found.descriptor, platform=descriptor.platform))

    return read


def select(root: Document, platform: Platform, read: Documents, sources: Sequence[Repository]) -> Document:
    """The image for a platform; a manifest is taken as it is. Raises ManifestUnknown, naming what there
    is."""
    if isinstance(root.value, Manifest):
        return root
    entries = list(_entries(root.value, read, 0))
    known = [entry.platform for entry in entries]
    if platforms.best(platform, known) is None:
        known = [entry.platform or _platform_of(read(entry), sources) for entry in entries]
    position = platforms.best(platform, known)
    if position is None:
        offered = ", ".join(sorted({str(item) for item in known if item})) or "none at all"
        raise ManifestUnknown(f"{sources[-1]}: no image for {platform}; there is {redact(offered)}")
    chosen = read(entries[position])
    return replace(chosen, descriptor=replace(chosen.descriptor, platform=known[position]))


def _entries(index: Index, read: Documents, depth: int) -> Iterator[Descriptor]:
    _check_depth(depth)
    for entry in index.manifests:
        if not is_image(entry):
            continue
        if entry.media_type in media_types.INDEXES:
            nested = read(entry).value
            if isinstance(nested, Index):
                yield from _entries(nested, read, depth + 1)
        elif entry.media_type in media_types.MANIFESTS:
            yield entry


def _platform_of(document: Document, sources: Sequence[Repository]) -> Platform | None:
    if (
        not isinstance(document.value, Manifest)
        or document.value.config.media_type not in media_types.CONFIGS
    ):
        return None
    try:
        return ImageConfig.from_json(small(sources, document.value.config)).platform
    except (InvalidDocument, LimitExceeded) as error:
        raise RegistryError(f"{sources[-1]}: {redact(str(error))}") from None


def tree(root: Document, read: Documents) -> Tree:
    """Everything below a document. Raises RegistryError when indexes are nested too deep."""
    documents: dict[Digest, Document] = {}
    blobs: dict[Digest, Descriptor] = {}

    def visit(document: Document, depth: int) -> None:
        if document.descriptor.digest in documents:
            return
        if isinstance(document.value, Manifest):
            for blob in (*document.value.layers, document.value.config):
                blobs.setdefault(blob.digest, blob)
        else:
            _check_depth(depth)
            for entry in document.value.manifests:
                if entry.media_type in READABLE:
                    visit(read(entry), depth + 1)
                else:
                    blobs.setdefault(entry.digest, entry)
        documents.setdefault(document.descriptor.digest, document)

    visit(root, 0)
    return Tree(tuple(documents.values()), tuple(blobs.values()))


def bring(
    sources: Sequence[Repository], found: Tree, store: BlobStore, watch: Watch = unwatched
) -> Descriptor:
    """Fetch what the store lacks, then store the documents. Nothing points at what is not there."""
    bring_blobs(sources, found.blobs, store, watch)
    for document in found.documents:
        keep(store, document.descriptor.digest, document.content)
    return found.root


def bring_blobs(
    sources: Sequence[Repository], blobs: Sequence[Descriptor], store: BlobStore, watch: Watch = unwatched
) -> None:
    """Fetch blobs in parallel, those that are not there."""
    first = sources[0]

    def task(blob: Descriptor) -> Callable[[], None]:
        return lambda: fetch(sources, blob, store, watch)

    together([task(blob) for blob in blobs], first.calls.parallel, first.stop)


def keep(store: BlobStore, digest: Digest, content: bytes) -> None:
    """Store a document under its digest, of whatever algorithm."""
    if digest not in store:
        with store.writer(algorithm=digest.algorithm) as writer:
            writer.write(content)
            writer.commit(digest)


def _check_depth(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise RegistryError(f"indexes are nested more than {MAX_DEPTH} deep")


def _document(descriptor: Descriptor, content: bytes) -> Document:
    try:
        return Document(descriptor, content, parse(content, descriptor.media_type))
    except (InvalidDocument, LimitExceeded) as error:
        raise RegistryError(f"{descriptor.digest}: {redact(str(error))}") from None
