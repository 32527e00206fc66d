"""An image as skopeo's `dir:` has it: one directory with `manifest.json`, and blobs named by their digest.

    version                  Directory Transport Version: 1.1
    manifest.json            the manifest, or an index
    HEX.manifest.json        of an index, each of its manifests
    HEX                      configs and layers (other algorithms than sha256: ALGORITHM-HEX)

(containers/image: directory/directory_transport.go describes the names.) Names are made from digests alone.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from typing import BinaryIO

from oci import media_types
from oci.blobs import BlobStore
from oci.digest import Digest
from oci.durable import CHUNK, open_untrusted, sync_directory, write_all
from oci.errors import BlobNotFound, InvalidArchive, LimitExceeded
from oci.image import walk
from oci.model import Descriptor, Manifest, parse
from oci.progress import Progress, no_progress
from oci.strict_json import MAX_DOCUMENT

VERSION = b"Directory Transport Version: 1.1\n"

_DOCUMENTS = media_types.INDEXES | media_types.MANIFESTS


def read_directory(path: str, store: BlobStore, *, progress: Progress = no_progress) -> Descriptor:
    """Take the image of a directory into `store`, each blob verified; its manifest or index.

    Manifests of an index that are not there are passed over. Raises InvalidArchive, InvalidDocument,
    DigestMismatch, LimitExceeded, BlobNotFound.
    """
    content = _document(path, "manifest.json")
    root = Descriptor.of(parse(content, "").media_type, content)
    waiting, seen = [root], {root.digest}
    documents: list[tuple[Digest, bytes]] = []
    while waiting:
        pointer = waiting.pop()
        document = parse(content, pointer.media_type) if pointer is root else None
        if document is None:
            found = _child(path, pointer)
            if found is None:
                continue
            document = parse(found, pointer.media_type)
            documents.append((pointer.digest, found))
        if isinstance(document, Manifest):
            for blob in (document.config, *document.layers):
                _take(path, blob, store, progress)
            continue
        for entry in document.manifests:
            if entry.media_type in _DOCUMENTS and entry.digest not in seen:
                seen.add(entry.digest)
                waiting.append(entry)
    for digest, found in (*reversed(documents), (root.digest, content)):
        if digest not in store:
            with store.writer(algorithm=digest.algorithm) as writer:
                writer.write(found)
                writer.commit(digest)
    return root


def write_directory(
    path: str, descriptor: Descriptor, store: BlobStore, *, progress: Progress = no_progress
) -> None:
    """Write an image or index of `store` as a directory, which is made; `manifest.json` comes last.

    Raises InvalidArchive for a directory that holds other things, BlobNotFound, DigestMismatch.
    """
    _prepare(path)
    for item in walk(store, descriptor, sparse=True):
        if item.digest == descriptor.digest:
            continue
        if item.digest not in store and item.urls:
            continue
        document = item.media_type in _DOCUMENTS
        _write(path, _name(item.digest) + (".manifest.json" if document else ""), item, store, progress)
    _replace(path, "version", VERSION)
    _replace(path, "manifest.json", store.document(descriptor))
    sync_directory(path)


def _prepare(path: str) -> None:
    os.makedirs(path, exist_ok=True)
    if os.listdir(path) and not os.path.lexists(os.path.join(path, "version")):
        raise InvalidArchive(f"{path} is not empty, and holds no image of this kind")
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(path, "manifest.json"))  # until all is there, there is no image


def _write(path: str, name: str, item: Descriptor, store: BlobStore, progress: Progress) -> None:
    fd, temporary = _temporary(path)
    try:
        try:
            store.send(item.digest, fd, progress)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, os.path.join(path, name))
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _replace(path: str, name: str, content: bytes) -> None:
    fd, temporary = _temporary(path)
    try:
        write_all(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, os.path.join(path, name))


def _temporary(path: str) -> tuple[int, str]:
    name = os.path.join(path, f".{secrets.token_hex(6)}.tmp")
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644), name


def _name(digest: Digest) -> str:
    return digest.hex if digest.algorithm == "sha256" else f"{digest.algorithm}-{digest.hex}"


def _open(path: str, name: str) -> BinaryIO:
    try:
        return open(os.path.join(path, name), "rb", opener=open_untrusted)
    except FileNotFoundError:
        raise BlobNotFound(f"{path} has no {name}") from None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise InvalidArchive(f"{path}/{name} is a symbolic link; in an image it must be a file") from None


def _document(path: str, name: str) -> bytes:
    with _open(path, name) as file:
        content = file.read(MAX_DOCUMENT + 1)
    if len(content) > MAX_DOCUMENT:
        raise LimitExceeded(f"{path}/{name} is larger than {MAX_DOCUMENT} bytes")
    return content


def _child(path: str, pointer: Descriptor) -> bytes | None:
    try:
        return pointer.check(_document(path, f"{_name(pointer.digest)}.manifest.json"))
    except BlobNotFound:
        return None


def _take(path: str, blob: Descriptor, store: BlobStore, progress: Progress) -> None:
    if blob.digest in store:
        return
    try:
        file = _open(path, _name(blob.digest))
    except BlobNotFound:
        if blob.urls:
            return
        raise
    with file, store.writer(algorithm=blob.digest.algorithm) as writer:
        while chunk := file.read(CHUNK):
            writer.write(chunk)
            progress(len(chunk))
        writer.commit(blob)
