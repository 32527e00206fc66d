"""The directory an archive is unpacked into, walked by descriptors only.

No name of an archive is ever given to the kernel as a path of several components, and no symlink is
followed by the kernel: each component is opened with O_NOFOLLOW in the one before it, and what a symlink
says is resolved here, inside the root. So an archive cannot reach outside, however its entries are ordered.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Literal, Protocol

from oci.errors import InvalidArchive, LimitExceeded, UnsafePath
from oci.rooted import MAX_LINKS
from oci.tar import Entry, Kind

Style = Literal["overlay", "plain"]

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Lower(Protocol):
    """What lies under an overlay layer: the merged view of the layers below it."""

    def entry(self, path: bytes, /) -> Entry | None:
        """What stands at `path` (resolved, relative), which may be a symlink; None when nothing does."""

    def open(self, path: bytes, /) -> int:
        """A descriptor to read the regular file at `path` from."""


class Directory:
    """An open directory of the tree. `path` has no symlinks in it; b"" is the root."""

    __slots__ = ("fd", "hidden", "path", "plain")

    def __init__(self, fd: int, path: bytes, hidden: bool) -> None:
        self.fd = fd
        self.path = path
        self.hidden = hidden
        """Nothing of the lower layers shows here (opaque)."""
        self.plain = not os.fstat(fd).st_mode & stat.S_ISGID and not _has_default_acl(fd)
        """A new file gets the caller's owner and the mode it asks for."""

    def child(self, name: bytes) -> bytes:
        return self.path + b"/" + name if self.path else name


class Tree:
    """Directories by name, made when missing. Keeps the descriptors of the last one and of those above it."""

    def __init__(self, root: int, style: Style, opaque_xattr: str, lower: Lower | None, depth: int) -> None:
        self._overlay = style == "overlay"
        self._opaque = opaque_xattr
        self._lower = lower
        self._depth = depth
        self._last: bytes | None = None
        self._literal = True
        fd = os.open(".", _OPEN, dir_fd=root)
        self._stack = [Directory(fd, b"", hidden=False)]
        self._names: list[bytes] = []
        self.swaps = True
        """Whether a directory may take another file's place, and another file a directory's."""
        self.pending: dict[bytes, Entry] = {}
        """Metadata of directories, to be set when nothing more is put into them."""

    def close(self) -> None:
        for directory in self._stack:
            os.close(directory.fd)
        self._stack.clear()

    def enter(self, path: bytes) -> Directory:
        """The directory `path`, with missing ones made. Valid until the next call.

        Raises UnsafePath for `..` and for symlinks without end, InvalidArchive where a file stands in the
        way.
        """
        if path == self._last:
            return self._stack[-1]
        self._last = None
        names = path.split(b"/") if path else []
        if b".." in names:
            raise UnsafePath(
                f"/{path.decode(errors='replace')} has `..` in it; entries may only name what is inside"
            )
        self._walk(names, path)
        self._last = path
        return self._stack[-1]

    def existing(self, path: bytes) -> Directory | None:
        """The directory `path` if every component of it is one, none of them a symlink."""
        self._last = None
        names = path.split(b"/") if path else []
        self._keep(names)
        try:
            for name in names[len(self._names) :]:
                self._push(name, self._open(self._stack[-1], name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return self._stack[-1]

    def remove(self, directory: Directory, name: bytes) -> None:
        """Remove whatever `name` is. Raises InvalidArchive for a directory that has to stay."""
        try:
            os.unlink(name, dir_fd=directory.fd)
        except IsADirectoryError:
            if not self.swaps:
                raise InvalidArchive(
                    f"{_shown(directory, name)} is a directory, and would become a file"
                ) from None
            empty_directory(directory.fd, name, lambda _: False)
            os.rmdir(name, dir_fd=directory.fd)

    def make(self, directory: Directory, name: bytes, entry: Entry) -> None:
        """A directory `name`, in place of anything but a directory. Its metadata are set at the end."""
        path = directory.child(name)
        try:
            os.mkdir(name, 0o700, dir_fd=directory.fd)
        except FileExistsError:
            status = os.lstat(name, dir_fd=directory.fd)
            if not stat.S_ISDIR(status.st_mode):
                if not self.swaps:
                    where = _shown(directory, name)
                    raise InvalidArchive(f"{where} is no directory, and would become one") from None
                os.unlink(name, dir_fd=directory.fd)
                os.mkdir(name, 0o700, dir_fd=directory.fd)
                if is_whiteout_device(status):
                    self._hide(directory, name)
        self.pending[path] = entry

    def hide_lower(self, directory: Directory) -> None:
        """Mark an overlay directory opaque."""
        os.setxattr(directory.fd, self._opaque, b"y")
        directory.hidden = True

    def _hide(self, directory: Directory, name: bytes) -> None:
        fd = os.open(name, _OPEN, dir_fd=directory.fd)
        try:
            os.setxattr(fd, self._opaque, b"y")
        finally:
            os.close(fd)

    hide = _hide

    # ---- walking ----

    def _keep(self, names: list[bytes]) -> None:
        """Go up to where `names` part from the present position, which must have been reached without
        symlinks.
        """
        common = 0
        if self._literal:
            for ours, theirs in zip(self._names, names, strict=False):
                if ours != theirs:
                    break
                common += 1
        self._pop_to(common)
        self._literal = True

    def _pop_to(self, depth: int) -> None:
        while len(self._names) > depth:
            os.close(self._stack.pop().fd)
            self._names.pop()

    def _push(self, name: bytes, directory: Directory) -> None:
        self._stack.append(directory)
        self._names.append(name)
        if len(self._names) > self._depth:
            raise LimitExceeded(f"directories nest deeper than {self._depth}")

    def _walk(self, names: list[bytes], path: bytes) -> None:
        self._keep(names)
        todo = names[len(self._names) :]
        todo.reverse()
        links = 0
        while todo:
            name = todo.pop()
            if name == b"..":  # only in the text of links
                self._pop_to(max(0, len(self._names) - 1))
                continue
            found = self._step(self._stack[-1], name)
            if isinstance(found, Directory):
                self._push(name, found)
                continue
            links += 1
            self._literal = False
            if links > MAX_LINKS:
                raise UnsafePath(
                    f"/{path.decode(errors='replace')} leads through more than {MAX_LINKS} symlinks"
                )
            if found.startswith(b"/"):
                self._pop_to(0)
            todo += [part for part in reversed(found.split(b"/")) if part not in (b"", b".")]

    def _open(self, parent: Directory, name: bytes) -> Directory:
        fd = os.open(name, _OPEN, dir_fd=parent.fd)
        hidden = parent.hidden or (self._lower is not None and self._is_opaque(fd))
        return Directory(fd, parent.child(name), hidden)

    def _step(self, parent: Directory, name: bytes) -> Directory | bytes:
        """The directory `name` in `parent`, or the text of the symlink that stands there."""
        try:
            return self._open(parent, name)
        except FileNotFoundError:
            return self._missing(parent, name)
        except NotADirectoryError:
            pass
        status = os.lstat(name, dir_fd=parent.fd)
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=parent.fd)
        if not (self._overlay and is_whiteout_device(status)):
            where = parent.child(name).decode(errors="replace")
            raise InvalidArchive(f"/{where} is a file, but the archive has entries inside it")
        # The layer removes it and puts a new directory in its place.
        self.make(parent, name, _implied(parent.child(name)))
        return self._open(parent, name)

    def _missing(self, parent: Directory, name: bytes) -> Directory | bytes:
        path = parent.child(name)
        below = self._lower.entry(path) if self._lower and not parent.hidden else None
        if below and below.kind is Kind.SYMLINK:
            return below.link
        # A parent no entry tells of: as it was below, or plain (with a fixed time, so that layers can be
        # made again).
        self.make(parent, name, below if below and below.kind is Kind.DIRECTORY else _implied(path))
        return self._open(parent, name)

    def _is_opaque(self, fd: int) -> bool:
        try:
            return os.getxattr(fd, self._opaque) == b"y"
        except OSError:
            return False


def _shown(directory: Directory, name: bytes) -> str:
    return "/" + directory.child(name).decode(errors="replace")


def _implied(path: bytes) -> Entry:
    return Entry(path, Kind.DIRECTORY, 0o755)


def is_whiteout_device(status: os.stat_result) -> bool:
    """Whether overlay reads this as "removed" (kernel: filesystems/overlayfs.rst, whiteouts)."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def empty_directory(parent: int, name: bytes, keep: Callable[[bytes], bool], path: bytes = b"") -> None:
    """Remove everything in directory `name` but the paths that `keep` wants, and what they lie in.

    `path` is the name `keep` knows the directory by.
    """
    fd = os.open(name, _OPEN, dir_fd=parent)
    try:
        with os.scandir(fd) as found:
            children = [(os.fsencode(child.name), child.is_dir(follow_symlinks=False)) for child in found]
        for child, is_directory in children:
            inner = path + b"/" + child if path else child
            if is_directory:
                empty_directory(fd, child, keep, inner)
                if not keep(inner):
                    _remove_if_empty(fd, child)
            elif not keep(inner):
                os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)


def _remove_if_empty(parent: int, name: bytes) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if error.errno not in (39, 17):  # ENOTEMPTY, or EEXIST as some file systems say it
            raise


def _has_default_acl(fd: int) -> bool:
    try:
        return bool(os.getxattr(fd, "system.posix_acl_default"))
    except OSError:
        return False
