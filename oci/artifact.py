"""Artifacts: files of any kind behind a manifest (image-spec: manifest.md, Guidelines for Artifact Usage).

    with store.staging() as staging:
        artifact = pack(staging, [File("sbom.json", "application/spdx+json")], "application/vnd.sbom")

Each file is a layer whose annotation `org.opencontainers.image.title` is its name; the config is empty,
unless one is given. Directories are packed (`oci.packed`).
Whoever unpacks an artifact writes names that strangers chose: see `titles`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from oci import media_types
from oci.blobs import BlobStore
from oci.data import dataclass
from oci.durable import CHUNK, write_all
from oci.errors import InvalidArchive, InvalidDocument, UnsafePath
from oci.model import Descriptor, Manifest
from oci.packed import is_packed, pack_directory, unpack_directory
from oci.rooted import Root

TITLE = "org.opencontainers.image.title"
"""The annotation with a file's name (image-spec: annotations.md)."""

UNKNOWN = "application/vnd.unknown.artifact.v1"
"""The type of an artifact that was given none, as other tools have it."""

CONFIG = "application/vnd.unknown.config.v1+json"
"""The type of a config that was given none."""

EMPTY = Descriptor.of(media_types.OCI_EMPTY, b"{}")

_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}\Z")
_MOST_TITLE = 4095


@dataclass(frozen=True, slots=True)
class File:
    """A file or directory of the host, its media type ("" for the usual), and its name in the artifact."""

    path: str
    media_type: str = ""
    title: str = ""


def is_media_type(text: str) -> bool:
    """Whether it has the form of RFC 6838, section 4.2, which `artifactType` must have."""
    return _MEDIA_TYPE.match(text) is not None


def pack(
    store: BlobStore,
    files: Sequence[File],
    artifact_type: str = UNKNOWN,
    *,
    config: File | None = None,
    subject: Descriptor | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    """Write files and directories and a manifest of them into `store`; the manifest's descriptor. Without
    `config` that is the empty one; with it `artifact_type` may be "": the config's type tells then.

    Raises OSError for a file that cannot be read, InvalidArchive for one that is no file.
    """
    store.write(b"{}")
    layers = tuple(_layer(store, each) for each in files) or (EMPTY,)
    pointer = subject and Descriptor(subject.media_type, subject.digest, subject.size)
    manifest = Manifest(
        _config(store, config),
        layers,
        annotations=annotations or {},
        subject=pointer,
        artifact_type=artifact_type,
    )
    content = manifest.to_json()
    store.write(content)
    return Descriptor.of(media_types.OCI_MANIFEST, content)


def titles(manifest: Manifest) -> Iterator[tuple[Descriptor, bytes]]:
    """The files of an artifact and the names they get below a directory; layers without a name are none.

    Raises UnsafePath for a name that leads out of the directory, InvalidDocument for one that two have.
    """
    seen: set[bytes] = set()
    for layer in manifest.layers:
        text = layer.annotations.get(TITLE, "")
        if not text:
            continue
        name = b"" if text == "." and is_packed(layer) else _checked(text)
        if name in seen:
            raise InvalidDocument(f"two files of the artifact are called {text!r}")
        seen.add(name)
        yield layer, name


def unpack(store: BlobStore, files: Sequence[tuple[Descriptor, bytes]], directory: str) -> None:
    """Write files of `titles` below the host directory `directory`, which is made; each appears whole.

    A file that is there is replaced. Symlinks below the directory are never followed out of it. Directories
    are unpacked (`oci.packed`). Raises DigestMismatch, UnsafePath, InvalidArchive, OSError.
    """
    os.makedirs(directory, exist_ok=True)
    with Root.at(directory) as root:
        for descriptor, name in files:
            parent, _, base = name.rpartition(b"/")
            folder = root.open_directory(root.makedirs(parent))
            try:
                if is_packed(descriptor):
                    depth = parent.count(b"/") + 1 if parent else 0
                    unpack_directory(store, descriptor, name, folder, depth)
                else:
                    _write(store, descriptor, folder, base)
            finally:
                os.close(folder)


def _config(store: BlobStore, config: File | None) -> Descriptor:
    if config is None:
        return EMPTY
    return replace(_layer(store, replace(config, media_type=config.media_type or CONFIG)), annotations={})


def _layer(store: BlobStore, file: File) -> Descriptor:
    title = {TITLE: file.title or os.path.basename(file.path)}
    if os.path.isdir(file.path):
        packed = pack_directory(store, file.path, title[TITLE], file.media_type or media_types.OCI_LAYER_GZIP)
        return replace(packed, annotations={**packed.annotations, **title})
    fd = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb", buffering=0) as source, store.writer() as writer:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidArchive(f"{file.path!r} is no regular file")
        while chunk := source.read(CHUNK):
            writer.write(chunk)
        size = writer.size
        digest = writer.commit()
    return Descriptor(file.media_type or "application/octet-stream", digest, size, title)


def _checked(text: str) -> bytes:
    try:
        name = text.encode()
    except UnicodeEncodeError:
        raise UnsafePath(f"a file of the artifact is called {text!r}, which is no UTF-8") from None
    parts = name.split(b"/")
    if b"\0" in name or len(name) > _MOST_TITLE or any(part in (b"", b".", b"..") for part in parts):
        raise UnsafePath(
            f"a file of the artifact is called {text[:200]!r}, which is no name below a directory"
        )
    return name


def _write(store: BlobStore, descriptor: Descriptor, folder: int, base: bytes) -> None:
    temporary = b".%s.part" % os.urandom(8).hex().encode()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    out = os.open(temporary, flags, 0o666, dir_fd=folder)
    try:
        with store.open(descriptor.digest) as blob:
            while chunk := blob.read(CHUNK):
                write_all(out, chunk)
        os.replace(temporary, base, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(out)
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
