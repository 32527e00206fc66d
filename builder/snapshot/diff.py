"""The changes of a step: what its overlay upper directory adds, as a layer's entries (image-spec: layer.md).

    character device 0:0       .wh.NAME
    opaque directory           .wh..wh..opq in it, where the layers below have that directory
    overlay's own xattrs       left out
    several names, one inode   the first by order has the content, the others are hardlinks
    sockets                    left out

Directories that were copied up without a change stay, as in Docker's layers. The cost is that of what
changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from builder.errors import BuildError
from builder.snapshot.noted import Owned, notes_of
from builder.snapshot.times import settle
from builder.snapshot.view import DirectoryLayer, View, is_opaque
from builder.tree import join, kind_of, read_xattrs
from oci.tar import ChangedWhileReading, Entry, Kind, TarWriter
from oci.whiteout import OPAQUE, PREFIX

_SMALL = 1 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NANO = 1_000_000_000


class Change(NamedTuple):
    """One entry; `source` is the host file that holds the content of a regular file, else b""."""

    entry: Entry
    source: bytes = b""


def write_upper(
    upper: str,
    lowers: Sequence[str],
    sink: Callable[[bytes], None],
    *,
    clock: int | None = None,
    userxattr: bool = False,
) -> bool:
    """Write the layer of `upper` on top of `lowers` (host directories, topmost first) to `sink`, as a
    finished tar.

    False when there is nothing to write: such a step has no layer, and `sink` was not called.
    """
    tar = TarWriter(sink)
    write(changes(upper, lowers, clock=clock, userxattr=userxattr), tar)
    if not tar.entries:
        return False
    tar.finish()
    return True


def write(found: Iterator[Change], tar: TarWriter) -> None:
    """Write changes to `tar`. Raises BuildError when a file changes meanwhile (something still runs)."""
    for entry, source in found:
        if not source:
            tar.add(entry)
            continue
        fd = os.open(source, _FILE)
        try:
            if entry.size <= _SMALL:
                tar.add(entry, os.read(fd, entry.size + 1))
            else:
                tar.add_stream(entry, partial(os.read, fd))
        except ChangedWhileReading as error:
            raise BuildError(str(error), hint="a process of the step seems to be running still") from None
        finally:
            os.close(fd)


def changes(
    upper: str,
    lowers: Sequence[str] = (),
    *,
    clock: int | None = None,
    userxattr: bool = False,
    live: bool = False,
) -> Iterator[Change]:
    """What `upper` adds to `lowers`, sorted, directories before their contents.

    Times are whole seconds, none later than `clock` where there is one (ARCHITECTURE.md 4.11). `live` says
    that somebody may write there meanwhile: each directory is then reached by its descriptor, never by a
    name that may have become a link.
    """
    return (_LiveDiffer if live else _Differ)(os.fsencode(upper), lowers, clock, userxattr).run()


class _Differ:
    def __init__(self, upper: bytes, lowers: Sequence[str], clock: int | None, userxattr: bool) -> None:
        self._upper = upper
        self._lowers = tuple(lowers)
        self._clock = clock
        self._userxattr = userxattr
        self._links: dict[tuple[int, int], bytes] = {}
        self._below: View | None = None
        self._notes = notes_of(upper)

    def run(self) -> Iterator[Change]:
        root = os.lstat(self._upper)
        below = os.stat(self._lowers[0]) if self._lowers else None
        plain = (below.st_mode, below.st_uid, below.st_gid) if below else (0o40755, 0, 0)
        if (root.st_mode, root.st_uid, root.st_gid) != plain:
            yield Change(self._entry(b"", Kind.DIRECTORY, root))
        yield from self._directory(b"", self._upper)

    def _directory(self, path: bytes, full: bytes) -> Iterator[Change]:
        with os.scandir(full) as entries:
            rows = sorted((_shown(each), each) for each in entries)
        for name, each in rows:
            st = each.stat(follow_symlinks=False)
            kind = kind_of(st.st_mode)
            if kind is None:
                continue
            child = join(path, name)
            if kind is Kind.DIRECTORY:
                yield Change(self._entry(child, kind, st, each.path))
                if is_opaque(each.path, self._userxattr) and self._exists_below(child):
                    yield Change(Entry(join(child, OPAQUE), Kind.FILE, mtime=settle(0, self._clock)))
                yield from self._directory(child, each.path)
            else:
                yield self._file(child, kind, st, each.path)

    def _file(self, path: bytes, kind: Kind, st: os.stat_result, full: bytes) -> Change:
        if kind is Kind.CHAR and st.st_rdev == 0:
            return Change(Entry(path, Kind.FILE, mtime=settle(0, self._clock)))
        if st.st_nlink > 1:
            first = self._links.setdefault((st.st_dev, st.st_ino), path)
            if first != path:
                return Change(self._entry(path, Kind.HARDLINK, st, full, first))
        if kind is Kind.SYMLINK:
            return Change(self._entry(path, kind, st, full, os.readlink(full)))
        if self._notes and (device := self._notes.owned(full, st)).kind:
            entry = self._entry(path, kind, st, full)
            major, minor = os.major(device.rdev), os.minor(device.rdev)
            return Change(replace(entry, kind=device.kind, size=0, major=major, minor=minor))
        return Change(self._entry(path, kind, st, full), full if kind is Kind.FILE else b"")

    def _entry(
        self, path: bytes, kind: Kind, st: os.stat_result, full: bytes = b"", link: bytes = b""
    ) -> Entry:
        device = kind in (Kind.CHAR, Kind.BLOCK)
        owned = self._notes.owned(full, st) if self._notes and full else st
        uid, gid = (owned.uid, owned.gid) if isinstance(owned, Owned) else (st.st_uid, st.st_gid)
        return Entry(
            path,
            kind,
            st.st_mode & 0o7777,
            uid,
            gid,
            st.st_size if kind is Kind.FILE else 0,
            settle(st.st_mtime_ns // _NANO, self._clock),
            link,
            os.major(st.st_rdev) if device else 0,
            os.minor(st.st_rdev) if device else 0,
            read_xattrs(full, userxattr=self._userxattr) if full and kind is not Kind.HARDLINK else (),
        )

    def _exists_below(self, path: bytes) -> bool:
        """Whether the lower layers show a directory at `path`: an opaque mark alone does not say so
        (KERNEL.md 1.3).
        """
        if self._below is None:
            self._below = View(
                [DirectoryLayer(each, userxattr=self._userxattr) for each in reversed(self._lowers)]
            )
        node = self._below.lstat(path)
        return node is not None and node.kind is Kind.DIRECTORY


class _LiveDiffer(_Differ):
    """Names each directory by an open descriptor while what is in it is read (proc_pid_fd(5))."""

    def _directory(self, path: bytes, full: bytes) -> Iterator[Change]:
        fd = os.open(full, _DIRECTORY)
        try:
            yield from super()._directory(path, b"/proc/self/fd/%d" % fd)
        finally:
            os.close(fd)


def _shown(entry: os.DirEntry[bytes]) -> bytes:
    """The name of an entry in the layer, by which it is sorted. Raises BuildError for one that a layer
    cannot hold.
    """
    name = entry.name
    if name.startswith(PREFIX):
        raise BuildError(
            f"a file is named {os.fsdecode(name)}, which no layer can hold: .wh. marks removed files there",
            hint="remove or rename it in the same RUN",
        )
    if _is_whiteout(entry):
        return PREFIX + name
    return name


def _is_whiteout(entry: os.DirEntry[bytes]) -> bool:
    if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False) or entry.is_symlink():
        return False
    st = entry.stat(follow_symlinks=False)
    return kind_of(st.st_mode) is Kind.CHAR and st.st_rdev == 0
