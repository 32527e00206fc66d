"""What a COPY reads, as one checksum: names, kinds, modes, owners, links, xattrs and content, never times
(K01).

Reading 40,000 files to find that nothing changed would be the slowest part of a cached build, so two things
are remembered in a small persistent table. Per selection, the checksum under a hash of everything lstat
tells of its files: a rebuild walks, hashes, looks up once and opens nothing. And per selection, the digest
of each file by (dev, ino, size, mtime, ctime): when some files changed, only those are read. Nothing is
remembered of files changed less than two seconds before they were read (SECURITY.md R18): a second change
could leave the same times.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
import zlib
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from operator import attrgetter
from typing import Protocol

from builder.contexts.hashing import SMALL, hasher
from builder.errors import ContextError
from builder.tree import Item, Node, Opener, Tree, Xattrs, read_xattrs
from oci.data import dataclass
from oci.tar.entry import Kind

_VERSION = b"2"
_YOUNG_NS = 2_000_000_000
_CHUNK = 1 << 20
_DIGEST = 32
_OWNERS = (("Q", attrgetter("mode")), ("Q", attrgetter("uid")), ("Q", attrgetter("gid")))
_IDENTITY = (
    ("Q", attrgetter("dev")),
    ("Q", attrgetter("ino")),
    ("Q", attrgetter("size")),
    ("q", attrgetter("mtime_ns")),
    ("q", attrgetter("ctime_ns")),
)
"""Columns of lstat, with their array codes: whole columns are packed and hashed at once."""

Digests = dict[bytes, bytes]
"""Path in a tree -> digest of that file (see `file_digest`)."""


class Memory(Protocol):
    """A small persistent table of bytes that may forget anything at any time."""

    def get(self, key: bytes) -> bytes | None: ...
    def put_many(self, rows: Iterable[tuple[bytes, bytes]]) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """One source path of a COPY and all below it. `base` is where it lies in `tree`, `name` what it was
    called."""

    tree: Tree
    name: bytes
    base: bytes
    picked: list[Item] | None = field(default=None, repr=False)
    """What of it is copied, where that is not all."""
    fixed: bool = False
    """Whether these are a context's own files, whose times a clock replaces."""
    unpack: bool = False
    """Whether an archive is to be unpacked."""
    itself: bool = False
    """Whether a directory is copied with its own metadata, not only its contents."""

    @property
    def items(self) -> list[Item]:
        """`base` first, directories before their contents."""
        return self.tree.walk(self.base) if self.picked is None else self.picked

    @property
    def node(self) -> Node:
        if self.picked is not None:
            return self.picked[0][1]
        found = self.tree.lstat(self.base)
        if found is None:
            raise changed(self.base)
        return found


class Content:
    """Checksums of selections, remembered in `memory`. `now_ns` is the wall clock."""

    def __init__(self, memory: Memory | None = None, now_ns: int | None = None) -> None:
        self._memory = memory
        self._started = time.time_ns() if now_ns is None else now_ns
        self._stamps: dict[int, tuple[Selected, bytes]] = {}

    def known(self, selection: Sequence[Selected]) -> str | None:
        """The checksum of `selection` if it can be told without opening a file, else None."""
        parts = [self._known(each) for each in selection]
        return _together(selection, [part for part in parts if part]) if all(parts) else None

    def checksum(self, selection: Sequence[Selected]) -> str:
        """The checksum of `selection`, reading the files that are not remembered.

        Raises ContextError for files that cannot be read or changed while they were.
        """
        return _together(selection, [self._known(each) or self._read(each) for each in selection])

    def learn(self, selection: Sequence[Selected], digests: Sequence[Mapping[bytes, bytes]]) -> str:
        """The checksum of `selection`, whose files were just read for another reason: `digests` for each of
        it."""
        rows = zip(selection, digests, strict=True)
        return _together(selection, [self._remember(each, found) for each, found in rows])

    def _stamp(self, selected: Selected) -> bytes:
        """`_stamp_of`, made once: a selection is asked for, and then remembered."""
        found = self._stamps.get(id(selected))
        if found is None or found[0] is not selected:
            found = self._stamps[id(selected)] = selected, _stamp_of(selected)
        return found[1]

    def _known(self, selected: Selected) -> bytes | None:
        if self._memory is None:
            known = None
        elif len(found := self._memory.get(self._stamp(selected)) or b"") == _DIGEST:
            return found
        else:
            known = self._memory.get(_table_key(selected))
        digests = _told(selected, _unpack_table(known) if known else {})
        return None if digests is None else self._remember(selected, digests)

    def _read(self, selected: Selected) -> bytes:
        table = self._memory.get(_table_key(selected)) if self._memory else None
        remembered = _unpack_table(table) if table else {}
        digests: Digests = {}
        with selected.tree.opener() as open_file:
            for path, node in selected.items:
                if node.kind is Kind.FILE:
                    digest = remembered.get(_identity(node)) or _without_reading(node)
                    digests[path] = digest or hash_file(open_file, path, node, selected.fixed)
        return self._remember(selected, digests)

    def _remember(self, selected: Selected, digests: Mapping[bytes, bytes]) -> bytes:
        checksum = _checksum(selected, digests)
        if self._memory is not None and selected.node.ino:
            oldest = self._started - _YOUNG_NS
            settled = [item for item in selected.items if max(item[1].mtime_ns, item[1].ctime_ns) < oldest]
            rows = [(_table_key(selected), _pack_table(settled, digests))]
            if len(settled) == len(selected.items):
                rows.append((self._stamp(selected), checksum))
            self._memory.put_many(rows)
        return checksum


def file_digest(content: bytes, xattrs: Xattrs) -> bytes:
    """The digest of a file from the hash of its content (`hasher`) and its xattrs."""
    if not xattrs:
        return content
    return hashlib.sha256(_framed([content, *(part for pair in xattrs for part in pair)])).digest()


def read_small(open_file: Opener, path: bytes, node: Node, of_context: bool) -> tuple[bytes, Xattrs]:
    """Content and xattrs of a file, checked to be the one that was listed.

    Raises ContextError when it cannot be read or changed. Runs for every file of a context.
    """
    try:
        fd = open_file(path)
        try:
            content = os.read(fd, node.size)
            if node.ino:
                xattrs = read_xattrs(fd, of_context=of_context) if os.listxattr(fd) else ()
                st = os.fstat(fd)
                if (
                    st.st_mtime_ns != node.mtime_ns
                    or st.st_ctime_ns != node.ctime_ns
                    or st.st_ino != node.ino
                ):
                    raise changed(path)
            else:
                xattrs = node.xattrs
        finally:
            os.close(fd)
    except OSError as error:
        raise unreadable(path, error) from None
    if len(content) != node.size:
        raise changed(path)
    return content, xattrs


def hash_file(open_file: Opener, path: bytes, node: Node, of_context: bool) -> bytes:
    """The digest of a file (see `file_digest`), read in pieces. Raises ContextError as `read_small` does."""
    if node.size <= SMALL:
        content, xattrs = read_small(open_file, path, node, of_context)
        return file_digest(hashlib.sha256(content).digest(), xattrs)
    hashed = hasher(node.size)
    try:
        fd = open_file(path)
        try:
            while chunk := os.read(fd, _CHUNK):
                hashed.update(chunk)
            xattrs = read_xattrs(fd, of_context=of_context) if node.ino else node.xattrs
            check_unchanged(fd, path, node)
        finally:
            os.close(fd)
    except OSError as error:
        raise unreadable(path, error) from None
    return file_digest(hashed.digest(), xattrs)


def check_unchanged(fd: int, path: bytes, node: Node) -> None:
    """Raise ContextError unless `fd` is the file that `node` describes, untouched since."""
    st = os.fstat(fd)
    if node.ino and (
        st.st_mtime_ns != node.mtime_ns
        or st.st_ctime_ns != node.ctime_ns
        or st.st_size != node.size
        or st.st_ino != node.ino
        or st.st_dev != node.dev
    ):
        raise changed(path)


def unreadable(path: bytes, error: OSError) -> ContextError:
    """The error for a listed file that cannot be opened or read."""
    if isinstance(error, PermissionError):
        return ContextError(
            f"{os.fsdecode(path)} cannot be read: permission denied",
            hint="make it readable, or name it in .dockerignore",
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError) or error.errno == errno.ELOOP:
        return changed(path)
    return ContextError(f"{os.fsdecode(path)} cannot be read: {error.strerror}")


def changed(path: bytes) -> ContextError:
    """The error for a file that is not what it was when the build looked first."""
    return ContextError(
        f"{os.fsdecode(path)} changed during the build", hint="build again when nothing writes to the context"
    )


def _together(selection: Sequence[Selected], parts: Sequence[bytes]) -> str:
    names = [part for each, digest in zip(selection, parts, strict=True) for part in (each.name, digest)]
    return hashlib.sha256(_framed(names)).hexdigest()


def _without_reading(node: Node) -> bytes | None:
    return file_digest(node.content, node.xattrs) if node.content else None


def _told(selected: Selected, table: Mapping[tuple[int, ...], bytes]) -> Digests | None:
    """Every file's digest from `table` or the tree's own knowledge; None when one is missing."""
    digests: Digests = {}
    for path, node in selected.items:
        if node[0] is Kind.FILE:
            digest = _without_reading(node) if node.content else table.get(_identity(node))
            if digest is None:
                return None
            digests[path] = digest
    return digests


def _checksum(selected: Selected, digests: Mapping[bytes, bytes]) -> bytes:
    """The checksum itself: whole columns at a time, each framed by its length."""
    skip = len(selected.base) + 1 if selected.base else 0
    items = selected.items
    nodes = [node for _, node in items]
    special = [path for path, node in items if node[0] is Kind.DIRECTORY]
    columns = [
        _VERSION,
        b"\0".join([path[skip:] for path, _ in items]),
        bytes([node[0] for node in nodes]),
        *[array(code, map(column, nodes)).tobytes() for code, column in _OWNERS],
        b"\0".join([node.link for node in nodes if node[0] is Kind.SYMLINK]),
        array("Q", [node.rdev for node in nodes if node[0] in (Kind.CHAR, Kind.BLOCK)]).tobytes(),
        b"".join([digests[path] for path, node in items if node[0] is Kind.FILE]),
        _links(nodes),
        *_directory_xattrs(selected.tree, special),
    ]
    return hashlib.sha256(_framed(columns)).digest()


def _links(nodes: list[Node]) -> bytes:
    """Which files share an inode, as the position of the first of each group: COPY keeps hardlinks."""
    first: dict[tuple[int, int], int] = {}
    numbers = array("Q")
    for index, node in enumerate(nodes):
        if node.nlink > 1 and node[0] is Kind.FILE:
            numbers.extend((index, first.setdefault((node.dev, node.ino), index)))
    return numbers.tobytes()


def _directory_xattrs(tree: Tree, paths: list[bytes]) -> list[bytes]:
    rows: list[bytes] = []
    for index, path in enumerate(paths):
        for key, value in tree.xattrs(path):
            rows += (b"%d" % index, key, value)
    return rows


def _stamp_of(selected: Selected) -> bytes:
    """The key under which the checksum is remembered: all that lstat says of every file.

    What a file holds cannot change without its ctime; links and xattrs are therefore in it too. A context
    has it for a whole directory without making a Node of every file.
    """
    whole = getattr(selected.tree, "stamp", None) if selected.picked is None else None
    if whole is not None and (stamp := whole(selected.base)) is not None:
        return b"whole:" + bytes(stamp)
    items = selected.items
    sha256 = hashlib.sha256(_VERSION)
    sha256.update(b"\0".join([selected.base, *[path for path, _ in items]]))
    sha256.update(bytes([node[0] for _, node in items]))
    nodes = [node for _, node in items]
    for code, column in (*_OWNERS, *_IDENTITY):
        sha256.update(array(code, map(column, nodes)).tobytes())
    return b"selection:" + sha256.digest()


def _table_key(selected: Selected) -> bytes:
    node = selected.node
    return (
        b"files:"
        + hashlib.sha256(_framed([_VERSION, b"%d %d" % (node.dev, node.ino), selected.base])).digest()
    )


def _identity(node: Node) -> tuple[int, ...]:
    return (node.dev, node.ino, node.size, node.mtime_ns, node.ctime_ns)


def _pack_table(items: list[Item], digests: Mapping[bytes, bytes]) -> bytes:
    """(dev, ino, size, mtime, ctime) and digest of each file: five compressed columns, then the digests."""
    files = [(path, node) for path, node in items if node[0] is Kind.FILE]
    nodes = [node for _, node in files]
    columns = b"".join(array(code, map(column, nodes)).tobytes() for code, column in _IDENTITY)
    packed = zlib.compress(columns, 1)
    return b"".join((len(packed).to_bytes(8, "big"), packed, *[digests[path] for path, _ in files]))


def _unpack_table(table: bytes) -> dict[tuple[int, ...], bytes]:
    end = 8 + int.from_bytes(table[:8], "big")
    try:
        columns = zlib.decompress(table[8:end])
    except zlib.error:
        return {}
    width = len(columns) // len(_IDENTITY)
    rows = [
        array(code, columns[index * width : (index + 1) * width]) for index, (code, _) in enumerate(_IDENTITY)
    ]
    digests = [table[at : at + _DIGEST] for at in range(end, len(table), _DIGEST)]
    return dict(zip(zip(*rows, strict=True), digests, strict=True))


def _framed(parts: Iterable[bytes]) -> bytes:
    return b"".join(frame for part in parts for frame in (len(part).to_bytes(8, "big"), part))
