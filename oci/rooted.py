"""Names resolved inside a directory, as a process chrooted there would see them, whatever its symlinks say.

Absolute links start again at the root, `..` stops there, forty links are too many (path_resolution(7)).
Each component is opened by the descriptor of the one before and never followed by the kernel, so that a
tree that changes meanwhile can give a wrong answer but never one outside. Measured as fast as openat2(2)
with RESOLVE_IN_ROOT, which older kernels and some containers refuse.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple

MAX_LINKS = 40
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place(NamedTuple):
    """Where a path leads: base name `name` in the directory `fd`; both together are `path` from the root.

    `name` is b"." for the root itself.
    """

    fd: int
    name: bytes
    path: bytes


class Root:
    """A directory to resolve names in. `Root.at(path)` owns its descriptor and is used in `with`;
    `Root(fd)` borrows.

    Every method raises OSError as the call of its name does: FileNotFoundError, NotADirectoryError, ELOOP.
    """

    __slots__ = ("_owned", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._owned = False

    @classmethod
    def at(cls, path: str | bytes) -> Root:
        """The directory `path` of the host."""
        root = cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        root._owned = True
        return root

    def close(self) -> None:
        if self._owned:
            os.close(self.fd)
            self._owned = False

    def __enter__(self) -> Root:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def place(self, path: bytes, *, follow_last: bool = True) -> Iterator[Place]:
        """The parent directory and base name `path` resolves to. The last component need not exist.

        With `follow_last`, a symlink there is resolved too, so `name` is none (unless it changes meanwhile:
        open it with O_NOFOLLOW).
        """
        walk = _Walk(self.fd)
        try:
            yield walk.to(path, follow_last)
        finally:
            walk.close()

    def resolve(self, path: bytes, *, follow_last: bool = True, missing_ok: bool = False) -> bytes:
        """`path` without links, relative to the root; b"" is the root.

        With `missing_ok`, what follows the first missing component is kept as it is written.
        """
        walk = _Walk(self.fd)
        try:
            place = walk.to(path, follow_last)
            os.stat(place.name, dir_fd=place.fd, follow_symlinks=False)
        except FileNotFoundError:
            if not missing_ok:
                raise
            return walk.rest()
        finally:
            walk.close()
        return place.path

    def open(
        self, path: bytes, flags: int = os.O_RDONLY, mode: int = 0o666, *, follow_last: bool = True
    ) -> int:
        """A descriptor of `path`, close-on-exec. Of a symlink only with `follow_last=False` and O_PATH."""
        with self.place(path, follow_last=follow_last) as place:
            return os.open(place.name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=place.fd)

    def stat(self, path: bytes) -> os.stat_result:
        """What `path` leads to."""
        with self.place(path) as place:
            return os.stat(place.name, dir_fd=place.fd, follow_symlinks=False)

    def lstat(self, path: bytes) -> os.stat_result:
        """`path` itself, which may be a symlink."""
        with self.place(path, follow_last=False) as place:
            return os.stat(place.name, dir_fd=place.fd, follow_symlinks=False)

    def readlink(self, path: bytes) -> bytes:
        """The text of the symlink `path`."""
        with self.place(path, follow_last=False) as place:
            return os.readlink(place.name, dir_fd=place.fd)

    def listdir(self, path: bytes = b"") -> list[bytes]:
        """The names in directory `path`, sorted."""
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return sorted(os.fsencode(name) for name in os.listdir(fd))
        finally:
            os.close(fd)

    def mkdir(self, path: bytes, mode: int = 0o777) -> None:
        """Make one directory; the umask applies."""
        with self.place(path, follow_last=False) as place:
            os.mkdir(place.name, mode, dir_fd=place.fd)

    def makedirs(self, path: bytes, mode: int = 0o777) -> bytes:
        """Make `path` and what is missing above it. Gives its resolved name."""
        resolved = self.resolve(path, missing_ok=True)
        parts = resolved.split(b"/")
        for end in range(1, len(parts) + 1 if resolved else 1):
            try:
                self.mkdir(b"/".join(parts[:end]), mode)
            except FileExistsError:
                pass
        self.open_directory(resolved, close=True)
        return resolved

    def open_directory(self, path: bytes, *, close: bool = False) -> int:
        """A descriptor of directory `path`, usable as `dir_fd`; with `close`, only the check that it is
        one.
        """
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        if close:
            os.close(fd)
        return fd


class _Walk:
    """One resolution: the descriptors from the root to where it stands, and the components still to go."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._fds: list[int] = []
        self._names: list[bytes] = []
        self._todo: list[bytes] = []
        self._links = 0

    def to(self, path: bytes, follow_last: bool) -> Place:
        self._push(path)
        while self._todo:
            name = self._todo.pop()
            if name == b"..":
                self._up()
            elif self._todo:
                self._into(name)
            elif not (follow_last and self._follows(name)):
                return self._place(name)
        if not self._names:
            return Place(self._root, b".", b"")
        # The path ended in `..`, or in a link that did: a directory known by its descriptor.
        return Place(self._fds[-1], b".", b"/".join(self._names))

    def rest(self) -> bytes:
        """The path so far with what is left of it, `..` taken by its letter."""
        for name in reversed(self._todo):
            if name == b"..":
                del self._names[-1:]
            else:
                self._names.append(name)
        return b"/".join(self._names)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def _push(self, path: bytes) -> None:
        self._todo += [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]

    def _place(self, name: bytes) -> Place:
        self._todo.append(name)  # for `rest`, when it turns out to be missing
        return Place(self._fds[-1] if self._fds else self._root, name, b"/".join([*self._names, name]))

    def _up(self) -> None:
        if self._fds:
            os.close(self._fds.pop())
            self._names.pop()

    def _into(self, name: bytes) -> None:
        top = self._fds[-1] if self._fds else self._root
        try:
            self._fds.append(os.open(name, _DIRECTORY, dir_fd=top))
            self._names.append(name)
        except FileNotFoundError:
            self._todo.append(name)
            raise
        except NotADirectoryError:
            if not self._follows(name):
                raise

    def _follows(self, name: bytes) -> bool:
        """Whether `name` here is a symlink; its target is then what comes next."""
        try:
            target = os.readlink(name, dir_fd=self._fds[-1] if self._fds else self._root)
        except OSError:
            return False
        self._links += 1
        if self._links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        if target.startswith(b"/"):
            self.close()
            self._names.clear()
        self._push(target)
        return True


def follow(path: bytes, readlink: Callable[[bytes], bytes | None], *, follow_last: bool = True) -> bytes:
    """The same resolution over any tree, a stack of layers say.

    `readlink(path)` gives the text of the symlink at a path that is already resolved, None for anything
    else. Raises OSError (ELOOP) after forty links.
    """
    done: list[bytes] = []
    todo = [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]
    links = 0
    while todo:
        name = todo.pop()
        if name == b"..":
            del done[-1:]
            continue
        done.append(name)
        target = readlink(b"/".join(done)) if todo or follow_last else None
        if target is None:
            continue
        links += 1
        if links > MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        del done[0 if target.startswith(b"/") else -1 :]
        todo += [part for part in reversed(target.split(b"/")) if part not in (b"", b".")]
    return b"/".join(done)
