"""The calls of `mountcalls` for kernels before 5.12, made of mount(2).

A mount cannot be detached there: it is made on a place of the stage, a tmpfs over the host's `/`, and moved
from there (MS_MOVE), after which its descriptor stands for it still. Places and targets are told to mount(2)
as `/proc/self/fd/N`, which leads to exactly what the descriptor stands for.
"""

from __future__ import annotations

import os
import stat

from builder.sandbox import syscalls as sys_
from builder.sandbox.stubs import mount_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_BIND, _MOVE, _REMOUNT, _STRICTATIME = 4096, 8192, 32, 1 << 24
_KEPT = ((os.ST_NOATIME, 1024), (os.ST_NODIRATIME, 2048), (os.ST_RELATIME, 1 << 21))
_SAME = os.ST_RDONLY | os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
_PLACES = 8
"""So many mounts may wait at once."""


class OldMounts:
    """The stage with its places. `stage` is a descriptor of it.

    Lookups of host paths still see the host: `/` itself is never looked up again. `/..` is, once.
    """

    def __init__(self) -> None:
        sys_.mount(b"tmpfs", b"/", b"tmpfs", _SAME & ~os.ST_RDONLY & ~os.ST_NOEXEC, b"mode=755,size=1g")
        self.stage = os.open(b"/..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._next = 0
        for number in range(_PLACES):
            os.mkdir(b".d%d" % number, 0o555, dir_fd=self.stage)
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(b".f%d" % number, flags, 0o444, dir_fd=self.stage))

    def make_mount(self, kind: bytes, attributes: int, options: Sequence[tuple[bytes, bytes]] = ()) -> int:
        """Options are ours, never a user's: there is nothing to escape."""
        flags = attributes & _SAME | (_STRICTATIME if attributes & sys_.ATTR_STRICTATIME else 0)
        text = b",".join(key + (b"=" + value if value else b"") for key, value in options)
        place = self._place(directory=True)
        self._mount(kind, place, kind, flags, text)
        return self._on(place)

    def open_tree(self, at: int, path: bytes, *, recursive: bool = False) -> int:
        folder = None if at == sys_.AT_FDCWD else at
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        source = os.open(path, flags, dir_fd=folder) if path else os.dup(at)
        place = self._place(directory=stat.S_ISDIR(os.fstat(source).st_mode))
        self._mount(_name(source), place, b"", _BIND | (sys_.MS_REC if recursive else 0))
        os.close(source)
        return self._on(place)

    def mount_setattr(self, fd: int, attributes: int, *, recursive: bool = False) -> None:
        rec = sys_.MS_REC if recursive else 0
        sys_.mount(b"none", _name(fd), b"", sys_.MS_PRIVATE | rec)
        self._add(fd, attributes)
        for path in self._below(fd) if recursive else ():
            below = os.open(path, os.O_PATH | os.O_CLOEXEC, dir_fd=self.stage)
            self._add(below, attributes)
            os.close(below)

    def move_mount(self, fd: int, target: int) -> None:
        self._mount(_name(fd), _name(target), b"", _MOVE)

    def _place(self, *, directory: bool) -> bytes:
        """The name of a place on the stage where nothing is mounted."""
        self._next = (self._next + 1) % _PLACES
        return b".%c%d" % (b"d" if directory else b"f", self._next)

    def _on(self, place: bytes) -> int:
        return os.open(place, os.O_PATH | os.O_CLOEXEC, dir_fd=self.stage)

    def _mount(self, source: bytes, target: bytes, kind: bytes, flags: int, options: bytes = b"") -> None:
        if target.startswith(b"/"):
            sys_.mount(source, target, kind, flags, options)
            return
        fd = self._on(target)
        try:
            sys_.mount(source, _name(fd), kind, flags, options)
        finally:
            os.close(fd)

    @staticmethod
    def _add(fd: int, attributes: int) -> None:
        """A remount has to name again what is to stay."""
        now = os.fstatvfs(fd).f_flag
        flags = (now | attributes) & _SAME
        flags |= sum(flag for seen, flag in _KEPT if now & seen)
        sys_.mount(b"none", _name(fd), b"", _REMOUNT | _BIND | flags)

    @staticmethod
    def _below(fd: int) -> list[bytes]:
        """Mount points below the mount at `fd`, seen from the stage."""
        within, found = {mount_id(fd)}, []
        with open("/proc/self/mountinfo", "rb") as file:
            rows = [line.split() for line in file]
        for row in sorted(rows, key=lambda row: int(row[0])):  # a copy's parts come after it, parents first
            if int(row[1]) in within:
                within.add(int(row[0]))
                found.append(_plain(row[4]).lstrip(b"/"))
        return found


def _name(fd: int) -> bytes:
    return b"/proc/self/fd/%d" % fd


def _plain(name: bytes) -> bytes:
    r"""Without mountinfo's octal escapes: `\040` is a space."""
    head, *rest = name.split(b"\\")
    return head + b"".join(bytes([int(each[:3], 8)]) + each[3:] for each in rest)
