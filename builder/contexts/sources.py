"""Where a context comes from (C02-C05): a directory, a repository, an archive, or only a Dockerfile.

opened = open_source("https://host/app.tar.gz", remotes, name="context")
opened.dockerfile("") -> SourceFile      opened.ignore("") -> IgnoreFile | None      opened.tree("") -> Tree
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import field, replace
from typing import TYPE_CHECKING, BinaryIO, Protocol

from builder.contexts.local import LocalContext, ignore_of, read_dockerfile, read_ignore, source_of
from builder.errors import ContextError, UsageError
from builder.graph import GitSource, HttpSource, RemoteSource
from builder.tree import clean
from oci.data import dataclass
from oci.tar.entry import Kind

if TYPE_CHECKING:
    from builder.contexts.ahead import Ahead
    from builder.contexts.archive import ArchiveContext, Stream
    from builder.contexts.remote import Remotes
    from builder.patterns import IgnoreFile
    from builder.source import SourceFile
    from builder.tree import Tree

_MOST_TEXT = 16 << 20
DEFAULT_NAMES = ("Dockerfile", "Containerfile")


class Source(Protocol):
    """A context that is there. `dockerfile` is the path that --file gave, empty for the usual names."""

    def dockerfile(self, path: str) -> SourceFile:
        """The Dockerfile. Raises ContextError when there is none that can be read."""

    def ignore(self, dockerfile: str) -> IgnoreFile | None:
        """The ignore file that goes with a Dockerfile. Raises ContextError when it cannot be understood."""

    def tree(self, dockerfile: str) -> Tree:
        """The files, without those that are ignored."""

    def path_of(self, dockerfile: str) -> str | None:
        """Where the Dockerfile is as a file of this machine; None when it is none."""

    def moment(self) -> int | None:
        """The time that it carries in seconds since 1970; None for what is of this machine."""

    def close(self) -> None: ...


@dataclass(slots=True)
class Directory:
    """A directory of this machine; of a checkout, paths of Dockerfiles are inside of it."""

    path: str
    name: str
    checkout: bool = False
    ignorefile: str = ""
    ahead: Ahead | None = None
    time: Callable[[], int] | None = None
    _opened: list[LocalContext] = field(default_factory=list)

    def dockerfile(self, path: str) -> SourceFile:
        found = read_dockerfile(self.path, self._of(path))
        return replace(found, name=path) if self.checkout and path else found

    def ignore(self, dockerfile: str) -> IgnoreFile | None:
        return read_ignore(self.path, self._of(dockerfile), self.ignorefile)

    def tree(self, dockerfile: str) -> Tree:
        ignore = self.ignore(dockerfile)
        ahead = self.ahead if self.ahead and self.ahead.fits(self.path, ignore) else None
        self._opened.append(LocalContext(self.path, ignore, self.name, ahead))
        return self._opened[-1]

    def path_of(self, dockerfile: str) -> str | None:
        if dockerfile:
            return self._of(dockerfile)
        places = [os.path.join(self.path, each) for each in DEFAULT_NAMES]
        return next((each for each in places if os.path.lexists(each)), places[0])

    def moment(self) -> int | None:
        return self.time() if self.time else None

    def close(self) -> None:
        for each in self._opened:
            each.close()

    def _of(self, path: str) -> str:
        inside = self.checkout and path not in ("", "-")
        return os.path.join(self.path, os.fsdecode(clean(path))) if inside else path


@dataclass(slots=True)
class Archive:
    """An archive, read already."""

    archive: ArchiveContext
    ignorefile: str = ""
    modified: int | None = None

    def dockerfile(self, path: str) -> SourceFile:
        tree = self.archive.everything
        for name in (path,) if path else DEFAULT_NAMES:
            text = read_text(tree, clean(name))
            if text is not None:
                return source_of(path or name, text)
        raise ContextError(
            f"the {self.archive.name} has no {path or 'Dockerfile'}", hint="name the right one with --file"
        )

    def ignore(self, dockerfile: str) -> IgnoreFile | None:
        if self.ignorefile:
            return read_ignore("", "-", self.ignorefile)
        tree = self.archive.everything
        own = [] if dockerfile == "-" else [f"{each}.dockerignore" for each in self._names(dockerfile)]
        for name in (*own, ".dockerignore"):
            text = read_text(tree, clean(name))
            if text is not None:
                return ignore_of(text, name)
        return None

    def tree(self, dockerfile: str) -> Tree:
        self.archive.leave_out(self.ignore(dockerfile))
        return self.archive

    def path_of(self, dockerfile: str) -> str | None:
        return None

    def moment(self) -> int | None:
        """What its server says, else the time of its newest file."""
        if self.modified != 0:
            return self.modified
        return max((node.mtime_ns // 10**9 for _, node in self.archive.everything.walk()), default=0)

    def close(self) -> None:
        self.archive.close()

    def _names(self, dockerfile: str) -> tuple[str, ...]:
        return (dockerfile,) if dockerfile else DEFAULT_NAMES[:1]


@dataclass(slots=True)
class Lone:
    """A Dockerfile, and a context without files; or, for a named context, one file."""

    text: bytes
    files: Tree
    modified: int | None = None

    def dockerfile(self, path: str) -> SourceFile:
        return source_of("Dockerfile", self.text)

    def ignore(self, dockerfile: str) -> IgnoreFile | None:
        return None

    def tree(self, dockerfile: str) -> Tree:
        return self.files

    def path_of(self, dockerfile: str) -> str | None:
        return None

    def moment(self) -> int | None:
        return self.modified

    def close(self) -> None:
        """Nothing is held."""


def is_remote(value: str) -> bool:
    """Whether `value` names a context elsewhere: a URL, or a repository in any of its forms."""
    if ":" not in value and not value.startswith("github.com/"):
        return False
    from builder.giturl import looks_remote

    return looks_remote(value) or (value.startswith("github.com/") and not os.path.exists(value))


def open_source(
    value: str,
    remotes: Remotes,
    *,
    name: str = "context",
    ignorefile: str = "",
    stdin: BinaryIO | None = None,
    ahead: Ahead | None = None,
    pin: Callable[[RemoteSource], RemoteSource] | None = None,
    keep_git_dir: bool = False,
) -> Source:
    """The context `value` names; `-` is `stdin`. `ahead` may be listing it already; `pin` says what a remote
    one is to be. `.git` of a repository stays with `keep_git_dir`, where its URL does not say otherwise.

    Raises UsageError, ContextError, FetchFailed.
    """
    if value == "-" and stdin is not None:
        return _of_stream(stdin, remotes, name, ignorefile)
    if not is_remote(value):
        return Directory(value, name, ignorefile=ignorefile, ahead=ahead)
    source = elsewhere(value, name)
    if pin is not None:
        source = pin(source)
    if isinstance(source, HttpSource):
        return _of_url(source, remotes, name, ignorefile)
    git = source.git
    if keep_git_dir and git.keep_git_dir is None:
        git = replace(git, keep_git_dir=True)
    return Directory(
        remotes.checkout(git),
        name,
        checkout=True,
        ignorefile=ignorefile,
        time=lambda: remotes.repositories.moment(git),
    )


def elsewhere(value: str, name: str) -> RemoteSource:
    """The repository or file that a remote context is. Raises UsageError."""
    from builder.giturl import GitUrlError, parse

    try:
        git = parse(value, bare=True)
    except GitUrlError as error:
        raise UsageError(f"the {name}: {error}") from None
    if git is not None:
        return GitSource(git)
    if not value.startswith(("http://", "https://")):
        raise UsageError(
            f"the {name}: {value.partition('://')[0]}:// is no place a context can come from",
            hint="it is a directory, an http(s) URL, or a git repository",
        )
    return HttpSource(value)


def fetch_text(url: str, remotes: Remotes) -> bytes:
    """The Dockerfile behind a URL."""
    found = remotes.downloads.find(url)
    if found.size > _MOST_TEXT:
        raise ContextError(f"the Dockerfile behind that URL is larger than {_MOST_TEXT} bytes")
    with os.fdopen(remotes.downloads.open(url, found), "rb") as file:
        return file.read()


def read_text(tree: Tree, path: bytes) -> bytes | None:
    """A small file of a tree, its links followed inside; None when it is not there. Raises ContextError."""
    try:
        real = tree.resolve(path)
    except OSError as error:
        raise ContextError(f"{os.fsdecode(path)} cannot be followed: {error.strerror}") from None
    node = tree.lstat(real)
    if node is None:
        return None
    if node.kind is not Kind.FILE:
        raise ContextError(f"{os.fsdecode(path)} is no regular file")
    if node.size > _MOST_TEXT:
        raise ContextError(f"{os.fsdecode(path)} is larger than {_MOST_TEXT} bytes")
    with os.fdopen(tree.open(real), "rb") as file:
        return file.read()


def _of_stream(stdin: BinaryIO, remotes: Remotes, name: str, ignorefile: str) -> Source:
    from builder.contexts.archive import NoFiles, Stream

    stream = Stream(stdin)
    if stream.is_archive():
        return _of_archive(stream, remotes, name, ignorefile)
    text = b""
    while chunk := stream.read(_MOST_TEXT + 1 - len(text)):
        text += chunk
    if len(text) > _MOST_TEXT:
        raise ContextError(
            f"standard input is no archive, and as a Dockerfile larger than {_MOST_TEXT} bytes"
        )
    return Lone(text, NoFiles())


def _of_url(source: HttpSource, remotes: Remotes, name: str, ignorefile: str) -> Source:
    from builder.contexts.archive import NoFiles, Stream
    from builder.contexts.http import modified

    found = remotes.downloads.find(source.url, source.checksum)
    with os.fdopen(remotes.downloads.open(source.url, found), "rb") as file:
        stream = Stream(file)
        if stream.is_archive():
            return _of_archive(stream, remotes, name, ignorefile, modified(found))
    if name == "context":
        return Lone(fetch_text(source.url, remotes), NoFiles(), modified(found) or None)
    return Lone(b"", remotes.downloads.tree(source.url, checksum=source.checksum))


def _of_archive(
    stream: Stream, remotes: Remotes, name: str, ignorefile: str, modified: int | None = None
) -> Source:
    from builder.contexts.archive import ArchiveContext

    return Archive(ArchiveContext(stream, name, remotes.scratch), ignorefile, modified)
