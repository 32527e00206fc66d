"""Writing what a COPY, ADD or WORKDIR placed into a layer: each file is opened once, read once, and checked
once more.

    selection = select(op, tree_of)                    what is read
    plan = place(op, selection, view)                  where it goes
    written = write(plan, TarWriter(sink), now=...)    the layer, and the digest of every file read

Entries are sorted, directories before their contents; the files of an unpacked archive follow in its own
order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256

from builder.contexts.content import (
    Digests,
    Selected,
    changed,
    check_unchanged,
    file_digest,
    hash_file,
    read_small,
    unreadable,
)
from builder.contexts.hashing import SMALL, hasher
from builder.graph import InlineFile
from builder.snapshot.times import settle
from builder.snapshot.view import IndexLayer
from builder.solver.placing import BELOW, MADE, Placed, Plan, place, place_directory
from builder.solver.selection import Selection, Source, select
from builder.solver.unpacking import opened
from builder.tree import Node, Opener, Xattrs, join, order, read_xattrs
from oci.data import dataclass
from oci.tar import ChangedWhileReading, Entry, Kind, TarReader, TarWriter
from oci.whiteout import OPAQUE

__all__ = ["Plan", "Selection", "Written", "place", "place_directory", "select", "write"]

_FILE = Kind.FILE  # a look-up less for each of many files
_NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Written:
    """A layer that was written. `digests` has, for each of `selection.selected`, what `Content.learn`
    wants.
    """

    plan: Plan
    digests: list[Digests]
    xattrs: dict[bytes, Xattrs]
    mtimes: Callable[[Placed], int]

    def layer(self, fetch: Opener) -> IndexLayer:
        """The layer for a View; `fetch(path)` opens a file of it."""
        return IndexLayer(dict(self._nodes()), fetch, self.plan.opaque)

    def _nodes(self) -> Iterator[tuple[bytes, Node]]:
        digests = iter(self.digests)
        known = [next(digests) if isinstance(source, Selected) else {} for source in self.plan.sources]
        for path, (node, origin, source, member) in self.plan.placed.items():
            xattrs = self.xattrs.get(path, node.xattrs)
            plain = origin >= 0 and member < 0 and not xattrs
            content = known[origin].get(source, b"") if plain else b""
            mtime = self.mtimes(self.plan.placed[path]) * _NANO
            yield path, Node(*node[:5], mtime, node.link, node.rdev, xattrs=xattrs, content=content)


def write(plan: Plan, tar: TarWriter, *, now: int, clock: int | None = None) -> Written:
    """Write the entries of `plan`; the caller finishes `tar`.

    `now` (seconds since 1970) is the mtime of made directories and inline files. With `clock` no time is
    later, and those of context files are the clock. Raises ContextError when a file cannot be read or
    changed during the build.
    """
    writing = _Writing(plan, tar, now, clock)
    with writing.exit:
        writing.run()
        return Written(plan, writing.finish(), writing.xattrs, writing.mtime)


@dataclass(frozen=True, slots=True)
class _Reading:
    """What is the same for all files of one tree. `mtime` is their time, where they have one in common."""

    open_file: Opener
    of_context: bool
    mtime: int | None
    digests: Digests


class _Writing:
    def __init__(self, plan: Plan, tar: TarWriter, now: int, clock: int | None) -> None:
        self.exit = ExitStack()
        self.xattrs: dict[bytes, Xattrs] = {}
        self._plan = plan
        self._tar = tar
        self._now = now if clock is None else clock
        self._clock = clock
        self._digests: list[Digests] = [{} for _ in plan.sources]
        self._readings: dict[int, _Reading] = {}
        self._links: dict[tuple[int, int, int], bytes] = {}
        self._members: dict[int, dict[int, list[bytes]]] = {}
        self._times = self._fixed_times()

    def run(self) -> None:
        """All entries, in order."""
        self._begin()
        rows = self._plan.placed
        for opaque in self._plan.opaque:
            rows = {**rows, join(opaque, OPAQUE): Placed(Node(Kind.FILE, 0o644), MADE)}
        for path in sorted(rows, key=order):
            placed = rows[path]
            if placed.node[0] is not _FILE:
                self._tar.add(self._entry(path, placed))
            elif placed.member >= 0:
                self._members.setdefault(placed.origin, {}).setdefault(placed.member, []).append(path)
            else:
                self._file(path, placed)
        for origin, members in self._members.items():
            self._archive(self._selected(origin), members)

    def finish(self) -> list[Digests]:
        """The digests of every selected file, also of those that another one replaced."""
        found = []
        for origin, source in enumerate(self._plan.sources):
            if isinstance(source, Selected):
                digests = self._digests[origin]
                for path, node in source.items:
                    if node[0] is Kind.FILE and path not in digests:
                        digests[path] = self._missing(origin, path, node)
                found.append(digests)
        return found

    def _missing(self, origin: int, path: bytes, node: Node) -> bytes:
        first = self._links.get((origin, node.dev, node.ino)) if node.nlink > 1 and node.ino else None
        if first is not None:
            return self._digests[origin][self._plan.placed[first].source]
        reading = self._readings[origin]
        return hash_file(reading.open_file, path, node, reading.of_context)

    def mtime(self, placed: Placed) -> int:
        """The time of an entry, in seconds."""
        if (fixed := self._times.get(placed.origin)) is not None and placed.member < 0:
            return fixed
        return settle(placed.node.mtime_ns // _NANO, self._clock)

    def _fixed_times(self) -> dict[int, int]:
        """The time that all entries of an origin have, where they have one."""
        times = {MADE: self._now}
        for origin, source in enumerate(self._plan.sources):
            if isinstance(source, InlineFile):
                times[origin] = self._now
            elif source.fixed and self._clock is not None:
                times[origin] = self._clock
        return times

    def _entry(self, path: bytes, placed: Placed) -> Entry:
        node = placed.node
        major, minor = (os.major(node.rdev), os.minor(node.rdev)) if node.rdev else (0, 0)
        xattrs = node.xattrs
        if node.kind is Kind.DIRECTORY and placed.origin >= 0 and placed.member < 0:
            xattrs = self._selected(placed.origin).tree.xattrs(placed.source)
            if xattrs:
                self.xattrs[path] = xattrs
        return Entry(
            path,
            node.kind,
            node.mode,
            node.uid,
            node.gid,
            0,
            self.mtime(placed),
            node.link,
            major,
            minor,
            xattrs,
        )

    def _file(self, path: bytes, placed: Placed) -> None:
        """One regular file. Runs for every file of a context: it looks up what it must only."""
        node, origin, source, _ = placed
        reading = self._readings.get(origin)
        if reading is None:
            self._unread(path, placed)
        elif node.nlink > 1 and node.ino and self._first(path, placed) != path:
            self._tar.add(_hardlink(path, self._first(path, placed), placed, self.mtime(placed)))
        elif node.size > SMALL:
            reading.digests[source] = self._large(path, placed, reading)
        else:
            reading.digests[source] = self._small(path, placed, reading)

    def _unread(self, path: bytes, placed: Placed) -> None:
        """A file that lies in no tree: written in the Dockerfile, or an opaque directory's mark."""
        node, origin, _, _ = placed
        inline = self._plan.sources[origin] if origin >= 0 else None
        content = inline.content if isinstance(inline, InlineFile) else b""
        self._tar.add_file(path, node.mode, node.uid, node.gid, self.mtime(placed), content)

    def _first(self, path: bytes, placed: Placed) -> bytes:
        """The first name in the layer of the file that `path` is a name of."""
        node = placed.node
        return self._links.setdefault((placed.origin, node.dev, node.ino), path)

    def _small(self, path: bytes, placed: Placed, reading: _Reading) -> bytes:
        """A file read at once. Its digest."""
        node = placed.node
        content, xattrs = read_small(reading.open_file, placed.source, node, reading.of_context)
        mtime = reading.mtime
        if mtime is None:
            mtime = settle(node.mtime_ns // _NANO, self._clock)
        digest = sha256(content).digest()
        if not xattrs:
            self._tar.add_file(path, node.mode, node.uid, node.gid, mtime, content)
            return digest
        self.xattrs[path] = xattrs
        self._tar.add(
            Entry(path, _FILE, node.mode, node.uid, node.gid, node.size, mtime, xattrs=xattrs), content
        )
        return file_digest(digest, xattrs)

    def _large(self, path: bytes, placed: Placed, reading: _Reading) -> bytes:
        """A file read in pieces on its way into the archive. Its digest."""
        node = placed.node
        hashed = hasher(node.size)
        try:
            fd = reading.open_file(placed.source)
        except OSError as error:
            raise unreadable(placed.source, error) from None

        def read(size: int) -> bytes:
            chunk = os.read(fd, size)
            hashed.update(chunk)
            return chunk

        try:
            xattrs = read_xattrs(fd, of_context=reading.of_context) if node.ino else node.xattrs
            if xattrs:
                self.xattrs[path] = xattrs
            mtime = self.mtime(placed)
            entry = Entry(path, Kind.FILE, node.mode, node.uid, node.gid, node.size, mtime, xattrs=xattrs)
            self._tar.add_stream(entry, read)
            check_unchanged(fd, placed.source, node)
        except ChangedWhileReading:
            raise changed(placed.source) from None
        finally:
            os.close(fd)
        return file_digest(hashed.digest(), xattrs)

    def _archive(self, source: Selected, members: dict[int, list[bytes]]) -> None:
        """The files of an unpacked archive, in its order, each under its first name and linked from the
        others.
        """
        with opened(source) as reader:
            for number, entry in enumerate(reader):
                names = members.get(number)
                if names is None:
                    continue
                self._member(reader, entry, names)

    def _member(self, reader: TarReader, entry: Entry, names: list[bytes]) -> None:
        placed = self._plan.placed[names[0]]
        node = placed.node
        self._tar.add_stream(
            Entry(
                names[0],
                Kind.FILE,
                node.mode,
                node.uid,
                node.gid,
                entry.size,
                self.mtime(placed),
                xattrs=node.xattrs,
            ),
            reader.read,
        )
        for name in names[1:]:
            self._tar.add(_hardlink(name, names[0], placed, self.mtime(placed)))

    def _selected(self, origin: int) -> Selected:
        source: Source = self._plan.sources[origin]
        assert isinstance(source, Selected)
        return source

    def _begin(self) -> None:
        """Make ready to read from every tree."""
        for origin, source in enumerate(self._plan.sources):
            if isinstance(source, Selected):
                self._readings[origin] = _Reading(
                    self.exit.enter_context(source.tree.opener()),
                    source.fixed,
                    self._times.get(origin),
                    self._digests[origin],
                )
        if self._plan.target is not None:
            opener = self.exit.enter_context(self._plan.target.opener())
            self._readings[BELOW] = _Reading(opener, False, None, {})


def _hardlink(path: bytes, to: bytes, placed: Placed, mtime: int) -> Entry:
    node = placed.node
    return Entry(path, Kind.HARDLINK, node.mode, node.uid, node.gid, 0, mtime, to)
