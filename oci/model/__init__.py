"""The image-spec's documents as values: descriptors, manifests, indexes and image configs.

A document is read with `from_json` and written with `to_json`. Digests are of bytes, so what somebody else
wrote is never written again: `Raw` keeps a document's bytes beside its value. What we do not know survives in
`extra`. Fields are written in the order of the reference implementation's structs, compact, so that equal
values have equal digests.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from oci.data import dataclass
from oci.digest import Digest
from oci.model.config import Healthcheck, History, ImageConfig, RunConfig
from oci.model.descriptor import Descriptor, Platform, descriptor_value, platform_value
from oci.model.manifest import Index, Manifest, parse

__all__ = [
    "Descriptor",
    "Healthcheck",
    "History",
    "ImageConfig",
    "Index",
    "Manifest",
    "Platform",
    "Raw",
    "RunConfig",
    "descriptor_value",
    "parse",
    "platform_value",
]


class _Document(Protocol):
    def to_json(self) -> bytes: ...


T = TypeVar("T", bound=_Document)


@dataclass(frozen=True, slots=True)
class Raw(Generic[T]):
    """A document and the very bytes it was read from or written as."""

    value: T
    content: bytes

    @classmethod
    def of(cls, value: T) -> Raw[T]:
        """A document of our own making."""
        return cls(value, value.to_json())

    @property
    def digest(self) -> Digest:
        """The sha256 digest of the bytes."""
        return Digest.of(self.content)
