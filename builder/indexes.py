"""Indexes put together from images of the store and of registries (`manifest create`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from builder import origins
from builder.errors import NotFound, UsageError
from builder.origins import ORIGIN, Origin, facts
from oci import media_types
from oci.digest import Digest
from oci.image import Image, images
from oci.model import Descriptor, Index, Raw
from oci.reference import Reference

if TYPE_CHECKING:
    from builder.images import Images
    from builder.registries import Registries

Member = tuple[Descriptor, tuple[Origin, ...]]
"""An image of an index, and where its layers are to be had if they are not here."""


def make(
    stored: Images,
    registries: Registries,
    name: Reference,
    members: Sequence[Reference],
    *,
    amend: bool = False,
    annotations: Mapping[str, str] | None = None,
    docker: bool = False,
    dry_run: bool = False,
) -> Raw[Index]:
    """Make the index `name` in the store. A later image takes the place of an earlier one of its platform.

    With `dry_run` nothing gets that name, and the index is not kept.
    Raises UsageError when two images given are for the same platform, NotFound, RegistryFailed.
    """
    before, known = _amended(stored, name) if amend else (Index(()), ())
    found: dict[Digest, Member] = {}
    for entry in before.manifests:
        found[entry.digest] = entry, tuple(each for each in known if each.repository.digest == entry.digest)
    chosen: dict[str, Reference] = {}
    for member in members:
        for descriptor, having in _images_of(stored, registries, member):
            _refuse_twice(chosen, descriptor, member)
            same = [each for each, _ in found.values() if each.platform == descriptor.platform]
            for each in same:
                del found[each.digest]
            found[descriptor.digest] = (descriptor, having)
    media_type = media_types.DOCKER_INDEX if docker else media_types.OCI_INDEX
    index = Index(
        tuple(descriptor for descriptor, _ in found.values()),
        media_type,
        annotations={**before.annotations, **(annotations or {})},
    )
    made = Raw.of(index)
    if dry_run:
        return made
    descriptor = stored.layout.blobs.put(media_type, made.content)
    remembered = [
        Origin(origin.repository.with_digest(digest), origin.layers)
        for digest, (_, having) in found.items()
        for origin in having
    ]
    stored.tag(name, descriptor, facts(*remembered, kind=ORIGIN))
    return made


def _amended(stored: Images, name: Reference) -> tuple[Index, tuple[Origin, ...]]:
    descriptor = stored.find(name)
    if descriptor is None or descriptor.media_type not in media_types.INDEXES:
        raise NotFound(f"there is no index {name.familiar()!r} in the store to amend")
    content = stored.layout.blobs.document(descriptor)
    return Index.from_json(content, descriptor.media_type), origins.known(descriptor, ORIGIN)


def _refuse_twice(chosen: dict[str, Reference], descriptor: Descriptor, member: Reference) -> None:
    platform = str(descriptor.platform)
    other = chosen.setdefault(platform, member)
    if other is not member:
        raise UsageError(f"{other.familiar()} and {member.familiar()} both have an image for {platform}")


def _images_of(stored: Images, registries: Registries, member: Reference) -> Iterator[Member]:
    """The images that a name means: the store's, else the registry's."""
    local = stored.find(member)
    if local is not None:
        for each in images(stored.layout.blobs, local):
            known = origins.origins(stored.layout, each.digest)
            yield _with_platform(stored, each), known
        return
    place = Origin(replace(member, tag="", digest=None))
    for each in registries.documents(member):
        yield _with_platform(stored, each), (place,)


def _with_platform(stored: Images, descriptor: Descriptor) -> Descriptor:
    image = Image.load(stored.layout.blobs, descriptor)
    pointer = origins.bare(descriptor)
    plain = Descriptor(pointer.media_type, pointer.digest, pointer.size, platform=pointer.platform)
    return plain if plain.platform else replace(plain, platform=image.platform)
