"""What a chain of layers shows, without mounting anything: lookups go from the top layer down.

A layer is a directory in overlay's format (whiteouts are character devices 0:0, opaque directories carry an
xattr) or an index in memory. COPY finds its destination here, `--chown` its passwd, `COPY --from` its
files, exporters all of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

from builder.snapshot.noted import notes_of
from builder.tree import (
    DirectoryOpener,
    Item,
    Node,
    Opener,
    Xattrs,
    join,
    node_of,
    parent_of,
    parents_of,
    read_xattrs,
    resolve,
)
from oci.tar import Entry, Kind
from oci.whiteout import OPAQUE, is_bookkeeping, is_whiteout, target

WHITEOUT = Node(Kind.CHAR, 0)
"""How a layer says that a name of the layers below is gone: overlay's own form, a character device 0:0."""

_FOUND_KEPT = 4096
_PLAIN_DIRECTORY = Node(Kind.DIRECTORY, 0o755)


class Layer(Protocol):
    """One layer. `find` and `children` show whiteouts as such; paths given have directories above them."""

    def find(self, path: bytes) -> Node | None: ...
    def children(self, path: bytes) -> Mapping[bytes, Node | None]:
        """Names in a directory; None is a directory that the layer only implies (its metadata lies below)."""

    def implies(self, path: bytes) -> bool: ...
    def opaque(self, path: bytes) -> bool: ...
    def xattrs(self, path: bytes) -> Xattrs: ...
    def opener(self) -> tuple[Opener, Callable[[], None]]:
        """A function that opens this layer's files, and one to call at the end."""


class DirectoryLayer:
    """A layer that lies unpacked in the host directory `path`, which nobody changes meanwhile."""

    def __init__(self, path: str, *, userxattr: bool = False) -> None:
        self.path = path
        self._root = os.fsencode(path)
        self._userxattr = userxattr
        self._found: dict[bytes, Node | None] = {}
        self._notes = notes_of(path)

    def find(self, path: bytes) -> Node | None:
        """Looked up once: every step of a stage asks every layer below it for the same few files."""
        if path in self._found:
            return self._found[path]
        node = self._find(path)
        if len(self._found) < _FOUND_KEPT:
            self._found[path] = node
        return node

    def _find(self, path: bytes) -> Node | None:
        full = join(self._root, path) if path else self._root
        try:
            st = os.lstat(full)
            node = node_of(st, os.readlink(full) if st.st_mode & 0o170000 == 0o120000 else b"")
            return self._owned(full, st, node) if node is not None else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def children(self, path: bytes) -> dict[bytes, Node | None]:
        full = join(self._root, path) if path else self._root
        found: dict[bytes, Node | None] = {}
        with os.scandir(full) as entries:
            for entry in entries:
                link = os.readlink(entry.path) if entry.is_symlink() else b""
                st = entry.stat(follow_symlinks=False)
                node = node_of(st, link)
                if node is not None:
                    found[entry.name] = self._owned(entry.path, st, node)
        return found

    def _owned(self, full: bytes, st: os.stat_result, node: Node) -> Node:
        """`node` with the owner that is noted for it, where this layer has notes."""
        if self._notes is None:
            return node
        owned = self._notes.owned(full, st)
        return node._replace(
            uid=owned.uid, gid=owned.gid, kind=owned.kind or node.kind, rdev=owned.rdev or node.rdev
        )

    def implies(self, path: bytes) -> bool:
        return False

    def opaque(self, path: bytes) -> bool:
        return is_opaque(join(self._root, path) if path else self._root, self._userxattr)

    def xattrs(self, path: bytes) -> Xattrs:
        full = join(self._root, path) if path else self._root
        return read_xattrs(full, userxattr=self._userxattr)

    def opener(self) -> tuple[Opener, Callable[[], None]]:
        root = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        files = DirectoryOpener(root)

        def close() -> None:
            files.close()
            os.close(root)

        return files, close


class IndexLayer:
    """A layer known by its entries: a COPY's that was just written, or a blob's whose headers were read.

    `entries` has whiteouts as WHITEOUT; `fetch(path)` opens a file's content when somebody wants it.
    """

    def __init__(
        self,
        entries: Mapping[bytes, Node],
        fetch: Opener,
        opaques: Iterable[bytes] = (),
    ) -> None:
        self.entries = entries
        self._fetch = fetch
        self._opaques = frozenset(opaques)
        self._children: dict[bytes, list[bytes]] | None = None
        self._implied: set[bytes] = set()

    def find(self, path: bytes) -> Node | None:
        return self.entries.get(path)

    def children(self, path: bytes) -> dict[bytes, Node | None]:
        return {name: self.entries.get(join(path, name)) for name in self._tree().get(path, ())}

    def implies(self, path: bytes) -> bool:
        self._tree()
        return path in self._implied

    def opaque(self, path: bytes) -> bool:
        return path in self._opaques

    def xattrs(self, path: bytes) -> Xattrs:
        node = self.entries.get(path)
        return node.xattrs if node else ()

    def opener(self) -> tuple[Opener, Callable[[], None]]:
        return self._fetch, lambda: None

    def _tree(self) -> dict[bytes, list[bytes]]:
        """Names by directory, those of directories without an entry of their own too. Made when first
        asked."""
        if self._children is None:
            children: dict[bytes, list[bytes]] = {}
            # An opaque mark implies its own directory too.
            for path in [*self.entries, *(join(each, OPAQUE) for each in self._opaques)]:
                for above in parents_of(path):
                    if above not in self.entries and above not in self._implied:
                        self._implied.add(above)
                        children.setdefault(parent_of(above), []).append(above.rpartition(b"/")[2])
                if path in self.entries and path:
                    children.setdefault(parent_of(path), []).append(path.rpartition(b"/")[2])
            self._children = children
        return self._children


class View:
    """The tree that `layers` (lowest first) show together: `builder.tree.Tree` for what steps made."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = tuple(layers)
        self._stacks: dict[bytes, tuple[Layer, ...]] = {b"": self.layers[::-1]}

    def lstat(self, path: bytes) -> Node | None:
        found = self._find(path)
        return found[1] if found else None

    def listdir(self, path: bytes) -> list[bytes]:
        return sorted(name for name, _, _ in self._merged(path))

    def readlink(self, path: bytes) -> bytes:
        node = self.lstat(path)
        return node.link if node else b""

    def xattrs(self, path: bytes) -> Xattrs:
        found = self._find(path)
        return found[0].xattrs(path) if found and found[0] else ()

    def resolve(self, path: bytes) -> bytes:
        return resolve(self.lstat, path)

    def walk(self, path: bytes = b"") -> list[Item]:
        node = self.lstat(path)
        if node is None:
            return []
        items = [(path, node)]
        if node.kind is Kind.DIRECTORY:
            self._walk_below(path, items)
        return items

    @contextmanager
    def opener(self) -> Iterator[Opener]:
        with ExitStack() as stack:
            openers: dict[int, Opener] = {}

            def open_file(path: bytes) -> int:
                found = self._find(path)
                if found is None or found[0] is None or found[1].kind is not Kind.FILE:
                    raise FileNotFoundError(2, "no such file in the image", os.fsdecode(b"/" + path))
                opening = openers.get(id(found[0]))
                if opening is None:
                    opening, close = found[0].opener()
                    openers[id(found[0])] = opening
                    stack.callback(close)
                return opening(path)

            yield open_file

    def open(self, path: bytes) -> int:
        with self.opener() as open_file:
            return open_file(path)

    def entry(self, path: bytes) -> Entry | None:
        """`path` as an archive's entry: what unpacking a layer on top of these asks for
        (`oci.apply.Lower`).
        """
        found = self._find(path)
        if found is None:
            return None
        layer, node = found
        major, minor = (os.major(node.rdev), os.minor(node.rdev)) if node.rdev else (0, 0)
        xattrs = layer.xattrs(path) if layer and node.kind is not Kind.SYMLINK else ()
        return Entry(path, *node[:5], node.mtime_ns // 1_000_000_000, node.link, major, minor, xattrs)

    def entries(self, path: bytes) -> list[tuple[bytes, Layer | None, Node]]:
        """Name, topmost layer and node of all that shows in the directory `path`, in no order; no layer for
        what is only implied.
        """
        return self._merged(path)

    # ---- inside ----

    def _find(self, path: bytes) -> tuple[Layer | None, Node] | None:
        """The topmost layer that has `path`, and what it is there; no layer for what is only implied."""
        implied = not path
        for layer in self._stack(parent_of(path)):
            node = layer.find(path)
            if node is None:
                implied = implied or layer.implies(path)
                continue
            if implied and node.kind is not Kind.DIRECTORY:
                break
            return None if is_whiteout_node(node) else (layer, node)
        return (None, _PLAIN_DIRECTORY) if implied else None

    def _stack(self, path: bytes) -> tuple[Layer, ...]:
        """The layers that contribute to the directory `path`, topmost first; none when it is no directory."""
        known = self._stacks.get(path)
        if known is not None:
            return known
        stack: list[Layer] = []
        for layer in self._stack(parent_of(path)):
            node = layer.find(path)
            if node is None:
                if not layer.implies(path):
                    continue
            elif node.kind is not Kind.DIRECTORY:
                break
            stack.append(layer)
            if layer.opaque(path):
                break
        self._stacks[path] = found = tuple(stack)
        return found

    def _merged(self, path: bytes) -> list[tuple[bytes, Layer | None, Node]]:
        """Name, layer and node of all that shows in a directory."""
        seen: dict[bytes, tuple[Layer | None, Node]] = {}
        implied: set[bytes] = set()
        for layer in self._stack(path):
            for name, node in layer.children(path).items():
                if name in seen:
                    continue
                if node is None:
                    implied.add(name)
                elif name in implied and node.kind is not Kind.DIRECTORY:
                    seen[name] = (None, _PLAIN_DIRECTORY)
                else:
                    seen[name] = (layer, node)
        rows = [(name, *found) for name, found in seen.items() if not is_whiteout_node(found[1])]
        return rows + [(name, None, _PLAIN_DIRECTORY) for name in implied if name not in seen]

    def _walk_below(self, path: bytes, into: list[Item]) -> None:
        for name, _, node in sorted(self._merged(path), key=lambda row: row[0]):
            child = join(path, name)
            into.append((child, node))
            if node.kind is Kind.DIRECTORY:
                self._walk_below(child, into)


def is_whiteout_node(node: Node) -> bool:
    """Whether `node` is overlay's whiteout. A real device 0:0 cannot exist in a layer."""
    return node.kind is Kind.CHAR and node.rdev == 0


def is_opaque(path: bytes, userxattr: bool = False) -> bool:
    """Whether the directory `path` of a layer hides what lies below it (`y`; `x` is another mark).

    Only in user namespaces (`userxattr`) is it a `user.` attribute: elsewhere any RUN could set that one.
    """
    name = "user.overlay.opaque" if userxattr else "trusted.overlay.opaque"
    try:
        return os.getxattr(path, name, follow_symlinks=False) == b"y"
    except OSError:
        return False


def index_of(entries: Iterable[Entry], fetch: Opener) -> IndexLayer:
    """The layer that a blob's `entries` (in its own order) make; `fetch(path)` will open its files."""
    nodes: dict[bytes, Node] = {}
    opaques: set[bytes] = set()
    gone: set[bytes] = set()
    for entry in entries:
        parent, _, name = entry.name.rpartition(b"/")
        if name == OPAQUE:
            opaques.add(parent)
        elif is_whiteout(name):
            if not is_bookkeeping(name):
                gone.add(join(parent, target(name)))
        elif entry.kind is Kind.HARDLINK:
            if (linked := nodes.get(entry.link)) is not None:
                nodes[entry.name] = linked
        else:
            nodes[entry.name] = node_of_entry(entry)
    # A whiteout speaks of lower layers only: a directory of the same name in this layer hides them.
    present = set(nodes).union(opaques, *map(parents_of, [*nodes, *opaques, *gone])) if gone else ()
    for path in gone:
        if path in present:
            opaques.add(path)
        else:
            nodes[path] = WHITEOUT
    return IndexLayer(nodes, fetch, opaques)


def node_of_entry(entry: Entry) -> Node:
    """An archive's entry as a Node: as it would be on a disk, where all symlinks have one mode."""
    return Node(
        entry.kind,
        0o777 if entry.kind is Kind.SYMLINK else entry.mode,
        entry.uid,
        entry.gid,
        entry.size,
        entry.mtime * 1_000_000_000,
        entry.link,
        os.makedev(entry.major, entry.minor),
        xattrs=entry.xattrs,
    )
