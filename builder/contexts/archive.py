"""Contexts that come as archives: read once, in one pass, and never unpacked into a directory (C02, C03).

File contents lie one after the other in a nameless temporary file; names and metadata are kept in memory,
each file with its checksum, so that a COPY of it needs no second reading to be found in the cache. Names are
resolved inside the archive, as `tar -x` into an empty directory would, and nothing leads out of it (S41).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO

from builder.contexts.hashing import hasher
from builder.errors import ContextError, ResourceError
from builder.patterns import IgnoreFile
from builder.snapshot.view import IndexLayer, View
from builder.tree import Item, Node, Opener, Xattrs, order, parent_of, parents_of
from oci.compress import open_compressed
from oci.errors import OciError
from oci.rooted import follow
from oci.tar import Entry, Kind, TarReader

_CHUNK = 1 << 20
_IN_MEMORY = 64 << 20
_NANO = 1_000_000_000


class Stream:
    """A stream whose beginning can be looked at. It has what archives are read by: `read`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._seen = b""
        self._again = b""
        self._looking = False

    def is_archive(self) -> bool:
        """Whether this is a tar archive, compressed or not: whether it begins with a member."""
        self._looking = True
        try:
            return next(iter(TarReader(open_compressed(self))), None) is not None
        except OciError:
            return False
        finally:
            self._looking = False
            self._again, self._seen = self._seen, b""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; b"" at the end."""
        if self._again:
            end = len(self._again) if size < 0 else size
            found, self._again = self._again[:end], self._again[end:]
            return found
        found = self._stream.read(size)
        if self._looking:
            self._seen += found
        return found


class ArchiveContext:
    """A tar archive, compressed in any way, as a Tree. Files belong to 0:0, as in every context.

    `everything` has all files, also when some are left out. `scratch` is the directory for the nameless
    file. Raises ContextError for an archive that is damaged. Close it, or use it in `with`.
    """

    def __init__(self, stream: Stream, name: str = "context", scratch: str | None = None) -> None:
        self.name = name
        self._scratch = scratch
        self._spool = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115  closed by close()
        try:
            self._nodes, self._offsets = _Reading(stream, self._spool, name).read()
        except BaseException:
            self._spool.close()
            raise
        self.everything = self._view = View([IndexLayer(self._nodes, self._open)])
        self._ignore: IgnoreFile | None = None

    def __enter__(self) -> ArchiveContext:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the contents."""
        self._spool.close()

    def lstat(self, path: bytes) -> Node | None:
        return self._view.lstat(path)

    def listdir(self, path: bytes) -> list[bytes]:
        return self._view.listdir(path)

    def readlink(self, path: bytes) -> bytes:
        return self._view.readlink(path)

    def xattrs(self, path: bytes) -> Xattrs:
        return self._view.xattrs(path)

    def resolve(self, path: bytes) -> bytes:
        return self._view.resolve(path)

    def walk(self, path: bytes = b"") -> list[Item]:
        return self._view.walk(path)

    def opener(self) -> AbstractContextManager[Opener]:
        return self._view.opener()

    def open(self, path: bytes) -> int:
        return self._view.open(path)

    def ignored(self, path: bytes) -> bool:
        """Whether `path` is left out by the ignore file."""
        return self._ignore is not None and self._ignore.ignored(path)

    def leave_out(self, ignore: IgnoreFile | None) -> None:
        """From now on, show only what `ignore` lets through, and the directories above it."""
        self._ignore = ignore
        if not ignore:
            self._view = self.everything
            return
        kept = {path: node for path, node in self._nodes.items() if not ignore.ignored(path)}
        for path in list(kept):
            for above in parents_of(path):
                kept.setdefault(above, self._nodes[above])
        self._view = View([IndexLayer(kept, self._open)])

    # ---- inside ----

    def _open(self, path: bytes) -> int:
        """A descriptor with one file's content alone."""
        size = self._nodes[path].size
        if size <= _IN_MEMORY:
            fd = os.memfd_create("context", os.MFD_CLOEXEC)
        else:
            with tempfile.TemporaryFile(dir=self._scratch) as file:
                fd = os.dup(file.fileno())
        try:
            _copy(self._spool.fileno(), self._offsets[path], size, fd)
            os.lseek(fd, 0, os.SEEK_SET)
        except BaseException:
            os.close(fd)
            raise
        return fd


class NoFiles(View):
    """The files of a context that is only a Dockerfile."""

    name = "context, which is only a Dockerfile"

    def __init__(self) -> None:
        super().__init__(())


class _Reading:
    """The archive being read: what lies where so far."""

    def __init__(self, stream: Stream, spool: BinaryIO, name: str) -> None:
        self._stream = stream
        self._spool = spool
        self._name = name
        self._at = 0
        self.nodes: dict[bytes, Node] = {}
        self.offsets: dict[bytes, int] = {}

    def read(self) -> tuple[dict[bytes, Node], dict[bytes, int]]:
        """All of it: nodes in the order of a walk, and where each file's content begins."""
        try:
            reader = TarReader(open_compressed(self._stream))
            for entry in reader:
                self._take(entry, reader)
            self._spool.flush()
        except OciError as error:
            raise ContextError(f"the {self._name} is an archive that cannot be read: {error}") from None
        except OSError as error:
            raise ResourceError(f"the {self._name} cannot be kept: {error.strerror or error}") from None
        return {path: self.nodes[path] for path in sorted(self.nodes, key=order)}, self.offsets

    def _take(self, entry: Entry, reader: TarReader) -> None:
        if b".." in entry.name.split(b"/"):
            raise ContextError(f"the {self._name} is an archive with {entry}, which would lie outside of it")
        path = self._resolved(entry.name, follow_last=entry.kind is Kind.DIRECTORY)
        if not path:
            if entry.kind is not Kind.DIRECTORY:
                raise ContextError(f"the {self._name} is an archive whose root is no directory")
            return
        self._directories(parent_of(path))
        if entry.kind is Kind.HARDLINK:
            self._link(entry, path)
            return
        if entry.kind is not Kind.DIRECTORY:
            self._forget(path)
        node = _node(entry)
        if entry.kind is Kind.FILE:
            self.offsets[path] = self._at
            node = node._replace(content=self._content(reader, node.size))
        self.nodes[path] = node

    def _resolved(self, name: bytes, *, follow_last: bool) -> bytes:
        def link_at(path: bytes) -> bytes | None:
            node = self.nodes.get(path)
            return node.link if node is not None and node.kind is Kind.SYMLINK else None

        try:
            return follow(name, link_at, follow_last=follow_last)
        except OSError as error:
            text = f"the {self._name} is an archive with /{os.fsdecode(name)}, which goes round in circles"
            raise ContextError(text) from error

    def _directories(self, path: bytes) -> None:
        for each in (*parents_of(path), path) if path else ():
            node = self.nodes.get(each)
            if node is None or node.kind is not Kind.DIRECTORY:
                self._forget(each)
                self.nodes[each] = Node(Kind.DIRECTORY, 0o755)

    def _forget(self, path: bytes) -> None:
        """Take away what an earlier entry put here."""
        node = self.nodes.pop(path, None)
        self.offsets.pop(path, None)
        if node is not None and node.kind is Kind.DIRECTORY:
            below = path + b"/"
            for each in [each for each in self.nodes if each.startswith(below)]:
                del self.nodes[each]
                self.offsets.pop(each, None)

    def _link(self, entry: Entry, path: bytes) -> None:
        to = b"" if b".." in entry.link.split(b"/") else self._resolved(entry.link, follow_last=False)
        node = self.nodes.get(to)
        if node is None or node.kind is Kind.DIRECTORY:
            raise ContextError(
                f"the {self._name} is an archive with {entry}, a link to {os.fsdecode(entry.link)}, "
                "which is no file in it"
            )
        if to != path:
            self._forget(path)
            self.nodes[path] = node
            if to in self.offsets:
                self.offsets[path] = self.offsets[to]

    def _content(self, reader: TarReader, size: int) -> bytes:
        hashed = hasher(size)
        for chunk in _chunks(reader):
            hashed.update(chunk)
            self._spool.write(chunk)
            self._at += len(chunk)
        return hashed.digest()


def _chunks(reader: TarReader) -> Iterator[bytes]:
    while chunk := reader.read(_CHUNK):
        yield chunk


def _node(entry: Entry) -> Node:
    """An entry as a context's file: of 0:0, without privileges."""
    device = os.makedev(entry.major, entry.minor)
    xattrs = tuple(pair for pair in entry.xattrs if pair[0].startswith(b"user."))
    mtime = entry.mtime * _NANO
    size = entry.size if entry.kind is Kind.FILE else 0
    return Node(entry.kind, entry.mode, 0, 0, size, mtime, entry.link, device, xattrs=xattrs)


def _copy(source: int, offset: int, size: int, out: int) -> None:
    while size:
        count = os.sendfile(out, source, offset, size)
        if not count:
            raise ContextError("the context's temporary file was cut short")
        offset += count
        size -= count
