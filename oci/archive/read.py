"""Reading image archives in one pass: what `save` of docker, podman, skopeo, umoci, crane and others wrote.

Two forms are known. An image layout is kept as it is, byte for byte. A docker-archive is what its
`manifest.json` says, which may come last, so its members are taken in as they come: tars as layers, JSON into
memory. Everything goes to a staging store; only what the images need is published, when all is verified.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from oci import media_types, platforms, schema
from oci.archive.intake import Intake, Readable
from oci.archive.write import Named
from oci.blobs import BlobStore
from oci.compress import open_compressed
from oci.digest import Digest
from oci.errors import DigestMismatch, InvalidArchive, InvalidReference
from oci.image import Image, is_image, walk
from oci.layout import CONTAINERD_NAME, REF_NAME, check_version, without_names
from oci.model import Descriptor, ImageConfig, Index, Manifest, Raw
from oci.progress import Progress, no_progress
from oci.reference import Reference
from oci.strict_json import Fields, loads
from oci.tar import TarReader

_WORKERS = 2
"""Layers unpacked at once to verify their diffIDs; each spends its time in code that lets others run."""


def read_archive(
    stream: Readable, store: BlobStore, *, progress: Progress = no_progress
) -> tuple[Named, ...]:
    """Take the images of an archive into `store`; what they are and which names they had.

    The archive may be packed with gzip, zstd, xz or bzip2 and come from a pipe; it is read to its end. Sizes,
    digests, schemas and diffIDs are verified. Raises InvalidArchive, InvalidDocument, DigestMismatch or
    LimitExceeded; then nothing of it is in the store.
    """
    with store.staging() as staging:
        intake = Intake(staging)
        reader = TarReader(open_compressed(_Watched(stream, progress)))
        for entry in reader:
            intake.take(entry, reader)
        found = _images(intake)
        if not found:
            raise InvalidArchive("the archive names no images")
        wanted = {item.digest for image in found for item in walk(staging, image.descriptor, sparse=True)}
        staging.publish(wanted)
    return found


class _Watched:
    def __init__(self, stream: Readable, progress: Progress) -> None:
        self._stream = stream
        self._progress = progress

    def read(self, size: int, /) -> bytes:
        chunk = self._stream.read(size)
        self._progress(len(chunk))
        return chunk


def _images(intake: Intake) -> tuple[Named, ...]:
    documents = intake.documents
    if "oci-layout" in documents and "index.json" in documents:
        return _from_layout(intake)
    if "manifest.json" in documents:
        return tuple(_from_docker(intake, fields) for fields in _docker_entries(documents["manifest.json"]))
    raise InvalidArchive(
        "no image archive: it has neither index.json nor manifest.json; a container's file system is read "
        "with `import`"
    )


def _from_layout(intake: Intake) -> tuple[Named, ...]:
    schema.check("layout", intake.documents["oci-layout"])
    check_version(intake.documents["oci-layout"], "the archive")
    content = intake.documents["index.json"]
    schema.check("index", content)
    names: dict[Digest, list[Reference]] = {}
    entries: dict[Digest, Descriptor] = {}
    for entry in Index.from_json(content).manifests:
        if not is_image(entry):
            continue
        entries.setdefault(entry.digest, without_names(entry))
        names.setdefault(entry.digest, []).extend(_names(entry))
    for entry in entries.values():
        _verify(intake, entry)
    return tuple(Named(entry, _unique(names[digest])) for digest, entry in entries.items())


def _names(entry: Descriptor) -> Iterable[Reference]:
    """The name of an index entry. A bare word as short name is a tag of something unknown, not a name."""
    text = entry.annotations.get(CONTAINERD_NAME, "")
    short = entry.annotations.get(REF_NAME, "")
    return _references([text or (short if "/" in short or ":" in short else "")])


def _references(texts: Iterable[str]) -> list[Reference]:
    found = []
    for text in texts:
        try:
            found.append(Reference.parse(text).with_default_tag())
        except InvalidReference:
            continue
    return found


def _unique(names: Iterable[Reference]) -> tuple[Reference, ...]:
    return tuple(dict.fromkeys(names))


def _verify(intake: Intake, entry: Descriptor) -> None:
    """All that is below one entry of `index.json`. Other platforms' manifests may be missing, but not all."""
    complete = False
    for item in walk(intake.staging, entry, sparse=True):
        _present(intake, item)
        if item.media_type in media_types.INDEXES:
            schema.check("index", intake.staging.document(item))
        elif item.media_type in media_types.MANIFESTS:
            schema.check("manifest", intake.staging.document(item))
            complete |= _verify_image(intake, item)
    if not complete:
        raise InvalidArchive(f"index.json points at {entry.digest}, of which the archive holds no image")


def _present(intake: Intake, item: Descriptor) -> None:
    if item.digest not in intake.staging:
        if item.urls:
            return
        raise InvalidArchive(f"the archive lacks {item.digest} ({item.media_type})")
    if (size := intake.staging.size(item.digest)) != item.size:
        raise DigestMismatch(f"{item.digest} has {size} bytes; its descriptor promises {item.size}")


def _verify_image(intake: Intake, item: Descriptor) -> bool:
    """Whether a manifest is an image's; if so, its config and its layers are what they should be."""
    manifest = Manifest.from_json(intake.staging.document(item), item.media_type)
    if manifest.config.media_type not in media_types.CONFIGS or not is_image(item):
        return False
    for part in (manifest.config, *manifest.layers):
        _present(intake, part)
    image = Image.load(intake.staging, item)
    schema.check("config", image.config.content)
    _verify_layers(intake, image)
    if item.platform and not platforms.matches(item.platform, image.platform):
        raise InvalidArchive(f"{item.digest}: the index says {item.platform}, the config {image.platform}")
    return True


def _verify_layers(intake: Intake, image: Image) -> None:
    """Layers that are not there are fetched from their `urls`, by those who may."""
    pairs = zip(image.layers, image.config.value.diff_ids, strict=True)
    there = [(layer, expected) for layer, expected in pairs if layer.digest in intake.staging]
    with ThreadPoolExecutor(_WORKERS) as pool:
        actuals = list(pool.map(intake.diff_id, [layer for layer, _ in there]))
    for position, ((_, expected), actual) in enumerate(zip(there, actuals, strict=True)):
        if actual != expected:
            raise DigestMismatch(
                f"layer {position + 1} of {image.id.short} holds {actual}; its config says {expected}"
            )


def _docker_entries(content: bytes) -> Iterable[Fields]:
    value: Any = loads(content, "manifest.json")
    if not isinstance(value, list):
        raise InvalidArchive("manifest.json: expected an array of images")
    return [Fields(item, f"manifest.json[{position}]") for position, item in enumerate(value)]


def _from_docker(intake: Intake, fields: Fields) -> Named:
    """One image of a docker-archive: a manifest is made for it, its config keeps its bytes and so its id."""
    path = fields.text("Config", need=True)
    content = intake.config(path)
    _check_name(path, content)
    schema.check("config", content)
    config = Raw(ImageConfig.from_json(content), content)
    layers = tuple(intake.layer(name) for name in fields.texts("Layers") or ())
    image = Image.of(config, layers)
    _verify_layers(intake, image)
    names = _unique(_references(fields.texts("RepoTags") or ()))
    return Named(image.write(intake.staging), names)


def _check_name(path: str, content: bytes) -> None:
    """Configs are named after their digest (`<hex>.json`, `sha256:<hex>`, `blobs/sha256/<hex>`)."""
    hex_digits = re.search(r"(?:^|[/:])([a-f0-9]{64})(?:\.json)?$", path)
    if hex_digits and (actual := Digest.of(content)).hex != hex_digits[1]:
        raise DigestMismatch(f"the config {path!r} is not what its name says, but {actual}")
