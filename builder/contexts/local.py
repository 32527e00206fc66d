"""Build contexts that are directories of this machine.

Nothing outside the directory is ever opened (SECURITY.md S53): every name is opened below the descriptor of
its parent with O_NOFOLLOW, from one descriptor of the root on. Ignored paths are neither opened nor listed
(S55). Files belong to 0:0 whoever owns them here, as COPY says; sockets are left out, as no image can hold
them.

What was listed once is remembered: a build sees one state of its context, and notices when a file changed
since.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builder.contexts.listing import Lister
from builder.errors import ContextError
from builder.patterns import IgnoreFile, PatternError
from builder.source import SourceFile
from builder.tree import (
    DirectoryOpener,
    Item,
    Node,
    Opener,
    Xattrs,
    parent_of,
    read_xattrs,
    resolve,
)
from oci.rooted import Root
from oci.tar.entry import Kind

if TYPE_CHECKING:
    from builder.contexts.ahead import Ahead

_SUBDIRECTORY = Kind.DIRECTORY  # a look-up less for each file
_MOST_TEXT = 16 << 20


class LocalContext:
    """The directory `root` as a Tree. `name` is what people call it, in errors.

    `ahead` is listing the same directory already, with the same ignore file. Raises ContextError when the
    directory is missing or none. Close it, or use it in `with`.
    """

    def __init__(
        self, root: str, ignore: IgnoreFile | None = None, name: str = "context", ahead: Ahead | None = None
    ) -> None:
        self.root = os.path.abspath(root)
        self.name = name
        self._ignore = ignore or None
        self._ahead = ahead
        self._walks: dict[bytes, list[Item]] = {}
        self._lock = threading.RLock()
        try:
            self._fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ContextError(
                f"the {name} {root} cannot be opened: {error.strerror}", hint="name a directory that exists"
            ) from None
        self._lister = Lister(self._fd, self.root, self._ignore)

    def __enter__(self) -> LocalContext:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the root."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def lstat(self, path: bytes) -> Node | None:
        if not path:
            return _root_node(os.fstat(self._fd))
        parent, _, name = path.rpartition(b"/")
        return self._listing(parent).get(name)

    def listdir(self, path: bytes) -> list[bytes]:
        return list(self._listing(path))

    def readlink(self, path: bytes) -> bytes:
        node = self.lstat(path)
        return node.link if node else b""

    def resolve(self, path: bytes) -> bytes:
        return resolve(self.lstat, path)

    def ignored(self, path: bytes) -> bool:
        """Whether `path` is left out by the ignore file (it need not exist)."""
        return self._ignore is not None and self._ignore.ignored(path)

    def xattrs(self, path: bytes) -> Xattrs:
        name = path.rpartition(b"/")[2] or b"."
        with self._lister.directory(parent_of(path)) as fd:
            # There is no call relative to a directory; /proc gives its descriptor a name that cannot be
            # swapped.
            return read_xattrs(b"/proc/self/fd/%d/%s" % (fd, name), of_context=True)

    def walk(self, path: bytes = b"") -> list[Item]:
        found = self._walks.get(path)
        if found is None:
            node = self.lstat(path)
            found = [(path, node)] if node else []
            if node is not None and node.kind is Kind.DIRECTORY:
                self._list_below(path)
                self._collect(path, found)
            self._walks[path] = found
        return found

    def stamp(self, path: bytes) -> bytes | None:
        """A digest of all that lstat says of the directory `path` and of everything below it; None when it is
        no directory. No Node is made for it.
        """
        node = self.lstat(path)
        if node is None or node.kind is not Kind.DIRECTORY:
            return None
        self._list_below(path)
        sha256 = hashlib.sha256(repr((path, node)).encode())
        listings = self._lister.listings
        for each in self._lister.below(path):
            sha256.update(b"%d:%b" % (len(each), each + listings[each].stamp))
        return sha256.digest()

    @contextmanager
    def opener(self) -> Iterator[Opener]:
        files = DirectoryOpener(self._fd)
        try:
            yield files
        finally:
            files.close()

    def open(self, path: bytes) -> int:
        with self.opener() as open_file:
            return open_file(path)

    # ---- inside ----

    def _listing(self, path: bytes) -> dict[bytes, Node]:
        """The names in a directory that are not left out; empty for what is no directory."""
        known = self._lister.listings.get(path)
        if known is not None:
            return known.nodes
        self._use_ahead(wait=False)
        node = self.lstat(path)
        if node is None or node.kind is not Kind.DIRECTORY:
            return {}
        with self._lock:
            known = self._lister.listings.get(path)
            if known is None:
                with self._lister.directory(path) as fd:
                    known = self._lister.one(path, fd)
            return known.nodes

    def _list_below(self, path: bytes) -> None:
        with self._lock:
            # Whoever wants one directory of it does not wait for all the others.
            self._use_ahead(wait=not path)
            if not self._lister.is_whole(path):
                with self._lister.directory(path) as fd:
                    self._lister.whole(path, fd, path.count(b"/"))

    def _use_ahead(self, *, wait: bool) -> None:
        with self._lock:
            if self._ahead is not None and (wait or self._ahead.finished):
                found = self._ahead.take(self._lister)
                self._ahead = None
                if found is not None:
                    self._lister.adopt(found)

    def _collect(self, path: bytes, into: list[Item]) -> None:
        prefix = path + b"/" if path else b""
        for name, node in self._lister.listings[path].nodes.items():
            child = prefix + name
            into.append((child, node))
            if node[0] is _SUBDIRECTORY:
                self._collect(child, into)


def read_dockerfile(context: str, path: str = "", text: bytes = b"") -> SourceFile:
    """The Dockerfile: `path`, `Dockerfile` (else `Containerfile`) in `context` when that is empty, `text`
    when it is `-`.

    It may lie anywhere (FEATURES.md C08), and outside of the context its symlinks are the user's own
    business. Inside, a symlink is followed within the context only, as BuildKit does (S53): contexts are
    often other people's. Raises ContextError when there is none that can be read.
    """
    if path == "-":
        return source_of("Dockerfile", text)
    shown = path or _usual(context)
    try:
        found = _read_text(context, shown)
    except OSError as error:
        raise ContextError(
            f"{shown} cannot be read: {error.strerror}", hint=_other_dockerfile(context)
        ) from None
    return source_of(path or os.path.basename(shown), found)


def _usual(context: str) -> str:
    """The Dockerfile nobody named (I45)."""
    usual = os.path.join(context, "Dockerfile")
    other = os.path.join(context, "Containerfile")
    return other if not os.path.lexists(usual) and os.path.lexists(other) else usual


def read_ignore(context: str, dockerfile: str = "", ignorefile: str = "") -> IgnoreFile | None:
    """The ignore file: `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` in the
    context (C07); with a Containerfile that nobody named also `.containerignore`, as buildah has it.

    `ignorefile` is the one the user chose instead, which must be there. Raises ContextError when it cannot be
    read, with the line when it cannot be understood.
    """
    if ignorefile:
        try:
            with open(ignorefile, "rb") as file:
                return ignore_of(file.read(_MOST_TEXT), ignorefile)
        except OSError as error:
            raise ContextError(f"--ignorefile {ignorefile} cannot be read: {error.strerror}") from None
    named = dockerfile or _usual(context)
    own = [] if dockerfile == "-" else [named + ".dockerignore"]
    other = [] if dockerfile or not named.endswith("Containerfile") else [".containerignore"]
    for path in (*own, *(os.path.join(context, name) for name in (".dockerignore", *other))):
        try:
            return ignore_of(_read_text(context, path), path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise ContextError(f"{path} cannot be read: {error.strerror}") from None
    return None


def _read_text(context: str, path: str) -> bytes:
    """A small regular file; one inside the context is resolved inside it."""
    inside = os.path.relpath(os.path.abspath(path), os.path.abspath(context))

    def opened(_path: str, _flags: int) -> int:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        if inside.startswith("../") or inside == "..":
            return os.open(path, flags)
        with Root.at(context) as root:
            return root.open(os.fsencode(inside), flags)

    with open(path, "rb", opener=opened) as file:  # which closes a directory that it refuses
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ContextError(f"{path} is no regular file")
        text = file.read(_MOST_TEXT + 1)
    if len(text) > _MOST_TEXT:
        raise ContextError(
            f"{path} is larger than {_MOST_TEXT} bytes", hint="name the right file with --file"
        )
    return text


def ignore_of(text: bytes, name: str) -> IgnoreFile:
    """An ignore file's text understood. Raises ContextError with the line that cannot be."""
    try:
        return IgnoreFile.parse(text, name)
    except PatternError as error:
        raise ContextError(str(error), at=error.at) from None


def source_of(name: str, text: bytes) -> SourceFile:
    """A Dockerfile's text, for the reader."""
    shown = text.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    return SourceFile(name, shown.replace("\r\n", "\n"))


def _other_dockerfile(context: str) -> str:
    try:
        names = sorted(name for name in os.listdir(context) if "ockerfile" in name or "ontainerfile" in name)
    except OSError:
        return f"the context {context} is no directory that can be listed"
    named = [name for name in names if not name.endswith(".dockerignore")]
    return f"name it with --file: {context} has {', '.join(named[:3])}" if named else "name it with --file"


def _root_node(st: os.stat_result) -> Node:
    return Node(
        Kind.DIRECTORY,
        st.st_mode & 0o7777,
        0,
        0,
        0,
        st.st_mtime_ns,
        b"",
        0,
        st.st_dev,
        st.st_ino,
        2,
        st.st_ctime_ns,
    )
