"""What a manifest is to a registry: what it points at, what it is about, how it is listed (distribution-spec:
Pushing Manifests, Listing Referrers)."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from oci import media_types
from oci.digest import Digest
from oci.errors import InvalidDigest, InvalidDocument
from oci.model import Descriptor, Index, parse
from oci.strict_json import loads

_TYPE = re.compile(r"[A-Za-z0-9][\w!#$&^.+-]{0,126}/[A-Za-z0-9][\w!#$&^.+-]{0,126}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest, index or artifact. `need` are blobs it cannot be without, `blobs` those it may have."""

    media_type: str
    need: tuple[Digest, ...] = ()
    blobs: tuple[Digest, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Digest | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] | None = None


def read(content: bytes, media_type: str = "") -> Document:
    """The document; `media_type` is what the Content-Type or a descriptor says it is, if one does.

    Content-Type, the embedded mediaType and the structure must agree. Raises InvalidDocument, LimitExceeded.
    """
    media_type = media_type.partition(";")[0].strip()
    if not media_type or media_type in media_types.INDEXES | media_types.MANIFESTS:
        return _known(content, media_type)
    if not _TYPE.fullmatch(media_type) or not media_type.lower().endswith("json"):
        raise InvalidDocument(f"Content-Type {media_type[:80]!r} is no type of manifest")
    return _unknown(loads(content, "manifest"), media_type)


def _known(content: bytes, media_type: str) -> Document:
    document = parse(content, media_type)
    subject = document.subject.digest if document.subject else None
    if isinstance(document, Index):
        return Document(
            document.media_type,
            manifests=document.manifests,
            subject=subject,
            artifact_type=document.artifact_type,
            annotations=document.annotations,
        )
    parts = (document.config, *document.layers)
    return Document(
        document.media_type,
        need=_digests(part for part in parts if not part.urls),
        blobs=_digests(part for part in parts if part.urls),
        subject=subject,
        artifact_type=document.artifact_type or document.config.media_type,
        annotations=document.annotations,
    )


def _digests(parts: Iterator[Descriptor]) -> tuple[Digest, ...]:
    return tuple(dict.fromkeys(part.digest for part in parts))


def _unknown(value: Any, media_type: str) -> Document:
    """A type we do not know: stored as it is, and all it seems to point at is kept with it."""
    if not isinstance(value, dict):
        raise InvalidDocument("manifest: expected an object")
    if value.get("mediaType") not in (None, "", media_type):
        raise InvalidDocument(
            f"manifest.mediaType: {value['mediaType']!r}, but the Content-Type is {media_type!r}"
        )
    if value.get("schemaVersion") == 1:
        raise InvalidDocument(
            "manifest: Docker's schema 1 is obsolete; push the image again with a current tool"
        )
    if "manifests" in value and ("layers" in value or "config" in value):
        raise InvalidDocument(
            "manifest: has `manifests` beside `layers` or `config`; it may be one or the other"
        )
    subject = next(_pointers(value.get("subject")), None)
    kind = value.get("artifactType")
    annotations = value.get("annotations")
    return Document(
        media_type,
        blobs=tuple(dict.fromkeys(_pointers({key: value[key] for key in value if key != "subject"}))),
        subject=subject,
        artifact_type=kind if isinstance(kind, str) else "",
        annotations=_texts(annotations) if isinstance(annotations, dict) else None,
    )


def _texts(mapping: dict[str, Any]) -> dict[str, str]:
    return {key: value for key, value in mapping.items() if isinstance(value, str)}


def _pointers(value: Any) -> Iterator[Digest]:
    """Every digest that stands where a descriptor's would."""
    waiting = deque([value])
    while waiting:
        item = waiting.popleft()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            digest = digest_of(item.get("digest"))
            if digest is not None:
                yield digest


def digest_of(text: object) -> Digest | None:
    """The digest a text spells, None if it is none."""
    try:
        return Digest.parse(text)  # type: ignore[arg-type]
    except InvalidDigest:
        return None
