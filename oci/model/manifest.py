"""Manifests and indexes: the documents that point at blobs, and at each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TypedDict

from oci import media_types
from oci.data import dataclass
from oci.errors import InvalidDocument
from oci.model.descriptor import Descriptor, descriptor_of, descriptor_value, ordered, present
from oci.strict_json import Fields, dumps, kept, loads


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image, or one artifact: a config and layers, lowest first (image-spec: manifest.md)."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    media_type: str = media_types.OCI_MANIFEST
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    subject: Descriptor | None = None
    artifact_type: str = ""
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, content: bytes, media_type: str = "") -> Manifest:
        """Read a manifest. `media_type` is what the pointer to it, or a Content-Type, says it is.

        Raises InvalidDocument with the JSON path, LimitExceeded beyond 4 MiB.
        """
        fields = Fields(loads(content, "manifest"), "manifest")
        kind = _envelope(fields, media_type, media_types.MANIFESTS, media_types.OCI_MANIFEST)
        config = fields.object("config")
        if config is None:
            raise InvalidDocument("manifest.config: missing")
        if "layers" not in fields:
            raise InvalidDocument("manifest.layers: missing")
        return cls(
            config=descriptor_of(config),
            layers=tuple(descriptor_of(layer) for layer in fields.objects("layers")),
            media_type=kind,
            **_common(fields),
        )

    def to_json(self) -> bytes:
        """The manifest's bytes."""
        layers = [descriptor_value(layer) for layer in self.layers]
        return _written(self, {"config": descriptor_value(self.config), "layers": layers})


@dataclass(frozen=True, slots=True)
class Index:
    """Pointers to manifests, mostly one for each platform (image-spec: image-index.md)."""

    manifests: tuple[Descriptor, ...]
    media_type: str = media_types.OCI_INDEX
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    subject: Descriptor | None = None
    artifact_type: str = ""
    extra: Mapping[str, object] = field(default_factory=dict, hash=False)

    @classmethod
    def from_json(cls, content: bytes, media_type: str = "") -> Index:
        """Read an index or Docker's manifest list; see Manifest.from_json."""
        fields = Fields(loads(content, "index"), "index")
        kind = _envelope(fields, media_type, media_types.INDEXES, media_types.OCI_INDEX)
        if "manifests" not in fields:
            raise InvalidDocument("index.manifests: missing")
        return cls(
            manifests=tuple(descriptor_of(item) for item in fields.objects("manifests")),
            media_type=kind,
            **_common(fields),
        )

    def to_json(self) -> bytes:
        """The index's bytes."""
        return _written(self, {"manifests": [descriptor_value(item) for item in self.manifests]})


def parse(content: bytes, media_type: str = "") -> Manifest | Index:
    """A manifest or an index: what `media_type` says; without one, what its structure says."""
    if not media_type:
        fields = Fields(loads(content, "document"), "document")
        is_index = "manifests" in fields and "layers" not in fields
        media_type = fields.text("mediaType") or (media_types.OCI_INDEX if is_index else "")
    if media_type in media_types.INDEXES:
        return Index.from_json(content, media_type)
    return Manifest.from_json(content, media_type)


def _envelope(fields: Fields, expected: str, allowed: frozenset[str], default: str) -> str:
    """The document's media type, once pointer, text and structure agree (CVE-2021-41190)."""
    for key in ("manifests", "layers", "config"):
        fields.get(key)  # now `rest` knows all three, in whatever case
    if "manifests" in fields and ("layers" in fields or "config" in fields):
        raise InvalidDocument(
            f"{fields.path}: has `manifests` beside `layers` or `config`; it may be one or the other"
        )
    if fields.number("schemaVersion", -1) == 1:
        raise InvalidDocument(
            f"{fields.path}: Docker's schema 1 is obsolete; push the image again with a current tool"
        )
    if (version := fields.number("schemaVersion", -1)) != 2:
        raise InvalidDocument(
            f"{fields.at('schemaVersion')}: {version if version >= 0 else 'missing'}; expected 2"
        )
    embedded = fields.text("mediaType")
    if embedded and expected and embedded != expected:
        raise InvalidDocument(
            f"{fields.at('mediaType')}: {embedded!r}, but what points here says {expected!r}"
        )
    kind = embedded or expected or default
    if kind not in allowed:
        raise InvalidDocument(f"{fields.at('mediaType')}: {kind!r} is none of {', '.join(sorted(allowed))}")
    return kind


class _Common(TypedDict):
    """What manifests and indexes both have."""

    annotations: Mapping[str, str]
    subject: Descriptor | None
    artifact_type: str
    extra: Mapping[str, object]


def _common(fields: Fields) -> _Common:
    """To be called last: what no call has asked for until then is `extra`."""
    subject = fields.object("subject")
    return {
        "annotations": fields.mapping("annotations"),
        "subject": descriptor_of(subject) if subject else None,
        "artifact_type": fields.text("artifactType"),
        "extra": fields.rest(exact=True),
    }


def _written(document: Manifest | Index, own: Mapping[str, object]) -> bytes:
    """A document's bytes; `own` is what only its kind has."""
    known = {
        "schemaVersion": 2,
        "mediaType": document.media_type,
        "artifactType": document.artifact_type,
        **own,
        "subject": document.subject and descriptor_value(document.subject),
        "annotations": ordered(document.annotations),
    }
    return dumps(kept(present(known, *own), document.extra))
