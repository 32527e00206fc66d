"""An image layout: a directory of blobs and the `index.json` that names them (image-spec: image-layout.md).

`index.json` is the truth about names. It is replaced whole and durably, under a lock, and only ever points at
blobs that are there. A layout somebody else made is not trusted: links are not followed, sizes are capped.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from oci.blobs import BlobStore
from oci.digest import Digest
from oci.durable import open_untrusted
from oci.errors import BlobNotFound, InvalidArchive, InvalidDocument, LimitExceeded
from oci.model import Descriptor, Index
from oci.strict_json import MAX_DOCUMENT, Fields, dumps, loads

VERSION = "1.0.0"
REF_NAME = "org.opencontainers.image.ref.name"
"""The image-spec's annotation for a name: any text the owner of the layout likes, mostly a tag."""
CONTAINERD_NAME = "io.containerd.image.name"
"""containerd's, docker's and podman's annotation for the whole name, `docker.io/library/app:latest`."""


class Layout:
    """A layout that exists. `open` takes one, `create` makes one where there is none."""

    def __init__(self, root: str | os.PathLike[str], *, private: bool = True) -> None:
        self.root = os.fspath(root)
        self.blobs = BlobStore(root, private=private)
        self._last: tuple[bytes, Index] | None = None

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> Layout:
        """The layout at `root`. Raises InvalidArchive if there is none, or one of an unknown version."""
        layout = cls(root)
        check_version(layout._file("oci-layout"), layout.root)
        return layout

    @classmethod
    def create(cls, root: str | os.PathLike[str], *, private: bool = True) -> Layout:
        """The layout at `root`, made if need be. What lies there beside it stays."""
        layout = cls(root, private=private)
        layout.blobs.make_directories()
        with layout._lock():
            if not os.path.lexists(os.path.join(layout.root, "index.json")):
                layout.blobs.replace("index.json", Index(()).to_json())
            if not os.path.lexists(os.path.join(layout.root, "oci-layout")):
                layout.blobs.replace("oci-layout", version_document())
        check_version(layout._file("oci-layout"), layout.root)
        return layout

    def index(self) -> Index:
        """`index.json` as it is now. Raises InvalidDocument."""
        content, last = self._file("index.json"), self._last
        if (
            last is None or last[0] != content
        ):  # parsing thousands of names takes far longer than comparing them
            self._last = last = (content, Index.from_json(content))
        return last[1]

    def descriptors(self) -> tuple[Descriptor, ...]:
        """What `index.json` points at; names are in the annotations (`name_of`)."""
        return self.index().manifests

    def find(self, name: str) -> Descriptor | None:
        """The entry with this name, or None. Either annotation will do; the whole name goes first."""
        return find(self.descriptors(), name)

    @contextmanager
    def editing(self) -> Iterator[Names]:
        """Change names: alone, and all at once when the block ends well; an error leaves all as it was."""
        with self._lock():
            index = self.index()
            names = Names(index.manifests, self.blobs)
            yield names
            if names.entries != list(index.manifests):
                changed = replace(index, manifests=tuple(names.entries))
                content = changed.to_json()
                if len(content) > MAX_DOCUMENT:  # nobody could read it again
                    raise LimitExceeded(f"{self.root} has too many names: remove some")
                self.blobs.replace("index.json", content)
                self._last = (content, changed)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _file(self, name: str) -> bytes:
        path = os.path.join(self.root, name)
        try:
            file = open(path, "rb", opener=open_untrusted)  # noqa: SIM115
        except (FileNotFoundError, NotADirectoryError):
            raise InvalidArchive(f"{self.root} is no image layout: it has no {name}") from None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise InvalidArchive(f"{path} is a symbolic link; in a layout it must be a file") from None
        with file:
            content = file.read(MAX_DOCUMENT + 1)
        if len(content) > MAX_DOCUMENT:
            raise LimitExceeded(f"{path} is larger than {MAX_DOCUMENT} bytes")
        return content


class Names:
    """The entries of an `index.json` being edited; in `entries`, in their order."""

    def __init__(self, entries: tuple[Descriptor, ...], blobs: BlobStore) -> None:
        self.entries = list(entries)
        self._blobs = blobs

    def __iter__(self) -> Iterator[Descriptor]:
        return iter(self.entries)

    def find(self, name: str) -> Descriptor | None:
        """The entry with this name."""
        return find(self.entries, name)

    def set(self, name: str, descriptor: Descriptor, *, ref_name: str = "") -> Descriptor | None:
        """Let `name` mean `descriptor`; what it meant before. `ref_name` is the layout's own short name.

        Raises BlobNotFound unless the blob is there.
        """
        before = self.remove(name)
        plain = without_names(descriptor)
        self.entries = [entry for entry in self.entries if name_of(entry) or entry.digest != plain.digest]
        self._append(replace(plain, annotations={**plain.annotations, **named(name, ref_name)}))
        return before

    def add(self, descriptor: Descriptor) -> None:
        """Keep `descriptor` without a name; nothing to do if some entry points at it. Raises BlobNotFound."""
        if all(entry.digest != descriptor.digest for entry in self.entries):
            self._append(without_names(descriptor))

    def remove(self, name: str) -> Descriptor | None:
        """Forget a name; what it meant. The blobs stay."""
        entry = self.find(name)
        if entry:
            self.entries.remove(entry)
        return entry

    def drop(self, digest: Digest) -> tuple[Descriptor, ...]:
        """Forget every entry that points at `digest`; those entries."""
        dropped = tuple(entry for entry in self.entries if entry.digest == digest)
        self.entries = [entry for entry in self.entries if entry.digest != digest]
        return dropped

    def _append(self, descriptor: Descriptor) -> None:
        if descriptor.digest not in self._blobs:
            raise BlobNotFound(f"{descriptor.digest} must be stored before it is named")
        self.entries.append(descriptor)


def name_of(descriptor: Descriptor) -> str:
    """The name an index entry carries, "" if it has none."""
    return descriptor.annotations.get(CONTAINERD_NAME) or descriptor.annotations.get(REF_NAME, "")


def named(name: str, ref_name: str = "") -> dict[str, str]:
    """The annotations that give an index entry its name."""
    return {CONTAINERD_NAME: name, REF_NAME: ref_name or name}


def without_names(descriptor: Descriptor) -> Descriptor:
    """The same pointer, unnamed."""
    kept = {
        key: value for key, value in descriptor.annotations.items() if key not in (CONTAINERD_NAME, REF_NAME)
    }
    return replace(descriptor, annotations=kept)


def find(entries: tuple[Descriptor, ...] | list[Descriptor], name: str) -> Descriptor | None:
    """The entry whose whole name, or failing that whose short name, is `name`."""
    for key in (CONTAINERD_NAME, REF_NAME):
        for entry in entries:
            if entry.annotations.get(key) == name:
                return entry
    return None


def version_document() -> bytes:
    """The content of `oci-layout`."""
    return dumps({"imageLayoutVersion": VERSION})


def check_version(content: bytes, where: str) -> Mapping[str, object]:
    """Raise InvalidArchive unless `oci-layout` has a version we know."""
    fields = Fields(loads(content, "oci-layout"), "oci-layout")
    try:
        version = fields.text("imageLayoutVersion", need=True)
    except InvalidDocument as error:
        raise InvalidArchive(f"{where}: {error}") from None
    if version != VERSION:
        raise InvalidArchive(f"{where} is an image layout of version {version}; only {VERSION} is known")
    return fields.rest()
