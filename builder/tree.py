"""Read-only trees of files: what a build context, a step's result and a named directory have in common.

Paths are bytes relative to the tree's root, `/` between their components, no `.` or `..`; b"" is the root.
Nothing here follows a symlink by itself: `resolve` does, inside the tree, and gives a path that has none.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from oci.rooted import follow
from oci.tar.entry import Kind

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_KEPT = ("user.", "security.capability")
_OWNER = "user.pybuild.owner"
"""A note of ours (`builder.snapshot.noted`), which is told as the file's owner."""
_MARKS, _NESTED = b"user.overlay.", b"user.overlay.overlay."
KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}
"""Kinds of files by the type bits of st_mode; sockets are missing, as no archive can hold them."""

Xattrs = tuple[tuple[bytes, bytes], ...]


class Node(NamedTuple):
    """One file's metadata. `mode` has the twelve permission bits, `size` is in bytes, `link` a symlink's
    text.

    `dev`, `ino` and `ctime_ns` tell whether it is still the same file; they are 0 where the file lies in an
    archive, which has its xattrs here and, where known, the hash of its content (`builder.contexts.hashing`).
    """

    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    rdev: int = 0
    dev: int = 0
    ino: int = 0
    nlink: int = 1
    ctime_ns: int = 0
    xattrs: Xattrs = ()
    content: bytes = b""


Item = tuple[bytes, Node]
Opener = Callable[[bytes], int]


class Tree(Protocol):
    """A tree of files. Errors are OSError, with text for people where the tree has a better one
    (ContextError)."""

    def lstat(self, path: bytes) -> Node | None:
        """The file at `path`, None when there is none. Symlinks on the way are not followed: they hold
        nothing."""

    def listdir(self, path: bytes) -> list[bytes]:
        """The names in the directory `path`, sorted; none when it is no directory."""

    def readlink(self, path: bytes) -> bytes: ...

    def xattrs(self, path: bytes) -> Xattrs:
        """The extended attributes that images keep, sorted by name."""

    def resolve(self, path: bytes) -> bytes:
        """`path` with every symlink in it resolved inside the tree, the last component included (see
        `resolve`)."""

    def walk(self, path: bytes = b"") -> list[Item]:
        """`path` itself and all below it, directories before their contents, names in byte order."""

    def opener(self) -> AbstractContextManager[Opener]:
        """`with tree.opener() as open_file`: open regular files quickly, best in the order of `walk`.

        Not to be shared by threads; each makes its own. The caller closes the descriptors it gets.
        """

    def open(self, path: bytes) -> int:
        """A descriptor of the regular file `path`, which the caller closes."""


def kind_of(mode: int) -> Kind | None:
    """The kind of file that st_mode tells; None for sockets and what else no archive can hold."""
    return KINDS.get(stat.S_IFMT(mode))


def node_of(st: os.stat_result, link: bytes = b"") -> Node | None:
    """`st` as a Node; None for a socket."""
    kind = KINDS.get(st.st_mode & 0o170000)
    if kind is None:
        return None
    size = st.st_size if kind is Kind.FILE else 0
    return Node(
        kind,
        st.st_mode & 0o7777,
        st.st_uid,
        st.st_gid,
        size,
        st.st_mtime_ns,
        link,
        st.st_rdev,
        st.st_dev,
        st.st_ino,
        st.st_nlink,
        st.st_ctime_ns,
    )


def clean(path: str | bytes) -> bytes:
    """`path` as people write it (absolute or not) as a tree's path; `..` is taken away by name and never
    leaves the root."""
    raw = os.fsencode(path) if isinstance(path, str) else path
    parts: list[bytes] = []
    for part in raw.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def parent_of(path: bytes) -> bytes:
    """The directory that holds `path`; the root is its own."""
    return path.rpartition(b"/")[0]


def parents_of(path: bytes) -> Iterable[bytes]:
    """The directories above `path`, the root's child first; the root itself is left out."""
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)


def join(directory: bytes, name: bytes) -> bytes:
    """`name` in `directory`."""
    return directory + b"/" + name if directory else name


def order(path: bytes) -> bytes:
    """A sort key that puts directories before their contents and these before every later sibling."""
    return path.replace(b"/", b"\0")


def resolve(lookup: Callable[[bytes], Node | None], path: bytes) -> bytes:
    """`path` without symlinks, inside the tree that `lookup` shows: absolute links start at the root, `..`
    stops there.

    What does not exist stays as it is written. Raises OSError (ELOOP) for too many links.
    """

    def link_at(path: bytes) -> bytes | None:
        node = lookup(path)
        return node.link if node is not None and node.kind is Kind.SYMLINK else None

    return follow(path, link_at)


def read_xattrs(path: bytes | int, *, of_context: bool = False, userxattr: bool = False) -> Xattrs:
    """The extended attributes that belong into an image, sorted: `user.*` and file capabilities.

    Those of SELinux, access control lists and the kernel's own bookkeeping are the machine's, not the file's.
    `of_context` leaves capabilities out too: as with Docker, a file of a context brings no privilege along.
    `userxattr` says that the file lies in a layer whose own marks are `user.overlay.NAME`: these are left
    out, and what a step set by such a name, which overlay keeps one level deeper, has its name again.
    """
    follow = isinstance(path, int)
    try:
        names = os.listxattr(path, follow_symlinks=follow)
    except OSError:
        return ()
    if not names:
        return ()
    wanted = _KEPT[:1] if of_context else _KEPT
    kept = sorted(os.fsencode(name) for name in names if name.startswith(wanted) and name != _OWNER)
    found = ((name, os.getxattr(path, name, follow_symlinks=follow)) for name in kept)
    if userxattr and any(name.startswith(_MARKS) for name in kept):
        return tuple(sorted((_unnested(name), value) for name, value in found if _is_kept(name)))
    return tuple(found)


def _is_kept(name: bytes) -> bool:
    return not name.startswith(_MARKS) or name.startswith(_NESTED)


def _unnested(name: bytes) -> bytes:
    return _MARKS + name[len(_NESTED) :] if name.startswith(_NESTED) else name


class DirectoryOpener:
    """Opens files below one directory, component by component, following no link.

    It keeps the descriptors of the last file's directories: files in the order of a walk cost one open each.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._parts: list[bytes] = []
        self._fds: list[int] = []
        self._path = b""
        self._here = root

    def __call__(self, path: bytes) -> int:
        parent, _, name = path.rpartition(b"/")
        fd = self._here if parent == self._path else self.directory(parent)
        return os.open(name, _FILE, dir_fd=fd)

    def directory(self, path: bytes) -> int:
        """The descriptor of the directory `path`; it stays ours."""
        parts = path.split(b"/") if path else []
        same = 0
        while same < len(parts) and same < len(self._parts) and parts[same] == self._parts[same]:
            same += 1
        self._drop(same)
        for part in parts[same:]:
            above = self._fds[-1] if self._fds else self._root
            self._fds.append(os.open(part, _DIRECTORY, dir_fd=above))
            self._parts.append(part)
        self._path = path
        self._here = self._fds[-1] if self._fds else self._root
        return self._here

    def close(self) -> None:
        """Close the directories."""
        self._drop(0)

    def _drop(self, keep: int) -> None:
        while len(self._fds) > keep:
            os.close(self._fds.pop())
            self._parts.pop()
        self._path = b"/".join(self._parts)
        self._here = self._fds[-1] if self._fds else self._root
