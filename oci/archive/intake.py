"""The members of an image archive, taken in as they come."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from dataclasses import field, replace
from typing import Protocol

from oci.blobs import Staging
from oci.compress import codec, detect, open_compressed
from oci.data import dataclass
from oci.digest import Digest
from oci.durable import CHUNK
from oci.errors import InvalidArchive, InvalidDigest, LimitExceeded, UnsafePath
from oci.layer import LayerSink
from oci.model import Descriptor
from oci.strict_json import MAX_DOCUMENT
from oci.tar import Entry, Kind, TarReader
from oci.validate import content_digest

_BLOB = re.compile(r"blobs/(sha256|sha512)/([a-f0-9]+)")
_DOCUMENTS = ("index.json", "manifest.json", "oci-layout")
_MEMORY = 64 << 20
"""All the JSON of one archive, in bytes."""
_MEMBER_COST = 1 << 10
"""What remembering one member costs, so that millions of empty ones have a price too."""
_MAX_HOPS = 8


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class Intake:
    """What the archive held, by its names there. Names are only ever keys, never paths of ours."""

    staging: Staging
    documents: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, Descriptor] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    diff_ids: dict[Digest, Digest] = field(default_factory=dict)
    memory: int = 0

    def take(self, entry: Entry, reader: TarReader) -> None:
        """Take in one entry, whose content `reader` gives."""
        name = _safe(entry.name.decode(errors="surrogateescape"), entry)
        if entry.kind is Kind.DIRECTORY:
            return
        self._count(_MEMBER_COST)
        if name in self.documents or name in self.blobs or name in self.links:
            raise InvalidArchive(f"{name} stands in the archive twice")
        if entry.kind in (Kind.SYMLINK, Kind.HARDLINK):
            self.links[name] = _target(name, entry)
        elif entry.kind is not Kind.FILE:
            raise InvalidArchive(f"{entry} is a {entry.kind.name.lower()}; an image archive has none")
        elif name in _DOCUMENTS:
            self._document(name, b"", entry, reader)
        elif blob := _BLOB.fullmatch(name):
            self.blobs[name] = self._blob(_digest(blob[1], blob[2]), entry, reader)
        else:
            self._member(name, entry, reader)

    def resolve(self, name: str) -> str:
        """The member that `name` means, once links inside the archive are followed."""
        name = posixpath.normpath(name)
        for _ in range(_MAX_HOPS):
            if name not in self.links:
                return name
            name = self.links[name]
        raise InvalidArchive(f"{name}: links in the archive lead in circles")

    def _count(self, size: int) -> None:
        self.memory += size
        if self.memory > _MEMORY:
            raise LimitExceeded(f"the archive's documents need more than {_MEMORY >> 20} MiB")

    def _document(self, name: str, head: bytes, entry: Entry, reader: TarReader) -> None:
        if entry.size > MAX_DOCUMENT:
            raise LimitExceeded(f"{entry} has {entry.size} bytes; a document may have {MAX_DOCUMENT}")
        self._count(entry.size)
        self.documents[name] = head + reader.read()

    def _blob(self, digest: Digest, entry: Entry, reader: TarReader) -> Descriptor:
        """A member of `blobs/`, verified against its own name. One that we have is not written again."""
        if digest not in self.staging or self.staging.size(digest) != entry.size:
            with self.staging.writer(algorithm=digest.algorithm) as writer:
                _copy(reader.read, writer.write)
                writer.commit(digest)
        return Descriptor("", digest, entry.size)

    def _member(self, name: str, entry: Entry, reader: TarReader) -> None:
        """A file of a docker-archive: a layer, a config, or one of the extras nobody needs any more."""
        head = reader.read(512)
        form = detect(head)
        if form != "uncompressed":
            self.blobs[name] = self._packed(form, _Chained(head, reader))
        elif head[257:262] == b"ustar" or name.endswith(".tar"):
            self.blobs[name] = self._layer(_Chained(head, reader))
        elif head.lstrip()[:1] in (b"{", b"["):
            self._document(name, head, entry, reader)

    def _packed(self, form: str, content: _Chained) -> Descriptor:
        """A compressed layer: kept if registries know its codec, packed again if not."""
        if form not in ("gzip", "zstd"):
            return self._layer(open_compressed(content))
        with self.staging.writer() as writer:
            _copy(content.read, writer.write)
            digest = writer.commit()
            return Descriptor(codec(form).media_type, digest, writer.size)

    def _layer(self, content: Readable) -> Descriptor:
        """A bare tar becomes a gzip layer, ready to be pushed."""
        with LayerSink(codec("gzip"), self.staging) as sink:
            _copy(content.read, sink)
            layer = sink.finish()
        self.diff_ids[layer.digest] = layer.diff_id
        return Descriptor(layer.media_type, layer.digest, layer.size)

    def layer(self, path: str) -> Descriptor:
        """The layer that `manifest.json` calls `path`, with a media type. Raises InvalidArchive."""
        name = self.resolve(path)
        if name not in self.blobs:
            raise InvalidArchive(f"manifest.json names the layer {path!r}, which is not in the archive")
        found = self.blobs[name]
        if not found.media_type:
            found = self.blobs[name] = self._typed(found)
        return found

    def _typed(self, blob: Descriptor) -> Descriptor:
        """A member of `blobs/` used as a layer: with the media type of its bytes, a bare tar packed."""
        with self.staging.open(blob.digest) as content:
            head = content.read(512)
            form = detect(head)
            if form == "uncompressed":
                return self._layer(_Chained(head, content))
        if form not in ("gzip", "zstd"):
            raise InvalidArchive(f"the layer {blob.digest} is {form}; expected gzip, zstd or a bare tar")
        return replace(blob, media_type=codec(form).media_type)

    def config(self, path: str) -> bytes:
        """The config that `manifest.json` calls `path`. Raises InvalidArchive."""
        name = self.resolve(path)
        if name in self.documents:
            return self.documents[name]
        if name in self.blobs:
            return self.staging.read(self.blobs[name].digest)
        raise InvalidArchive(f"manifest.json names the config {path!r}, which is not in the archive")

    def diff_id(self, layer: Descriptor) -> Digest:
        """The digest of a layer's content, worked out once."""
        if layer.digest not in self.diff_ids:
            self.diff_ids[layer.digest] = content_digest(self.staging, layer)[1]
        return self.diff_ids[layer.digest]


class _Chained:
    """Bytes that were read already, then the rest of an entry."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int, /) -> bytes:
        if self._head:
            chunk, self._head = self._head[:size], self._head[size:]
            return chunk + self._rest.read(size - len(chunk)) if len(chunk) < size else chunk
        return self._rest.read(size)


def _copy(read: Callable[[int], bytes], write: Callable[[bytes], object]) -> None:
    while chunk := read(CHUNK):
        write(chunk)


def _digest(algorithm: str, value: str) -> Digest:
    try:
        return Digest.parse(f"{algorithm}:{value}")
    except InvalidDigest as error:
        raise InvalidArchive(f"blobs/{algorithm}/{value}: {error}") from None


def _safe(name: str, entry: Entry) -> str:
    if ".." in name.split("/"):
        raise UnsafePath(f"{entry}: leaves the archive")
    return name


def _target(name: str, entry: Entry) -> str:
    link = entry.link.decode(errors="surrogateescape")
    base = posixpath.dirname(name) if entry.kind is Kind.SYMLINK else ""
    target = posixpath.normpath(posixpath.join(base, link))
    if target.startswith(("/", "..")):
        raise UnsafePath(f"{entry}: links to {link!r}, outside the archive")
    return target
