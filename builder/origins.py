"""Where images came from: what `index.json` remembers of an image beside its names (docs/decisions/0008).

Four annotations on its entries, which stay in the store: no archive, layout or registry ever gets them.

    io.pybuild.origin    repositories that have the layers. `3*docker.io/library/debian` are the lowest three
                         of the image, `docker.io/library/debian` are all, and a digest behind the name means
                         the image of an index that it holds for
    io.pybuild.pushed    repositories that it was pushed to: good for mounts, and no word on who wrote a layer
    io.pybuild.root      what its name meant in the registry: the image, or the index it was chosen from
    io.pybuild.resolved  when a registry last said what the name means (RFC 3339)

They belong to the image, not to the name: whatever name is given to it later has them too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from oci.data import dataclass
from oci.digest import Digest
from oci.errors import InvalidReference, OciError
from oci.image import images
from oci.model import Descriptor, Manifest
from oci.reference import Reference

if TYPE_CHECKING:
    from oci.layout import Layout

ORIGIN = "io.pybuild.origin"
PUSHED = "io.pybuild.pushed"
RESOLVED = "io.pybuild.resolved"
ROOT = "io.pybuild.root"

_OURS = frozenset({ORIGIN, PUSHED, RESOLVED, ROOT})
_FORM = re.compile(r"(?:(\d{1,4})\*)?(\S+)")
_MOST = 64
"""Origins remembered of one image or index."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A repository that has the lowest `layers` layers (None: all) of an image; `repository` may hold the
    digest of the manifest that this is about, in an index."""

    repository: Reference
    layers: int | None = None

    @classmethod
    def parse(cls, text: str) -> Origin | None:
        """The origin a word spells; None for what is none."""
        match = _FORM.fullmatch(text)
        if match is None:
            return None
        with suppress(InvalidReference):
            return cls(Reference.parse(match[2]), int(match[1]) if match[1] else None)
        return None

    def __str__(self) -> str:
        return f"{self.layers}*{self.repository}" if self.layers is not None else str(self.repository)

    def covers(self, manifest: Digest, layer: int) -> bool:
        """Whether the repository has layer number `layer` (from 0) of the image `manifest`."""
        about = self.repository.digest in (None, manifest)
        return about and (self.layers is None or layer < self.layers)

    @property
    def place(self) -> Reference:
        """The bare repository."""
        return replace(self.repository, tag="", digest=None)


def known(descriptor: Descriptor, *kinds: str) -> tuple[Origin, ...]:
    """The origins an index entry carries, of these kinds."""
    words = [word for kind in kinds for word in descriptor.annotations.get(kind, "").split()]
    return tuple(origin for word in words if (origin := Origin.parse(word)))


def facts(*origins: Origin, kind: str = ORIGIN) -> dict[str, str]:
    """Origins as an annotation; {} for none."""
    words = dict.fromkeys(str(origin) for origin in origins)
    return {kind: " ".join(list(words)[-_MOST:])} if words else {}


def bare(descriptor: Descriptor) -> Descriptor:
    """The same pointer without what is only for our own index."""
    kept = {key: value for key, value in descriptor.annotations.items() if key not in _OURS}
    return replace(descriptor, annotations=kept)


def remembering(entries: Iterable[Descriptor], descriptor: Descriptor, more: Mapping[str, str]) -> Descriptor:
    """`descriptor` with `more`, and with what `entries` that point at the same image carry."""
    found: dict[str, str] = {}
    for each in (*(entry for entry in entries if entry.digest == descriptor.digest), descriptor):
        found = _merged(found, {key: each.annotations[key] for key in _OURS & each.annotations.keys()})
    found = _merged(found, more)
    return replace(descriptor, annotations={**descriptor.annotations, **found}) if found else descriptor


def _merged(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    merged = {**one, **other}
    for kind in (ORIGIN, PUSHED):
        words = dict.fromkeys((*one.get(kind, "").split(), *other.get(kind, "").split()))
        if words:
            merged[kind] = " ".join(list(words)[-_MOST:])
    return merged


def remembered(layout: Layout, digest: Digest) -> dict[str, str]:
    """All that the index remembers of an image, by annotation."""
    found: dict[str, str] = {}
    for entry in layout.descriptors():
        if entry.digest == digest:
            known_here = {key: entry.annotations[key] for key in _OURS & entry.annotations.keys()}
            found = _merged(found, known_here)
    return found


def origins(layout: Layout, manifest: Digest) -> tuple[Origin, ...]:
    """Where the image with this manifest came from; () for one that was made here or loaded."""
    found = [
        origin
        for entry in layout.descriptors()
        if ORIGIN in entry.annotations
        for origin in known(entry, ORIGIN)
        if (entry.digest == manifest and origin.repository.digest in (None, manifest))
        or origin.repository.digest == manifest
    ]
    return tuple(dict.fromkeys(found))


def of_base(found: Iterable[Origin], layers: int) -> tuple[Origin, ...]:
    """The origins of an image made on a base that has `layers` layers and these origins."""
    return tuple(
        Origin(each.place, layers if each.layers is None else min(each.layers, layers)) for each in found
    )


def places(layout: Layout, wanted: Collection[Digest]) -> dict[Digest, tuple[Reference, ...]]:
    """Repositories that have these blobs, as far as any image of the store tells; origins come first."""
    found: dict[Digest, list[Reference]] = {}
    for entry in layout.descriptors():
        claims = known(entry, ORIGIN, PUSHED)
        if not claims:
            continue
        with suppress(OciError):
            for manifest, layers in _layers(layout, entry):
                for position, layer in enumerate(layers):
                    if layer in wanted:
                        having = [each.place for each in claims if each.covers(manifest, position)]
                        found.setdefault(layer, []).extend(having)
    return {digest: tuple(dict.fromkeys(having)) for digest, having in found.items() if having}


def _layers(layout: Layout, entry: Descriptor) -> Iterator[tuple[Digest, Sequence[Digest]]]:
    """The images below an entry that are here: each manifest with its layers."""
    for image in images(layout.blobs, entry):
        if image.digest in layout.blobs:
            manifest = Manifest.from_json(layout.blobs.document(image), image.media_type)
            yield image.digest, (*(layer.digest for layer in manifest.layers), manifest.config.digest)
