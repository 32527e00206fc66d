"""What a build reads from outside: its Dockerfile, its contexts, and the images that FROM and COPY --from
name.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, BinaryIO, Protocol

from builder.errors import BuildError, ContextError, NotFound, UsageError
from builder.events import Emit
from builder.source import SourceFile, SourceRange
from builder.switches import KEEP_GIT, is_on
from oci.errors import InvalidReference, OciError
from oci.image import Image, copy, select
from oci.layout import REF_NAME, name_of
from oci.reference import Reference

if TYPE_CHECKING:
    from builder.bases import Resolver
    from builder.contexts.ahead import Ahead
    from builder.contexts.remote import Remotes
    from builder.contexts.sources import Source
    from builder.images import Images
    from builder.locked import Locked
    from builder.patterns import IgnoreFile
    from builder.registries import Access
    from builder.tree import Tree
    from oci.model import Descriptor, Platform

LAYOUT = "oci-layout://"
IMAGE = "docker-image://"
DEEPEST = 10
"""How many named contexts may name each other in a row (C05)."""


class Wanted(Protocol):
    """Of a request, what concerns its inputs (`builder.building.BuildRequest`)."""

    @property
    def context(self) -> str: ...
    @property
    def dockerfile(self) -> str: ...
    @property
    def dockerfile_text(self) -> bytes: ...
    @property
    def build_args(self) -> Mapping[str, str]: ...
    @property
    def contexts(self) -> Mapping[str, str]: ...
    @property
    def stdin(self) -> BinaryIO | None: ...
    @property
    def ignorefile(self) -> str: ...
    @property
    def pull(self) -> bool: ...
    @property
    def locked(self) -> bool: ...
    @property
    def access(self) -> Access: ...


class Inputs:
    """The inputs of one build; each is opened when first asked for, and closed with the `with` block.

    Without `images` there is no store, and no image is found; without `registries` nobody is asked for one.
    `remotes` fetches what lies elsewhere; without it, it is kept for as long as this. `ahead` may be listing
    the main context already.
    """

    def __init__(
        self,
        wanted: Wanted,
        images: Images | None,
        emit: Emit,
        remotes: Remotes | None = None,
        registries: Resolver | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        self._wanted = wanted
        self._images = images
        self._emit = emit
        self._exit = ExitStack()
        self._remotes = remotes
        self._registries = registries
        self._ahead = ahead
        self._sources: dict[str, Source] = {}
        self._trees: dict[str, Tree] = {}
        self._ignores: dict[str, IgnoreFile | None] = {}
        self._locked: Locked | None = None
        self._found: dict[tuple[str, Platform], Image] = {}
        self._lock = threading.RLock()

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, *exc: object) -> None:
        self._exit.close()

    def dockerfile(self) -> SourceFile:
        """The Dockerfile's text. Raises ContextError when it cannot be read."""
        from builder.contexts.local import source_of
        from builder.contexts.sources import fetch_text

        path = self._wanted.dockerfile
        if path == "-":
            return source_of("Dockerfile", self._wanted.dockerfile_text)
        if _is_url(path):
            return source_of(_without_secrets(path), fetch_text(path, self._fetching))
        return self._source("").dockerfile(path)

    def named(self) -> Mapping[str, Callable[[Platform], Image] | None]:
        """The named contexts: what finds the image, or None for files. Raises UsageError."""
        return {name: self._named(name, value, 0) for name, value in self._wanted.contexts.items()}

    def tree(self, name: str) -> Tree:
        """The files of the main context (``""``) or of a named one."""
        with self._lock:
            if name not in self._trees:
                self._trees[name] = self._source(name).tree(self._dockerfile(name))
            return self._trees[name]

    def ignore(self, name: str = "") -> IgnoreFile | None:
        """The ignore file of the main context or of a named directory. Raises ContextError when it cannot be
        understood.
        """
        if name not in self._ignores:
            self._ignores[name] = self._source(name).ignore(self._dockerfile(name))
        return self._ignores[name]

    def read_file(self, path: str) -> tuple[str, bytes]:
        """A file of the main context that is not left out: its path without links, and its content.

        Nothing outside is ever opened: links are followed inside. Raises ContextError.
        """
        from builder.contexts.sources import read_text
        from builder.tree import clean

        if os.path.normpath(path.lstrip("/") or ".").startswith("../"):
            raise ContextError("it leads out of the context", hint="paths begin at the context's root")
        wanted, tree = clean(path), self.tree("")
        if not wanted:
            raise ContextError("it is the context itself", hint="name a file of it")
        content = read_text(tree, wanted)
        if content is None:
            ignore = self.ignore()
            line = ignore.reason(wanted) if ignore is not None and ignore.ignored(wanted) else None
            if line is not None:
                raise ContextError(
                    f"{line} leaves it out of the context", hint=f"take it back there: !{path}"
                )
            raise ContextError("there is no such file in the context")
        return os.fsdecode(tree.resolve(wanted)), content

    def moment(self) -> int | None:
        """The time of the main context in seconds since 1970: a commit's, or what a server says of a file.
        None for what has none."""
        return self._source("").moment()

    def lockfile(self) -> str:
        """Where the lock of the Dockerfile lies, if there is one. Raises UsageError where none can be."""
        from builder.lock import SUFFIX

        path = self._wanted.dockerfile
        place = None if path == "-" or _is_url(path) else self._source("").path_of(path)
        if place is None:
            raise UsageError("a lock lies beside its Dockerfile, which has to be a file of a directory")
        return place + SUFFIX

    def locked(self) -> Locked:
        """What the lock says. Raises UsageError when there is none, or it cannot be understood."""
        with self._lock:
            if self._locked is None:
                from builder.lock import Lock
                from builder.locked import Locked

                path = self.lockfile()
                found = Lock.read(path)
                if found is None:
                    raise UsageError(f"--locked: there is no {path}", hint="pybuild lock writes it")
                self._locked = Locked(found, os.path.basename(path))
            return self._locked

    def resolve(self, name: str, platform: Platform, at: SourceRange | None) -> Image:
        """The image that `name` means, from the store or a registry. Raises NotFound or RegistryFailed with
        the line that wants it."""
        key = name, platform
        if key not in self._found:
            self._found[key] = self._resolved(name, platform, at)
        return self._found[key]

    def _resolved(self, name: str, platform: Platform, at: SourceRange | None) -> Image:
        from builder.bases import find

        try:
            reference = Reference.parse(name)
        except InvalidReference as error:
            raise UsageError(str(error), at=at) from None
        if self._images is None:
            raise NotFound(f"the image {reference.familiar()!r} is not in the local store", at=at)
        locked = self.locked() if self._wanted.locked else None
        reference = locked.image(reference, at) if locked else reference
        try:
            with locked.told() if locked else nullcontext():
                return find(self._images, self._registries, reference, platform, pull=self._wanted.pull)
        except BuildError as error:
            error.at = error.at or at
            raise

    def _source(self, name: str) -> Source:
        """The main context or a named one, opened."""
        from builder.contexts.sources import open_source

        with self._lock:
            if name not in self._sources:
                shown = f"context {name!r}" if name else "context"
                value = self._wanted.contexts[name] if name else self._wanted.context
                stdin = None if name else self._wanted.stdin
                ignorefile = "" if name else self._wanted.ignorefile
                keep_git = not name and is_on(self._wanted.build_args, KEEP_GIT)
                locked = self.locked() if name and self._wanted.locked else None
                with locked.told() if locked else nullcontext():
                    found = open_source(
                        value,
                        self._fetching,
                        name=shown,
                        ignorefile=ignorefile,
                        stdin=stdin,
                        ahead=None if name else self._ahead,
                        pin=locked.source if locked else None,
                        keep_git_dir=keep_git,
                    )
                self._exit.callback(found.close)
                self._sources[name] = found
            return self._sources[name]

    def _dockerfile(self, name: str) -> str:
        """Beside which Dockerfile the ignore file of a context may lie; `-` for one that lies nowhere."""
        if name:
            return ""
        return "-" if _is_url(self._wanted.dockerfile) else self._wanted.dockerfile

    @property
    def _fetching(self) -> Remotes:
        if self._remotes is None:
            self._remotes = self._exit.enter_context(
                _passing_remotes(self._exit, self._emit, self._wanted.access.offline)
            )
        return self._remotes

    def _named(self, name: str, value: str, depth: int) -> Callable[[Platform], Image] | None:
        if depth > DEEPEST:
            raise UsageError(f"--build-context {name}={value}: named contexts name each other in a circle")
        if value.startswith(IMAGE):
            image = value.removeprefix(IMAGE)
            other = self._wanted.contexts.get(image)
            if other is not None and image != name:
                return self._named(image, other, depth + 1)
            return lambda platform: self.resolve(image, platform, None)
        if value.startswith(LAYOUT):
            return lambda platform: self._from_layout(name, value.removeprefix(LAYOUT), platform)
        from builder.contexts.sources import is_remote

        if not is_remote(value) and not os.path.isdir(value):
            raise UsageError(f"--build-context {name}={value}: there is no such directory")
        return None

    def _from_layout(self, name: str, where: str, platform: Platform) -> Image:
        """The image of a foreign layout, its blobs verified and copied to the store."""
        from oci.layout import Layout

        path, wanted = _split_layout(where)
        if self._images is None:
            raise NotFound(f"--build-context {name}: there is no store to copy the image to")
        blobs = self._images.layout.blobs
        try:
            layout = Layout.open(path)
            entry = _entry(layout.descriptors(), wanted)
            chosen = select(layout.blobs, entry, platform) if entry else None
            if chosen is None:
                raise InvalidReference(f"{path} has no image {wanted or f'for {platform}'}")
            copy(layout.blobs, chosen, blobs)
        except (OciError, OSError) as error:
            raise UsageError(f"--build-context {name}: {error}") from None
        return Image.load(blobs, chosen)


def _is_url(path: str) -> bool:
    return path.startswith(("http://", "https://"))


def _without_secrets(url: str) -> str:
    from oci.registry.redact import shown_url

    return shown_url(url)


def _passing_remotes(stack: ExitStack, emit: Emit, offline: bool) -> Remotes:
    """Remotes without a store, whose downloads go with `stack`."""
    from tempfile import TemporaryDirectory

    from builder.contexts.remote import Remotes
    from oci.blobs import BlobStore

    place = stack.enter_context(TemporaryDirectory(prefix="pybuild-"))
    return Remotes(BlobStore(place), _Forgetful(), offline=offline, emit=emit)


class _Forgetful:
    """A memory without memory."""

    def get(self, key: bytes) -> bytes | None:
        return None

    def put_many(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Nothing is kept."""


def _entry(entries: Sequence[Descriptor], wanted: str) -> Descriptor | None:
    """The entry of a layout that `wanted` means: a digest, a tag, a name, or the only one there is."""
    if not wanted:
        return entries[0] if len(entries) == 1 else _entry(entries, "latest")
    for entry in entries:
        if wanted in (str(entry.digest), entry.annotations.get(REF_NAME), name_of(entry)):
            return entry
    return None


def _split_layout(where: str) -> tuple[str, str]:
    """`PATH[:TAG|@DIGEST]` in two; the path may hold colons."""
    if os.path.isdir(where):
        return where, ""
    for mark in ("@", ":"):
        path, sep, wanted = where.partition(mark) if mark == "@" else where.rpartition(mark)
        if sep and os.path.isdir(path):
            return path, wanted
    return where, ""
