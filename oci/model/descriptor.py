"""Descriptors and platforms, and what all documents share in reading and writing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from oci.data import dataclass
from oci.digest import Digest
from oci.errors import DigestMismatch, InvalidDocument
from oci.strict_json import Fields, kept


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on (image-spec: image-index.md, platform). `oci.platforms` parses and compares."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A typed pointer to a blob (image-spec: descriptor.md). `size` is in bytes."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None
    artifact_type: str = ""
    urls: tuple[str, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, media_type: str, content: bytes) -> Descriptor:
        """The descriptor of bytes at hand."""
        return cls(media_type, Digest.of(content), len(content))

    def check(self, content: bytes) -> bytes:
        """`content`, if it is what this descriptor promises, else DigestMismatch: size first, then digest."""
        if len(content) != self.size:
            raise DigestMismatch(
                f"{self.digest} has {len(content)} bytes; its descriptor promises {self.size}",
                blob=str(self.digest),
            )
        if (actual := Digest.of(content, self.digest.algorithm)) != self.digest:
            raise DigestMismatch(f"expected the bytes of {self.digest}, got {actual}", blob=str(self.digest))
        return content


def descriptor_of(fields: Fields) -> Descriptor:
    """The descriptor an object holds. Raises InvalidDocument."""
    size = fields.number("size")
    if size < 0:
        raise InvalidDocument(f"{fields.at('size')}: {size} is negative")
    platform = fields.object("platform")
    return Descriptor(
        media_type=fields.text("mediaType", need=True),
        digest=fields.digest("digest"),
        size=size,
        annotations=fields.mapping("annotations"),
        platform=platform_of(platform) if platform else None,
        artifact_type=fields.text("artifactType"),
        urls=fields.texts("urls") or (),
        extra=fields.rest(exact=True),
    )


def platform_of(fields: Fields) -> Platform:
    """The platform among an object's fields."""
    return Platform(
        os=fields.text("os"),
        architecture=fields.text("architecture"),
        variant=fields.text("variant"),
        os_version=fields.text("os.version"),
        os_features=fields.texts("os.features") or (),
    )


def descriptor_value(descriptor: Descriptor) -> dict[str, object]:
    """A descriptor as JSON will show it."""
    known = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
        "urls": list(descriptor.urls),
        "annotations": ordered(descriptor.annotations),
        "platform": descriptor.platform and platform_value(descriptor.platform),
        "artifactType": descriptor.artifact_type,
    }
    return kept(present(known, "size"), descriptor.extra)


def platform_value(platform: Platform) -> dict[str, object]:
    """A platform as JSON will show it."""
    known = {
        "architecture": platform.architecture,
        "os": platform.os,
        "os.version": platform.os_version,
        "os.features": list(platform.os_features),
        "variant": platform.variant,
    }
    return present(known, "architecture", "os")


def present(known: Mapping[str, object], *always: str) -> dict[str, object]:
    """`known` without its empty values (Go's `omitempty`), but for those that must be written."""
    return {
        key: value for key, value in known.items() if key in always or value not in ("", 0, None, [], (), {})
    }


def ordered(mapping: Mapping[str, str]) -> dict[str, str]:
    """A mapping as Go writes maps: by key."""
    return {key: mapping[key] for key in sorted(mapping)}
