"""Damaged blobs of the store: put aside where they are met, so that they are fetched or made again (R16)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from builder import origins
from builder.errors import BuildError
from oci import media_types
from oci.data import dataclass
from oci.digest import Digest
from oci.errors import BlobNotFound, DigestMismatch, OciError
from oci.image import walk
from oci.model import Manifest, parse

if TYPE_CHECKING:
    from builder.images import Images
    from builder.registries import Registries
    from builder.soundness import Soundness
    from oci.blobs import BlobStore
    from oci.model import Descriptor
    from oci.reference import Reference

DOCUMENTS = media_types.INDEXES | media_types.MANIFESTS


@dataclass(frozen=True, slots=True)
class Aside:
    """A damaged blob that is out of the way. `names` are the images it belongs to, as people know them;
    `places` repositories that have it; `forgotten` the names that led to nothing without it. `source` is the
    repository that it was fetched from again, and `refusal` why none of them gave it."""

    digest: Digest
    names: tuple[str, ...]
    places: tuple[Reference, ...]
    forgotten: tuple[str, ...]
    source: Reference | None = None
    refusal: str = ""

    @property
    def is_mended(self) -> bool:
        """Whether trying once more makes sense: it is here again, or no image of the store had it, so that
        who needs it gets it from elsewhere."""
        return self.source is not None or not self.names


def put_aside(images: Images, error: BaseException, registries: Registries | None = None) -> Aside | None:
    """The damaged blob that `error` or what led to it tells of, now out of the way; None if there is none.

    With `registries` it is fetched again, by its digest, from where it is known to be. Names that lead to
    nothing without it are taken away. The blob is read again first: nothing sound is moved.
    """
    digest = damaged(error)
    if digest is None:
        return None
    found = _pointers(images, digest)
    names = tuple(dict.fromkeys(shown(entry) for entry, _ in found))
    places = _places(images, digest, found)
    if not quarantine(images.layout.blobs, digest):
        return None
    source, refusal = None, ""
    if registries is not None and found:
        source, refusal = _fetched(registries, found[0][1], places)
    forgotten = () if source else tuple(forget_unreadable(images, {entry.digest for entry, _ in found}))
    return Aside(digest, names, places, forgotten, source, refusal)


def _fetched(
    registries: Registries, wanted: Descriptor, places: Iterable[Reference]
) -> tuple[Reference | None, str]:
    """Bring a blob of the store again; where it was, or what the last place said."""
    refusal = ""
    for place in places:
        try:
            registries.restore(place, wanted)
        except (BuildError, OciError) as error:
            hint = getattr(error, "hint", "")
            refusal = f"{error}: {hint}" if hint else str(error)
        else:
            return place, ""
    return None, refusal


def unsound(images: Images, sound: Soundness, descriptor: Descriptor) -> list[Digest]:
    """The damaged blobs of an image or index, now out of the way; what was found sound lately is not read."""
    blobs = images.layout.blobs
    try:
        parts = {each.digest for each in walk(blobs, descriptor, sparse=True) if each.digest in blobs}
    except DigestMismatch as error:
        digest = damaged(error)
        return [digest] if digest is not None and quarantine(blobs, digest) else []
    found = []
    for digest in sorted(parts - sound.known(parts), key=str):
        if blobs.is_fresh(digest):
            continue
        if quarantine(blobs, digest):
            found.append(digest)
        else:
            sound.remember(digest)
    return found


def damaged(error: BaseException) -> Digest | None:
    """The blob of a store that `error` or what led to it calls damaged."""
    for each in _chain(error):
        if isinstance(each, DigestMismatch) and each.blob:
            return Digest.parse(each.blob)
    return None


def quarantine(blobs: BlobStore, digest: Digest) -> str:
    """Where the blob went, "" for one that is sound or not there."""
    try:
        blobs.verify(digest)
    except DigestMismatch:
        return blobs.quarantine(digest)
    except BlobNotFound:
        pass
    return ""


def forget_unreadable(images: Images, among: Collection[Digest] | None = None) -> list[str]:
    """Take names away that lead to no readable manifest or config, so that they are asked for anew; which.
    Those of the images `among`, else all."""
    gone = []
    with images.layout.editing() as names:
        for entry in list(names.entries):
            if (among is None or entry.digest in among) and unreadable(images.layout.blobs, entry):
                names.entries.remove(entry)
                gone.append(shown(entry))
    return gone


def unreadable(blobs: BlobStore, entry: Descriptor) -> str:
    """Why an entry of the index cannot be used: its manifest or config is not there or wrong; "" if it can.

    Layers may be elsewhere, and of an index some platforms' images.
    """
    if entry.media_type not in DOCUMENTS:
        return "" if entry.digest in blobs else f"{entry.digest} is not there"
    try:
        document = parse(blobs.document(entry), entry.media_type)
        if isinstance(document, Manifest):
            blobs.read(document.config.digest)
        elif document.manifests and not any(each.digest in blobs for each in document.manifests):
            return "none of the images of its index is there"
    except OciError as error:
        return str(error)
    return ""


def _pointers(images: Images, digest: Digest) -> list[tuple[Descriptor, Descriptor]]:
    """The entries of the index that lead to a blob, each with the descriptor of the blob it leads to."""
    found = []
    for entry in images.layout.descriptors():
        parts = {entry.digest: entry}
        with suppress(OciError):  # what cannot be read leads no further, and is yielded before it is read
            for each in walk(images.layout.blobs, entry, sparse=True):
                parts.setdefault(each.digest, each)
        if digest in parts:
            found.append((entry, parts[digest]))
    return found


def _places(
    images: Images, digest: Digest, found: Iterable[tuple[Descriptor, Descriptor]]
) -> tuple[Reference, ...]:
    """Where a blob is to be had; an index or a manifest where all of an image is that leads to it."""
    having = [
        each.place
        for entry, wanted in found
        if wanted.media_type in DOCUMENTS
        for each in origins.known(entry, origins.ORIGIN, origins.PUSHED)
        if each.layers is None
    ]
    return tuple(dict.fromkeys(having)) or origins.places(images.layout, {digest}).get(digest, ())


def shown(entry: Descriptor) -> str:
    """An entry of the index as people know it."""
    from oci.layout import name_of

    return name_of(entry) or str(entry.digest)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
