"""Directories in artifacts: a tar with gzip whose annotations say that it is to be unpacked, as oras does it.

    io.deis.oras.content.unpack    "true"
    io.deis.oras.content.digest    the digest of the tar
    org.opencontainers.image.title the directory's name, which all names in the tar begin with

Packed bytes are the same wherever and whenever: sorted names, no owners, no times. What is unpacked was
chosen by strangers: it is made in a new directory, looked through, and only then moved to where it belongs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from oci.blobs import BlobStore
from oci.compress import codec
from oci.digest import Digest
from oci.durable import remove_tree
from oci.errors import InvalidArchive, InvalidDigest, InvalidDocument, UnsafePath
from oci.layer import LayerSink, read_layer
from oci.media_types import OCI_LAYER_GZIP
from oci.model import Descriptor
from oci.tar import Entry, Kind
from oci.tar.write import TarWriter

UNPACK = "io.deis.oras.content.unpack"
DIGEST = "io.deis.oras.content.digest"

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = _OPEN | os.O_DIRECTORY
_TAKEN = frozenset({Kind.FILE, Kind.DIRECTORY, Kind.SYMLINK, Kind.HARDLINK})


def is_packed(descriptor: Descriptor) -> bool:
    """Whether a layer is a directory."""
    return descriptor.annotations.get(UNPACK) == "true"


def pack_directory(store: BlobStore, path: str, title: str, media_type: str = OCI_LAYER_GZIP) -> Descriptor:
    """Pack the host directory `path` under the name `title` ("." for none); its layer, without a title yet.

    Symlinks stay symlinks. Raises OSError, and InvalidArchive for what is no file, directory or symlink.
    """
    name = b"" if title == "." else title.encode("utf-8", "surrogateescape")
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with LayerSink(codec("gzip"), store) as sink:
            writer = TarWriter(sink)
            if name:
                writer.add(Entry(name, Kind.DIRECTORY, os.fstat(fd).st_mode & 0o777))
            _pack(writer, fd, name)
            writer.finish()
            layer = sink.finish()
    finally:
        os.close(fd)
    found = {UNPACK: "true", DIGEST: str(layer.diff_id)}
    return Descriptor(media_type, layer.digest, layer.size, found)


def _pack(writer: TarWriter, directory: int, name: bytes) -> None:
    for base in sorted(os.fsencode(each) for each in os.listdir(directory)):
        path = name + b"/" + base if name else base
        status = os.stat(base, dir_fd=directory, follow_symlinks=False)
        mode = status.st_mode & 0o777
        if stat.S_ISLNK(status.st_mode):
            writer.add(Entry(path, Kind.SYMLINK, 0o777, link=os.readlink(base, dir_fd=directory)))
            continue
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise InvalidArchive(f"{os.fsdecode(path)!r} is no file, directory or symlink")
        fd = os.open(base, _OPEN | os.O_NONBLOCK, dir_fd=directory)
        try:
            if stat.S_ISDIR(status.st_mode):
                writer.add(Entry(path, Kind.DIRECTORY, mode))
                _pack(writer, fd, path)
            else:
                size = os.fstat(fd).st_size
                writer.add_stream(Entry(path, Kind.FILE, mode, size=size), _reading(fd))
        finally:
            os.close(fd)


def _reading(fd: int) -> Callable[[int], bytes]:
    return lambda size: os.read(fd, size)


def unpack_directory(store: BlobStore, descriptor: Descriptor, name: bytes, folder: int, depth: int) -> None:
    """Unpack a layer of an artifact as the directory `name` (b"" for none) in `folder`, which lies `depth`
    directories below where all of it is to stay; `name` may be a path.

    Only what is below `name` in the archive, no devices, no setuid bits, no owners; no symlink that leads
    out. Files that are there are replaced. Raises UnsafePath, InvalidArchive, DigestMismatch, OSError.
    """
    from oci.apply import apply

    own = (os.geteuid(), os.getegid())
    base = name.rpartition(b"/")[2]
    temporary = b".%s.part" % os.urandom(8).hex().encode()
    os.mkdir(temporary, 0o700, dir_fd=folder)
    fd = os.open(temporary, _DIRECTORY, dir_fd=folder)
    try:
        with read_layer(store, descriptor.digest, OCI_LAYER_GZIP, diff_id=_digest(descriptor)) as reader:
            apply(reader, fd, style="plain", whiteouts=False, filter=_only(name), owner=lambda uid, gid: own)
        made = _below(fd, name)
        try:
            _look_through(made, depth + (1 if base else 0))
            _merge(made, folder, base)
        finally:
            os.close(made)
    finally:
        os.close(fd)
        with suppress(OSError):
            remove_tree(f"/proc/self/fd/{folder}/{os.fsdecode(temporary)}")


def _digest(descriptor: Descriptor) -> Digest | None:
    text = descriptor.annotations.get(DIGEST, "")
    try:
        return Digest.parse(text) if text else None
    except InvalidDigest as error:
        raise InvalidDocument(f"{DIGEST} of {descriptor.digest}: {error}") from None


def _only(name: bytes) -> Callable[[Entry], Entry | None]:
    def is_below(path: bytes) -> bool:
        return not name or path == name or path.startswith(name + b"/")

    def edit(entry: Entry) -> Entry | None:
        if not entry.name:
            return None
        if entry.kind not in _TAKEN:
            raise InvalidArchive(f"{entry} of the artifact is a {entry.kind.name.lower()}: it is not made")
        if not is_below(entry.name) or (entry.kind is Kind.HARDLINK and not is_below(entry.link.strip(b"/"))):
            raise UnsafePath(
                f"{entry} of the artifact is not below /{os.fsdecode(name)}, as all of it must be"
            )
        mode = entry.mode & 0o777 | (0o700 if entry.kind is Kind.DIRECTORY else 0)
        return replace(entry, mode=mode, xattrs=())

    return edit


def _below(fd: int, name: bytes) -> int:
    """The directory that was unpacked, no symlink on the way there."""
    found = os.dup(fd)
    for part in filter(None, name.split(b"/")):
        try:
            inner = os.open(part, _DIRECTORY, dir_fd=found)
        except OSError:
            raise InvalidArchive(f"the artifact's archive has no directory {os.fsdecode(name)!r}") from None
        finally:
            os.close(found)
        found = inner
    return found


def _look_through(directory: int, depth: int) -> None:
    """Raise UnsafePath for a symlink that could lead out: absolute, or up further than `depth` directories,
    or up again after a way down, which other links may bend."""
    with os.scandir(directory) as entries:
        for each in entries:
            if each.is_symlink():
                _refuse_outer(each.name, os.readlink(each.name, dir_fd=directory), depth)
            elif each.is_dir(follow_symlinks=False):
                fd = os.open(each.name, _DIRECTORY, dir_fd=directory)
                try:
                    _look_through(fd, depth + 1)
                finally:
                    os.close(fd)


def _refuse_outer(name: str, text: str, depth: int) -> None:
    parts = [part for part in text.split("/") if part not in ("", ".")]
    up = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    if text.startswith("/") or up > depth or ".." in parts[up:]:
        raise UnsafePath(f"the symlink {name!r} of the artifact leads to {text!r}, which may be out of it")


def _merge(made: int, folder: int, base: bytes) -> None:
    """Move what was made into the directory `base` of `folder` (b"": itself), file by file."""
    target = os.dup(folder)
    if base:
        target = _entered(target, base, os.fstat(made).st_mode & 0o777)
    try:
        for name in sorted(os.fsencode(each) for each in os.listdir(made)):
            status = os.stat(name, dir_fd=made, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                fd = os.open(name, _DIRECTORY, dir_fd=made)
                try:
                    _merge(fd, target, name)
                finally:
                    os.close(fd)
            else:
                os.replace(name, name, src_dir_fd=made, dst_dir_fd=target)
    finally:
        os.close(target)


def _entered(parent: int, base: bytes, mode: int) -> int:
    """A directory, made where there is none; a symlink of that name makes way. Closes `parent`."""
    try:
        with suppress(FileNotFoundError):
            if stat.S_ISLNK(os.stat(base, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(base, dir_fd=parent)
        with suppress(FileExistsError):
            os.mkdir(base, mode, dir_fd=parent)
        return os.open(base, _DIRECTORY, dir_fd=parent)
    finally:
        os.close(parent)
