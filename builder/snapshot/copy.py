"""Steps where no overlay can be mounted: a plain directory with a copy of all layers, and what changed in it.

    Copied(lowers, root)      the merged tree of the layers, file by file: reflinks where the file system has
                              them (ioctl_ficlonerange(2)), else copies; never hard links, for the step may
                              write to every file
    Copied.move_changes(upper)   afterwards: what is new or other is moved into `upper`, in overlay's form

What comes out is what overlay would have left in an upper directory, so that everything above (layers, cache,
views) does not know the difference. A file counts as changed when its inode or its ctime is another, a
directory when its inode, birth, owner, mode or mtime is: what a step opens for writing and does not write is
no change here, though overlay copies it up. Hard links between files of the layers are several files, as
overlay makes them when they are written to.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from builder.errors import ResourceError
from builder.sandbox.syscalls import birth_time
from builder.snapshot.noted import tell
from builder.snapshot.view import DirectoryLayer, View
from builder.tree import Node, Xattrs, join, read_xattrs
from oci.tar import Kind

_FICLONE = 0x40049409
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 26
_NO_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM)


class _Seen(NamedTuple):
    """What tells whether a file of the copy is still as it was."""

    ino: int
    ctime_ns: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    birth: int = 0
    xattrs: Xattrs = ()


class Copied:
    """The merged tree of `lowers` (host directories, topmost first) in the empty host directory `root`.

    Raises ResourceError when the disk is full, OSError for what else cannot be made.
    """

    def __init__(self, lowers: Sequence[str], root: str, *, userxattr: bool = False, notes: str = "") -> None:
        self.root = os.fsencode(root)
        self._notes = notes
        self._userxattr = userxattr
        self._view = View([DirectoryLayer(each, userxattr=userxattr) for each in reversed(lowers)])
        self._seen: dict[bytes, _Seen] = {}
        self._names: dict[bytes, list[bytes]] = {}
        self._clones = True
        try:
            if lowers:
                self._directory(b"", os.fsencode(lowers[0]))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceError(
                    f"copying the layers for a step: {error.strerror}",
                    hint="no overlay can be mounted here, so every RUN needs a copy of all files: have the "
                    "store (--root) where one can, or on a file system with reflinks (xfs, btrfs)",
                ) from None
            raise

    # ---- before the step ----

    def _directory(self, path: bytes, source: bytes) -> None:
        target = join(self.root, path) if path else self.root
        if path:
            os.mkdir(target, 0o700)
        names = []
        for name, layer, node in sorted(self._view.entries(path), key=lambda row: row[0]):
            child = join(path, name)
            names.append(name)
            below = join(os.fsencode(layer.path), child) if isinstance(layer, DirectoryLayer) else b""
            if node.kind is Kind.DIRECTORY:
                self._directory(child, below)
            else:
                self._other(node, below, join(self.root, child), child)
        self._names[path] = names
        if source:
            _take_over(source, target, self._userxattr)
        self._seen[path] = _seen_directory(target)

    def _other(self, node: Node, source: bytes, target: bytes, path: bytes) -> None:
        info = os.lstat(source)
        if stat.S_ISREG(info.st_mode):
            self._file(source, target, info)
        elif node.kind in (Kind.SYMLINK, Kind.FIFO):
            if node.kind is Kind.FIFO:
                os.mkfifo(target, 0o600)
            else:
                os.symlink(node.link, target)
            if self._notes and (node.uid or node.gid):
                tell(self._notes, os.lstat(target).st_ino, node.uid, node.gid)
        else:
            os.mknod(target, stat.S_IFMT(info.st_mode) | 0o600, info.st_rdev)
        _take_over(source, target, self._userxattr)
        self._seen[path] = _seen(os.lstat(target))

    def _file(self, source: bytes, target: bytes, info: os.stat_result) -> None:
        reading, writing = os.open(source, _READ), -1
        try:
            writing = os.open(target, _CREATE, 0o600)
            if info.st_size and not self._cloned(reading, writing):
                copy_content(reading, writing)
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)

    def _cloned(self, reading: int, writing: int) -> bool:
        if not self._clones:
            return False
        try:
            fcntl.ioctl(writing, _FICLONE, reading)
        except OSError as error:
            if error.errno not in _NO_CLONE:
                raise
            self._clones = False
        return self._clones

    def unchanged(self, path: bytes) -> None:
        """Take the file at `path` as it is now for what it was: the builder itself moved it away and back."""
        self._seen[path] = _seen(os.lstat(join(self.root, path)))

    # ---- after it ----

    def move_changes(self, upper: str) -> None:
        """Move what the step made and changed into the empty directory `upper`, with whiteouts and opaque
        marks for what it removed. Nothing of the step runs any more; the copy is of no use afterwards.
        """
        top = os.fsencode(upper)
        finish: list[tuple[bytes, os.stat_result]] = []
        info = os.lstat(self.root)
        self._move_below(b"", top, finish)
        for path, looks in reversed(finish):
            _look_like(join(self.root, path), join(top, path), looks, self._userxattr, out=True)
        os.chown(top, info.st_uid, info.st_gid)
        os.chmod(top, stat.S_IMODE(info.st_mode))

    def _move_below(self, path: bytes, top: bytes, finish: list[tuple[bytes, os.stat_result]]) -> None:
        """All that changed in a directory that is still the one it was."""
        here = join(self.root, path) if path else self.root
        with os.scandir(here) as entries:
            rows = sorted((each.name, each.stat(follow_symlinks=False)) for each in entries)
        for name, info in rows:
            child = join(path, name)
            before = self._seen.get(child)
            if stat.S_ISDIR(info.st_mode):
                now = _seen_directory(join(self.root, child))
                if before is not None and _same_directory(before, now):
                    if now != before._replace(ctime_ns=now.ctime_ns):
                        self._above(child, top, finish)
                    self._move_below(child, top, finish)
                else:
                    self._move_new(child, top, finish, replaced=before is not None)
            elif before != _seen(info):
                self._move(child, info, top, finish)
        present = {name for name, _ in rows}
        for gone in self._names.get(path, ()):
            if gone not in present:
                self._above(path, top, finish)
                os.mknod(join(top, join(path, gone)), stat.S_IFCHR, 0)

    def _move_new(
        self, path: bytes, top: bytes, finish: list[tuple[bytes, os.stat_result]], *, replaced: bool
    ) -> None:
        """A directory that was not there before, with all in it."""
        self._above(path, top, finish)
        if replaced:
            mark = "user.overlay.opaque" if self._userxattr else "trusted.overlay.opaque"
            os.setxattr(join(top, path), mark, b"y")
        with os.scandir(join(self.root, path)) as entries:
            rows = [(each.name, each.stat(follow_symlinks=False)) for each in entries]
        for name, info in rows:
            child = join(path, name)
            if stat.S_ISDIR(info.st_mode):
                self._move_new(child, top, finish, replaced=False)
            else:
                self._move(child, info, top, finish)

    def _move(
        self, path: bytes, info: os.stat_result, top: bytes, finish: list[tuple[bytes, os.stat_result]]
    ) -> None:
        """One file. A device 0:0 would be read as a whiteout: overlay lets no step make one."""
        if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
            return
        self._above(path.rpartition(b"/")[0], top, finish)
        if self._userxattr:
            _nest(join(self.root, path))
        os.rename(join(self.root, path), join(top, path))

    def _above(self, path: bytes, top: bytes, finish: list[tuple[bytes, os.stat_result]]) -> None:
        """`path` and the directories above it, made in `top` unless they are there. How they look is set at
        the end, from how they look now: moving their contents changes that.
        """
        missing = []
        while path and not os.path.lexists(join(top, path)):
            missing.append(path)
            path = path.rpartition(b"/")[0]
        for each in reversed(missing):
            os.mkdir(join(top, each), 0o700)
            finish.append((each, os.lstat(join(self.root, each))))


def _seen(info: os.stat_result) -> _Seen:
    return _Seen(info.st_ino, info.st_ctime_ns, info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns)


def _seen_directory(path: bytes) -> _Seen:
    return _seen(os.lstat(path))._replace(birth=birth_time(path), xattrs=read_xattrs(path))


def _same_directory(before: _Seen, now: _Seen) -> bool:
    """An inode's number alone may have been given to a new directory."""
    return stat.S_ISDIR(before.mode) and (before.ino, before.birth) == (now.ino, now.birth)


def _take_over(source: bytes, target: bytes, userxattr: bool) -> None:
    _look_like(source, target, os.lstat(source), userxattr, out=False)


def _look_like(source: bytes, target: bytes, looks: os.stat_result, userxattr: bool, *, out: bool) -> None:
    """Give `target` the owner, mode, attributes and times of `source`, which looked like `looks`.

    `out` is the way from the copy to an upper directory: what overlay would take for its own is nested.
    """
    link = stat.S_ISLNK(looks.st_mode)
    os.chown(target, looks.st_uid, looks.st_gid, follow_symlinks=False)
    if not link:
        os.chmod(target, stat.S_IMODE(looks.st_mode))
        for name in os.listxattr(source, follow_symlinks=False):
            kept = (_nested(name) if out else _unnested(name)) if userxattr else name
            if kept and (out or not kept.startswith("trusted.overlay.")):
                _set(target, kept, os.getxattr(source, name, follow_symlinks=False))
    os.utime(target, ns=(looks.st_atime_ns, looks.st_mtime_ns), follow_symlinks=False)


def _set(target: bytes, name: str, value: bytes) -> None:
    with suppress(OSError):  # another namespace's or a security module's: not ours to carry
        os.setxattr(target, name, value, follow_symlinks=False)


def _nested(name: str) -> str:
    """An attribute of a step's file as overlay keeps it where its own marks are `user.` ones."""
    return f"user.overlay.{name[5:]}" if name.startswith("user.overlay.") else name


def _unnested(name: str) -> str:
    """The reverse; "" for a mark."""
    if not name.startswith("user.overlay."):
        return name
    rest = name[len("user.overlay.") :]
    return f"user.{rest}" if rest.startswith("overlay.") else ""


def _nest(path: bytes) -> None:
    if stat.S_ISLNK(os.lstat(path).st_mode):
        return
    for name in os.listxattr(path, follow_symlinks=False):
        if (other := _nested(name)) != name:
            os.setxattr(path, other, os.getxattr(path, name, follow_symlinks=False), follow_symlinks=False)
            os.removexattr(path, name, follow_symlinks=False)


def copy_content(reading: int, writing: int) -> None:
    """Copy a file from its start to another one, by the kernel; where the file system can, blocks are
    shared. Raises OSError.
    """
    try:
        while os.copy_file_range(reading, writing, _CHUNK):
            pass
        return
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
    os.lseek(reading, os.lseek(writing, 0, os.SEEK_CUR), os.SEEK_SET)
    while os.sendfile(writing, reading, None, _CHUNK):
        pass
