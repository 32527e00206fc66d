"""What lies in the directories of a context, as lstat tells it: a directory at a time, column by column.

A context of many files is listed in every build, also in one that does nothing else. So what was found stays
packed: a checksum over columns costs next to nothing, a process of its own can list and hand over the bytes
(`builder.contexts.ahead`), and Nodes are only made of them when a file is really looked at.
"""

from __future__ import annotations

import hashlib
import os
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from operator import attrgetter
from typing import Any, TypeAlias

from builder.errors import ContextError
from builder.patterns import IgnoreFile, State
from builder.tree import KINDS, DirectoryOpener, Node, join
from oci.tar.entry import Kind

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 400
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_FILE, _SYMLINK, _SUBDIRECTORY = int(Kind.FILE), int(Kind.SYMLINK), int(Kind.DIRECTORY)
_TYPES = {bits: int(kind) for bits, kind in KINDS.items()}
_KINDS = {int(kind): kind for kind in Kind}
_COLUMNS: tuple[tuple[str, Callable[[os.stat_result], int]], ...] = (
    ("q", attrgetter("st_mtime_ns")),
    ("q", attrgetter("st_ctime_ns")),
    ("Q", attrgetter("st_dev")),
    ("Q", attrgetter("st_ino")),
    ("Q", attrgetter("st_nlink")),
    ("Q", attrgetter("st_rdev")),
)
_IN_STAMP = 7
"""Columns that tell whether a file is still the same: the link count is no part of what it is."""

Packed: TypeAlias = "tuple[bytes, tuple[bytes, ...], dict[bytes, bytes], bytes]"
_made: Callable[[tuple[object, ...]], Node] = partial(tuple.__new__, Node)


class Listing:
    """One directory, its names in byte order. `links` has the text of each symlink, `stamp` (32 bytes)
    differs when a name was added or a file may have changed.
    """

    __slots__ = ("_names", "_nodes", "columns", "links", "raw_names", "stamp")

    def __init__(
        self, raw_names: bytes, columns: tuple[bytes, ...], links: dict[bytes, bytes], stamp: bytes = b""
    ) -> None:
        self.raw_names = raw_names
        self.columns = columns
        self.links = links
        self.stamp = stamp or _digest((raw_names, *columns[:_IN_STAMP]))
        self._names: list[bytes] | None = None
        self._nodes: dict[bytes, Node] | None = None

    @classmethod
    def of(cls, rows: list[tuple[bytes, os.stat_result]], links: dict[bytes, bytes]) -> Listing:
        """The listing of these names. Sorts `rows`."""
        rows.sort()
        stats = [st for _, st in rows]
        modes = [st.st_mode for st in stats]
        kinds = bytes([_TYPES[mode & 0o170000] for mode in modes])
        sizes = [st.st_size if kind == _FILE else 0 for st, kind in zip(stats, kinds, strict=True)]
        columns = [
            kinds,
            array("H", [mode & 0o7777 for mode in modes]).tobytes(),
            array("Q", sizes).tobytes(),
        ]
        columns += [array(code, map(column, stats)).tobytes() for code, column in _COLUMNS]
        return cls(b"\0".join([name for name, _ in rows]), tuple(columns), links)

    def __len__(self) -> int:
        return len(self.columns[0])

    @property
    def packed(self) -> Packed:
        """All of it, for another process."""
        return self.raw_names, self.columns, self.links, self.stamp

    @property
    def names(self) -> list[bytes]:
        if self._names is None:
            self._names = self.raw_names.split(b"\0") if self.columns[0] else []
        return self._names

    @property
    def subdirectories(self) -> Iterator[bytes]:
        """The names that are directories."""
        at = self.columns[0].find(_SUBDIRECTORY)
        while at >= 0:
            yield self.names[at]
            at = self.columns[0].find(_SUBDIRECTORY, at + 1)

    @property
    def nodes(self) -> dict[bytes, Node]:
        """A Node for each name. Files of a context belong to 0:0, whoever owns them here."""
        if self._nodes is None:
            kinds, modes = self.columns[0], array("H", self.columns[1])
            sizes, *rest = (array("Q", self.columns[2]), *self._unpacked())
            mtimes, ctimes, devs, inos, nlinks, rdevs = rest
            links: Any = [self.links.get(name, b"") for name in self.names] if self.links else repeat(b"")
            none = repeat(0)
            rows = zip(
                map(_KINDS.__getitem__, kinds), modes, none, none, sizes, mtimes, links, rdevs, devs, inos,
                nlinks, ctimes, repeat(()), repeat(b""),
            )  # fmt: skip
            self._nodes = dict(zip(self.names, map(_made, rows), strict=True))
        return self._nodes

    def _unpacked(self) -> list[array[int]]:
        return [array(code, column) for (code, _), column in zip(_COLUMNS, self.columns[3:], strict=True)]


def _digest(parts: tuple[bytes, ...]) -> bytes:
    return hashlib.sha256(b"".join([each for part in parts for each in (b"%d:" % len(part), part)])).digest()


class Lister:
    """Lists the directories below the descriptor `root`; `listings` has those listed so far.

    Every name is opened below the descriptor of its parent, with O_NOFOLLOW. What the ignore file leaves out
    is neither opened nor listed.
    """

    def __init__(self, root: int, shown: str, ignore: IgnoreFile | None) -> None:
        self.listings: dict[bytes, Listing] = {}
        self._root = root
        self._root_shown = shown
        self._ignore = ignore
        self._states: dict[bytes, State] = {b"": ignore.enter()} if ignore else {}
        self._whole: set[bytes] = set()

    def one(self, path: bytes, fd: int) -> Listing:
        """The directory `path`, which is open as `fd`."""
        rows: list[tuple[bytes, os.stat_result]] = []
        links: dict[bytes, bytes] = {}
        filtered = path in self._states
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    raw = entry.name.encode(_ENCODING, _ERRORS)
                    if filtered and not self._wanted(path, fd, raw, entry):
                        continue
                    st = entry.stat(follow_symlinks=False)
                    kind = _TYPES.get(st.st_mode & 0o170000)
                    if kind is None:
                        continue
                    if kind == _SYMLINK:
                        links[raw] = os.fsencode(os.readlink(raw, dir_fd=fd))
                    rows.append((raw, st))
        except OSError as error:
            raise unreadable_directory(self.shown(path), error) from None
        found = self.listings[path] = Listing.of(rows, links)
        return found

    def whole(self, path: bytes, fd: int, depth: int = 0) -> None:
        """The directory `path`, open as `fd`, and all below it; `depth` is how deep it lies."""
        if path in self._whole:
            return
        self._refuse_too_deep(path, depth)
        listing = self.listings.get(path) or self.one(path, fd)
        for name in listing.subdirectories:
            child = join(path, name)
            with opened(name, fd, self.shown(child)) as sub:
                self.whole(child, sub, depth + 1)
        self._whole.add(path)

    def first(self, enough: int) -> list[bytes]:
        """List from the root on, breadth first, until `enough` directories wait for it (or none); which ones.
        Those nearer to the root come first.
        """
        waiting = deque([b""])
        while waiting and len(waiting) < enough:
            path = waiting.popleft()
            self._refuse_too_deep(path, path.count(b"/") + 1)
            with self.directory(path) as fd:
                listing = self.one(path, fd)
            waiting.extend(join(path, name) for name in listing.subdirectories)
        return list(waiting)

    def below_that(self, path: bytes) -> None:
        """`whole` of a directory above which all is listed, by this or by another Lister."""
        if self._ignore is not None and path not in self._states:
            state = self._states[b""]
            for name in path.split(b"/"):
                _, inner = self._ignore.step(state, name, True)
                assert inner is not None, "nothing is looked for below what is left out as a whole"
                state = inner
            self._states[path] = state
        with self.directory(path) as fd:
            self.whole(path, fd, path.count(b"/") + 1)

    @contextmanager
    def directory(self, path: bytes) -> Iterator[int]:
        """A descriptor of the directory `path` for the block. Raises ContextError."""
        # Listing moves a descriptor's position: threads that list the root at once need one each.
        root = os.open(b".", DIRECTORY, dir_fd=self._root)
        files = DirectoryOpener(root)
        try:
            yield files.directory(path)
        except OSError as error:
            raise unreadable_directory(self.shown(path), error) from None
        finally:
            files.close()
            os.close(root)

    def adopt(self, found: dict[bytes, Listing]) -> None:
        """Take over the listings of the whole context that somebody else made. What is known stays."""
        self.listings = {**found, **self.listings}
        self._whole.add(b"")

    def is_whole(self, path: bytes) -> bool:
        """Whether everything below `path` is listed."""
        return path in self._whole or b"" in self._whole

    def below(self, path: bytes) -> list[bytes]:
        """The directories listed at `path` and below it, in byte order."""
        prefix = path + b"/" if path else b""
        return sorted(each for each in self.listings if each == path or each.startswith(prefix))

    def shown(self, path: bytes) -> str:
        """`path` for people."""
        return os.fsdecode(path) or self._root_shown

    def _refuse_too_deep(self, path: bytes, depth: int) -> None:
        if depth > _DEEPEST:
            raise ContextError(f"{self.shown(path)} lies deeper than {_DEEPEST} directories")

    def _wanted(self, path: bytes, fd: int, name: bytes, entry: os.DirEntry[str]) -> bool:
        """Whether an entry is part of the context; a directory also when something below it is."""
        assert self._ignore is not None
        directory = entry.is_dir(follow_symlinks=False)
        left_out, inner = self._ignore.step(self._states[path], name, directory)
        if not directory:
            return not left_out
        child = join(path, name)
        if inner is not None:
            self._states[child] = inner
        if not left_out:
            return True
        if inner is None:
            return False
        with opened(name, fd, self.shown(child)) as sub:
            return len(self.one(child, sub)) > 0


@contextmanager
def opened(name: bytes, above: int, shown: str) -> Iterator[int]:
    """The directory `name` below the descriptor `above`. Raises ContextError."""
    try:
        fd = os.open(name, DIRECTORY, dir_fd=above)
    except OSError as error:
        raise unreadable_directory(shown, error) from None
    try:
        yield fd
    finally:
        os.close(fd)


def unreadable_directory(shown: str, error: OSError) -> ContextError:
    """The error for a directory of a context that cannot be listed."""
    if isinstance(error, PermissionError):
        return ContextError(
            f"{shown} of the context cannot be listed: permission denied",
            hint="make it readable, or name it in .dockerignore",
        )
    return ContextError(f"{shown} of the context changed during the build: {error.strerror}")
