"""The files below a directory's descriptor as the entries of an archive, while others may change them.

Every directory is opened by its name in the one before, and never through a link; what is read is what was
looked at, by the same descriptor. A container that exchanges directories and links meanwhile can have other
files of its own copied, and nothing else (CVE-2018-15664, CVE-2019-14271).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from builder.errors import UsageError
from builder.sandbox.owners import noted
from builder.tree import join, kind_of, read_xattrs
from oci.compress import NO_LIMITS
from oci.tar import Entry, Kind

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NANO = 1_000_000_000

_KERNELS = frozenset(
    {
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x1CD1,  # devpts
        0x19800202,  # mqueue
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xCAFE4A11,  # bpf
    }
)
"""File systems whose files are the kernel's (linux/magic.h): `cp` does not see them, as with docker."""


class Files:
    """The file `name` in the directory `parent` and all below it, as `oci.apply.apply` reads an archive; the
    first entry is named `top`, b"" for a directory that is the archive's root.

    `looked` is called before each entry. Iteration raises OSError, UsageError for directories that nest too
    deep. Sockets are left out.
    """

    limits = NO_LIMITS

    def __init__(
        self, parent: int, name: bytes, top: bytes, *, looked: Callable[[], None] = lambda: None
    ) -> None:
        self._parent, self._name, self._top = parent, name, top
        self._looked = looked
        self._fd, self._left = -1, 0
        self._links: dict[tuple[int, int], bytes] = {}
        self._open: list[int] = []
        self.entries = 0
        self.size = 0
        """Bytes of content so far."""

    def close(self) -> None:
        """Let go of what is open."""
        self._drop()
        while self._open:
            os.close(self._open.pop())

    def read(self, size: int = -1) -> bytes:
        """Content of the file that came last, of which no more is given than its entry says."""
        if self._fd < 0 or not self._left:
            return b""
        chunk = os.read(self._fd, self._left if size < 0 else min(size, self._left))
        self._left -= len(chunk)
        self.size += len(chunk)
        return chunk

    def __iter__(self) -> Iterator[Entry]:
        entry = self._look(self._parent, self._name, self._top, 0)
        if entry is not None:
            yield self._counted(entry)
        if entry is None or entry.kind is not Kind.DIRECTORY or not self._open:
            return
        levels = [(self._top, iter(self._names()), os.fstat(self._open[-1]).st_dev)]
        while levels:
            path, names, device = levels[-1]
            name = next(names, None)
            if name is None:
                levels.pop()
                os.close(self._open.pop())
                continue
            depth = len(self._open)
            try:
                entry = self._look(self._open[-1], name, join(path, name), device)
            except FileNotFoundError:
                continue  # gone meanwhile
            if entry is None:
                continue
            yield self._counted(entry)
            if len(self._open) > depth:
                if depth >= self.limits.depth:
                    raise UsageError(f"{entry}: directories nest deeper than {self.limits.depth}")
                levels.append((entry.name, iter(self._names()), os.fstat(self._open[-1]).st_dev))

    def _counted(self, entry: Entry) -> Entry:
        self.entries += 1
        return entry

    def _names(self) -> list[bytes]:
        return sorted(os.fsencode(name) for name in os.listdir(self._open[-1]))

    def _look(self, parent: int, name: bytes, path: bytes, device: int) -> Entry | None:
        """The entry of a file. A directory that has something to show stays open, a regular file is ready to
        be read.
        """
        self._drop()
        self._looked()
        found = os.open(name, _PATH, dir_fd=parent)
        try:
            info = os.fstat(found)
            kind = kind_of(info.st_mode)
            if kind is None:
                return None
            if kind is Kind.DIRECTORY:
                return self._directory(found, info, path, device)
            if kind is Kind.SYMLINK:
                return _entry(path, kind, info, link=os.readlink(b"", dir_fd=found))
            if kind is not Kind.FILE:
                major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
                return replace(_entry(path, kind, info), major=major, minor=minor)
            return self._file(found, info, path)
        finally:
            os.close(found)

    def _directory(self, found: int, info: os.stat_result, path: bytes, device: int) -> Entry:
        fd = os.open(b".", _DIRECTORY, dir_fd=found)
        entry = _entry(path, Kind.DIRECTORY, info, fd)
        if info.st_dev != device and is_kernels(fd):
            os.close(fd)
        else:
            self._open.append(fd)
        return entry

    def _file(self, found: int, info: os.stat_result, path: bytes) -> Entry:
        if info.st_nlink > 1:
            first = self._links.setdefault((info.st_dev, info.st_ino), path)
            if first != path:
                return _entry(path, Kind.HARDLINK, info, link=first)
        self._fd = os.open(f"/proc/self/fd/{found}", _READ)
        self._left = info.st_size
        return _entry(path, Kind.FILE, info, self._fd)

    def _drop(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_kernels(fd: int) -> bool:
    """Whether a descriptor is in a file system whose files are the kernel's, as far as that can be told."""
    from builder.sandbox.syscalls import file_system_type

    with suppress(OSError):
        return file_system_type(fd) in _KERNELS
    return False


def _entry(path: bytes, kind: Kind, info: os.stat_result, fd: int = -1, link: bytes = b"") -> Entry:
    uid, gid = info.st_uid, info.st_gid
    xattrs = read_xattrs(fd) if fd >= 0 else ()
    if fd >= 0 and not (uid or gid) and not (owner := noted(fd)).plain:
        uid, gid = owner.uid, owner.gid
    size = info.st_size if kind is Kind.FILE else 0
    mtime = info.st_mtime_ns // _NANO
    return Entry(path, kind, stat.S_IMODE(info.st_mode), uid, gid, size, mtime, link, xattrs=xattrs)
