"""Which image a name means in FROM and COPY --from: the store's, else what a registry has (D09).

A name that the store knows is not looked up again: builds repeat without a network. `pull` asks anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from builder.errors import NotFound, RegistryFailed
from builder.origins import RESOLVED
from oci import platforms
from oci.errors import BlobNotFound
from oci.image import Image, select

if TYPE_CHECKING:
    from builder.images import Images
    from builder.registries import Access
    from oci.model import Platform
    from oci.reference import Reference


class Resolver(Protocol):
    """Whoever can be asked for images: registries."""

    @property
    def access(self) -> Access: ...
    def image(self, reference: Reference, platform: Platform) -> Image: ...


def find(
    images: Images, registries: Resolver | None, reference: Reference, platform: Platform, *, pull: bool
) -> Image:
    """The image for `platform`; of one that is pulled, layers may still be missing.

    Raises NotFound for what is not in the store when there is nobody to ask, RegistryFailed.
    """
    if pull and registries is not None:
        return registries.image(reference, platform)
    here, advice = _in_store(images, reference, platform)
    if here is not None and (
        registries is None or registries.access.offline or _fits(images, here, platform)
    ):
        return here
    if registries is None:
        raise NotFound(f"the image {reference.familiar()!r} is not in the local store", hint=advice)
    try:
        return registries.image(reference, platform)
    except (RegistryFailed, NotFound) as error:
        if advice.startswith("did you mean"):
            error.hint = f"{advice} {error.hint}".rstrip()
        error.hint = error.hint or "the store has no image of that name; pybuild images lists what it has"
        raise


def _in_store(images: Images, reference: Reference, platform: Platform) -> tuple[Image | None, str]:
    """The store's image by this name, or by the id that it begins; else None and what may have been meant."""
    blobs = images.layout.blobs
    descriptor = images.find(reference)
    if descriptor is None and reference.digest is not None:  # whatever it is called here: it is that
        entries = images.layout.descriptors()
        descriptor = next((each for each in entries if each.digest == reference.digest), None)
    if descriptor is None:
        try:
            descriptor = images.resolve(reference.familiar().removesuffix(":latest")).descriptor
        except NotFound as error:
            return None, error.hint
    try:
        chosen = select(blobs, descriptor, platform)
        return (Image.load(blobs, chosen) if chosen else None), ""
    except BlobNotFound:
        return None, ""  # an index of which other platforms were loaded


def _fits(images: Images, image: Image, platform: Platform) -> bool:
    """Whether to be content with what the store has. What was made here is taken as it is; what came from a
    registry may be had there for the right platform too."""
    if platforms.best(platform, [image.platform]) is not None:
        return True
    entries = (each for each in images.layout.descriptors() if each.digest == image.manifest.digest)
    return not any(RESOLVED in each.annotations for each in entries)
