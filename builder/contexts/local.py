"""Build contexts that are directories of this machine.

Nothing outside the directory is ever opened (SECURITY.md S53): every name is opened below the descriptor of
its parent with O_NOFOLLOW, from one descriptor of the root on. Ignored paths are neither opened nor listed
(S55). Files belong to 0:0 whoever owns them here, as COPY says; sockets are left out, as no image can hold
them.

What was listed once is remembered: a build sees one state of its context, and notices when a file changed
since.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from builder.errors import ContextError
from builder.patterns import IgnoreFile, PatternError, State
from builder.source import SourceFile
from builder.tree import (
    KINDS,
    DirectoryOpener,
    Item,
    Node,
    Opener,
    Xattrs,
    join,
    parent_of,
    read_xattrs,
    resolve,
)
from oci.rooted import Root
from oci.tar.entry import Kind

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE, _SYMLINK, _SUBDIRECTORY = Kind.FILE, Kind.SYMLINK, Kind.DIRECTORY  # look-ups less for each file
_DEEPEST = 400
_MOST_TEXT = 16 << 20
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_new_node: Callable[[type[Node], tuple[object, ...]], Node] = tuple.__new__


class LocalContext:
    """The directory `root` as a Tree. `name` is what people call it, in errors.

    Raises ContextError when it is missing or no directory. Close it, or use it in `with`.
    """

    def __init__(self, root: str, ignore: IgnoreFile | None = None, name: str = "context") -> None:
        self.root = os.path.abspath(root)
        self.name = name
        self._ignore = ignore or None
        self._listings: dict[bytes, dict[bytes, Node]] = {}
        self._states: dict[bytes, State] = {b"": ignore.enter()} if ignore else {}
        self._walks: dict[bytes, list[Item]] = {}
        try:
            self._fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ContextError(
                f"the {name} {root} cannot be opened: {error.strerror}", hint="name a directory that exists"
            ) from None

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
        with self._directory(parent_of(path)) as fd:
            # There is no call relative to a directory; /proc gives its descriptor a name that cannot be
            # swapped.
            return read_xattrs(b"/proc/self/fd/%d/%s" % (fd, name), of_context=True)

    def walk(self, path: bytes = b"") -> list[Item]:
        found = self._walks.get(path)
        if found is None:
            node = self.lstat(path)
            found = [(path, node)] if node else []
            if node is not None and node.kind is Kind.DIRECTORY:
                with self._directory(path) as fd:
                    self._descend(path, fd, found, path.count(b"/"))
            self._walks[path] = found
        return found

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

    def _shown(self, path: bytes) -> str:
        return os.fsdecode(path) or self.root

    @contextmanager
    def _directory(self, path: bytes) -> Iterator[int]:
        # Listing moves a descriptor's position: threads that list the root at once need one each.
        root = os.open(b".", _DIRECTORY, dir_fd=self._fd)
        files = DirectoryOpener(root)
        try:
            yield files.directory(path)
        except OSError as error:
            raise _unreadable(self._shown(path), error) from None
        finally:
            files.close()
            os.close(root)

    def _listing(self, path: bytes) -> dict[bytes, Node]:
        """The names in a directory that are not left out; empty for what is no directory."""
        known = self._listings.get(path)
        if known is not None:
            return known
        node = self.lstat(path)
        if node is None or node.kind is not Kind.DIRECTORY:
            return {}
        with self._directory(path) as fd:
            return self._scan(path, fd)

    def _descend(self, path: bytes, fd: int, into: list[Item], depth: int) -> None:
        if depth > _DEEPEST:
            raise ContextError(f"{self._shown(path)} lies deeper than {_DEEPEST} directories")
        listing = self._listings.get(path)
        if listing is None:
            listing = self._scan(path, fd)
        prefix = path + b"/" if path else b""
        for name, node in listing.items():
            child = prefix + name
            into.append((child, node))
            if node[0] is _SUBDIRECTORY:
                with _opened(name, fd, self._shown(child)) as sub:
                    self._descend(child, sub, into, depth + 1)

    def _scan(self, path: bytes, fd: int) -> dict[bytes, Node]:
        rows: list[tuple[bytes, Node]] = []
        state = self._states.get(path)
        filtered = state is not None
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    raw = entry.name.encode(_ENCODING, _ERRORS)
                    if filtered and not self._wanted(path, fd, raw, entry):
                        continue
                    st = entry.stat(follow_symlinks=False)
                    kind = KINDS.get(st.st_mode & 0o170000)
                    if kind is None:
                        continue
                    size = st.st_size if kind is _FILE else 0
                    link = os.fsencode(os.readlink(raw, dir_fd=fd)) if kind is _SYMLINK else b""
                    rows.append((raw, _node(kind, st, size, link)))
        except OSError as error:
            raise _unreadable(self._shown(path), error) from None
        rows.sort()
        listing = self._listings[path] = dict(rows)
        return listing

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
        with _opened(name, fd, self._shown(child)) as sub:
            return bool(self._scan(child, sub))


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
    if inside.startswith("../") or inside == "..":
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    else:
        with Root.at(context) as root:
            fd = root.open(os.fsencode(inside), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
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


@contextmanager
def _opened(name: bytes, above: int, shown: str) -> Iterator[int]:
    try:
        fd = os.open(name, _DIRECTORY, dir_fd=above)
    except OSError as error:
        raise _unreadable(shown, error) from None
    try:
        yield fd
    finally:
        os.close(fd)


def _unreadable(shown: str, error: OSError) -> ContextError:
    if isinstance(error, PermissionError):
        return ContextError(
            f"{shown} of the context cannot be listed: permission denied",
            hint="make it readable, or name it in .dockerignore",
        )
    return ContextError(f"{shown} of the context changed during the build: {error.strerror}")


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


def _node(kind: Kind, st: os.stat_result, size: int, link: bytes) -> Node:
    """A context's file, which belongs to 0:0. A Node made without its constructor: half the time."""
    return _new_node(
        Node,
        (
            kind,
            st.st_mode & 0o7777,
            0,
            0,
            size,
            st.st_mtime_ns,
            link,
            st.st_rdev,
            st.st_dev,
            st.st_ino,
            st.st_nlink,
            st.st_ctime_ns,
            (),
            b"",
        ),
    )
