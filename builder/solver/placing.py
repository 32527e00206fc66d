"""Where the files of a COPY go: BuildKit's rules, played on a view of the target without touching a disk.

    dest          resolved through every symlink, inside the target; missing parents are made, 0755 a file
    into dest when that is a directory, else it becomes dest; replaces any file or link there a directory
    its contents go into dest; directories that exist take its metadata, dest itself does not mismatches
    a file never replaces a directory nor a directory a file (archives of ADD do both, as tar -x)

Sources are placed one after the other and each sees what those before it made.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import field
from typing import NamedTuple

from builder.contexts.content import Selected
from builder.errors import BuildError, DockerfileError, SandboxError
from builder.graph import Copy, InlineFile, Mkdir
from builder.snapshot.view import View
from builder.solver import modes
from builder.solver.identity import resolve_owner
from builder.solver.selection import Selection, Source
from builder.tree import Node, Tree, clean, join, parent_of, parents_of, resolve
from oci.data import dataclass
from oci.tar import Kind
from oci.whiteout import PREFIX

NOTHING = View(())
"""What `--link` copies onto."""
MADE = -1
"""Origin of a directory that was made for others."""
BELOW = -2
"""Origin of a file whose content lies in the target itself (an archive's hardlink to it)."""

_new_node: Callable[[type[Node], tuple[object, ...]], Node] = tuple.__new__
_NO_NAMES: frozenset[bytes] = frozenset()


class Placed(NamedTuple):
    """What comes to lie at a path: its final metadata, the index of its source and the path in it.

    For a member of an archive `member` is its number there.
    """

    node: Node
    origin: int
    source: bytes = b""
    member: int = -1


@dataclass(frozen=True, slots=True)
class Plan:
    """What a step adds to its target, by path; `opaque` directories hide what the target has there."""

    placed: dict[bytes, Placed]
    sources: tuple[Source, ...] = ()
    target: Tree | None = None
    opaque: frozenset[bytes] = field(default=frozenset())

    @property
    def empty(self) -> bool:
        """Whether nothing changes: the step then has no layer."""
        return not self.placed


def place(op: Copy, selection: Selection, target: Tree) -> Plan:
    """Where everything goes. `target` is what the first input shows; NOTHING for `--link`.

    Raises BuildError when a file and a directory meet, SandboxError for an owner the target does not know.
    """
    owner = resolve_owner(target, op.owner) if op.owner else None
    placing = Placing(target, owner, modes.parse(op.mode) if op.mode else None)
    dest = clean(op.dest)
    if len(selection.sources) > 1 and not op.into_directory:
        _check_several(placing, selection, dest, "ADD" if op.unpack else "COPY")
    for index, source in enumerate(selection.sources):
        if isinstance(source, Selected) and source.unpack:
            from builder.solver.unpacking import place_archive

            if place_archive(placing, source, index, dest):
                continue
        placing.source(source, index, dest, op.into_directory)
    return placing.plan(selection.sources)


def _check_several(placing: Placing, selection: Selection, dest: bytes, name: str) -> None:
    """BuildKit would write one file after the other to the same place, and only the last would be left
    (moby/buildkit#1853). The words are those of Docker's builder before it.
    """
    there = placing.lstat(placing.resolve(dest))
    if there is not None and there.kind is Kind.DIRECTORY:
        return
    if any(_head(source)[0].kind is not Kind.DIRECTORY for source in selection.sources):
        raise DockerfileError(
            f"when using {name} with more than one source file, the destination must be a directory and end "
            f"with a /: /{os.fsdecode(dest)} is neither",
            hint=f"write /{os.fsdecode(dest)}/",
        )


def place_directory(op: Mkdir, target: Tree) -> Plan:
    """WORKDIR: `op.path` and its missing parents, owned by its user (root if the image does not know it)."""
    try:
        owner = resolve_owner(target, op.user) if op.user else None
    except SandboxError:
        owner = None
    placing = Placing(target, owner)
    placing.make_directories(placing.resolve(clean(op.path)))
    return placing.plan(())


class Placing:
    """The target as it will be: `target` with what was placed so far."""

    def __init__(
        self, target: Tree, owner: tuple[int, int] | None = None, change: modes.Change | None = None
    ) -> None:
        self.target = target
        self.owner = owner
        self.placed: dict[bytes, Placed] = {}
        self._change = change
        self._fresh: set[bytes] = set()
        self._removed: set[bytes] = set()
        self._opaque: set[bytes] = set()
        self._names: dict[bytes, frozenset[bytes]] = {}

    def plan(self, sources: tuple[Source, ...]) -> Plan:
        """What came of it."""
        return Plan(self.placed, sources, self.target, frozenset(self._opaque))

    def lstat(self, path: bytes) -> Node | None:
        """What is at `path` now."""
        placed = self.placed.get(path)
        if placed is not None:
            return placed.node
        if self._removed and (
            path in self._removed or any(each in self._removed for each in parents_of(path))
        ):
            return None
        return self.target.lstat(path)

    def resolve(self, path: bytes) -> bytes:
        """`path` without symlinks, as things are now. Raises BuildError for a loop."""
        try:
            return resolve(self.lstat, path)
        except OSError as error:
            raise BuildError(f"/{os.fsdecode(path)} cannot be followed: {error.strerror}") from None

    def make_directories(self, path: bytes, owner: tuple[int, int] | None = None) -> None:
        """Make the resolved `path` and what is missing above it."""
        uid, gid = owner or self.owner or (0, 0)
        for each in (*parents_of(path), path) if path else ():
            node = self.lstat(each)
            if node is None:
                self.put_directory(each, Placed(Node(Kind.DIRECTORY, 0o755, uid, gid), MADE))
            elif node.kind is not Kind.DIRECTORY:
                raise BuildError(
                    f"/{os.fsdecode(each)} is no directory, so /{os.fsdecode(path)} cannot be made",
                    hint="copy to another path, or remove the file in a RUN before",
                )

    def put_directory(self, path: bytes, placed: Placed) -> None:
        """Put a directory where there is none."""
        check_name(path)
        if path in self._removed and self._hides(path):
            self._opaque.add(path)
        self._fresh.add(path)
        self.placed[path] = placed

    def remove(self, path: bytes) -> None:
        """Take away what is at `path`, which something else is about to replace."""
        below = path + b"/"
        for each in [each for each in self.placed if each == path or each.startswith(below)]:
            del self.placed[each]
            self._fresh.discard(each)
            self._opaque.discard(each)
        if self.target.lstat(path) is not None:
            self._removed.add(path)

    def _hides(self, path: bytes) -> bool:
        """Whether the target has a directory at `path`, whose names must not show in the new one."""
        below = self.target.lstat(path)
        return below is not None and below.kind is Kind.DIRECTORY

    def source(self, source: Source, index: int, dest: bytes, into_directory: bool) -> None:
        """Place one source at `dest` (cleaned; `into_directory` when it was written with a slash)."""
        node, name = _head(source)
        self.make_directories(self.resolve(dest if into_directory else parent_of(dest)))
        where = self.resolve(dest)
        there = self.lstat(where)
        directory = node.kind is Kind.DIRECTORY
        if not directory and there is not None and there.kind is Kind.DIRECTORY:
            where = join(where, name)
        self.make_directories(where if directory and there is None else parent_of(where))
        if isinstance(source, Selected) and directory:
            self._check_directory(where)
            if source.itself and where:
                self.placed[where] = Placed(self._adjust(node), index, source.base)
            self._tree(source, index, where)
            return
        self._check_file(where)
        path = source.base if isinstance(source, Selected) else b""
        self.placed[where] = Placed(self._adjust(node), index, path)

    def _tree(self, source: Selected, index: int, where: bytes) -> None:
        """The contents of a directory. The loop runs for every file of a context: it looks up what it must
        only.
        """
        placed, fresh, names_of = self.placed, self._fresh, self._names_in
        plain = self.owner is None and self._change is None
        skip = len(source.base) + 1 if source.base else 0
        prefix = where + b"/" if where else b""
        last: bytes | None = None
        names = _NO_NAMES
        for path, node in source.items[1:]:
            to = prefix + path[skip:]
            parent, _, name = to.rpartition(b"/")
            if parent != last:
                last, names = parent, names_of(parent)
            directory = node[0] is Kind.DIRECTORY
            if name in names or to in placed:
                (self._check_directory if directory else self._check_file)(to)
            elif directory:
                fresh.add(to)
            if name[:4] == PREFIX:
                check_name(to)
            placed[to] = Placed(node if plain else self._adjust(node), index, path)

    def _names_in(self, path: bytes) -> frozenset[bytes]:
        """The names the target itself has in a directory."""
        if path in self._fresh:
            return _NO_NAMES
        if path not in self._names:
            self._names[path] = frozenset(self.target.listdir(path))
        return self._names[path]

    def _check_directory(self, path: bytes) -> None:
        there = self.lstat(path)
        if there is not None and there.kind is not Kind.DIRECTORY:
            raise BuildError(
                f"cannot copy to non-directory /{os.fsdecode(path)}: the source is a directory",
                hint="copy to another path, or remove the file in a RUN before",
            )

    def _check_file(self, path: bytes) -> None:
        check_name(path)
        there = self.lstat(path)
        if there is not None and there.kind is Kind.DIRECTORY:
            raise BuildError(
                f"cannot replace directory /{os.fsdecode(path)} with a file",
                hint="copy to another path, or remove the directory in a RUN before",
            )

    def _adjust(self, node: Node) -> Node:
        """`node` as `--chown` and `--chmod` want it."""
        uid, gid = self.owner or (node.uid, node.gid)
        mode = node.mode
        if self._change is not None and node.kind is not Kind.SYMLINK:
            mode = self._change(mode, node.kind is Kind.DIRECTORY)
        return _new_node(Node, (node[0], mode, uid, gid, *node[4:]))


def check_name(path: bytes) -> None:
    """Raise BuildError for a name that a layer cannot hold, because it would read as a whiteout."""
    if path.rpartition(b"/")[2].startswith(PREFIX):
        raise BuildError(
            f"/{os.fsdecode(path)} cannot be in an image: a name with .wh. in front marks a removed file",
            hint="rename it, or name it in .dockerignore",
        )


def _head(source: Source) -> tuple[Node, bytes]:
    if isinstance(source, InlineFile):
        return Node(Kind.FILE, 0o644, size=len(source.content)), os.fsencode(source.name)
    return source.node, source.name
