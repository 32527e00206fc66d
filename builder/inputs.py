"""What a build reads from outside: its Dockerfile, its contexts, and the images that FROM and COPY --from
name.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from builder.errors import NotFound, UsageError
from builder.events import Emit
from builder.source import SourceFile, SourceRange
from oci import platforms
from oci.errors import InvalidReference, OciError
from oci.image import Image, copy, select
from oci.layout import REF_NAME, name_of
from oci.reference import Reference

if TYPE_CHECKING:
    from builder.images import Images
    from builder.patterns import IgnoreFile
    from builder.tree import Tree
    from oci.model import Descriptor, Platform

LAYOUT = "oci-layout://"
IMAGE = "docker-image://"


class Wanted(Protocol):
    """Of a request, what concerns its inputs (`builder.building.BuildRequest`)."""

    @property
    def context(self) -> str: ...
    @property
    def dockerfile(self) -> str: ...
    @property
    def dockerfile_text(self) -> bytes: ...
    @property
    def contexts(self) -> Mapping[str, str]: ...


class Inputs:
    """The inputs of one build; each is opened when first asked for, and closed with the `with` block.

    Without `images` there is no store, and no image is found.
    """

    def __init__(self, wanted: Wanted, images: Images | None, emit: Emit) -> None:
        self._wanted = wanted
        self._images = images
        self._emit = emit
        self._exit = ExitStack()
        self._trees: dict[str, Tree] = {}
        self._ignores: dict[str, IgnoreFile | None] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, *exc: object) -> None:
        self._exit.close()

    def dockerfile(self) -> SourceFile:
        """The Dockerfile's text. Raises ContextError when it cannot be read."""
        from builder.contexts.local import read_dockerfile

        return read_dockerfile(self._wanted.context, self._wanted.dockerfile, self._wanted.dockerfile_text)

    def named(self) -> Mapping[str, Image | None]:
        """The named contexts: an image, or None for a directory."""
        return {name: self._named(name, value) for name, value in self._wanted.contexts.items()}

    def tree(self, name: str) -> Tree:
        """The files of the main context (``""``) or of a named directory."""
        with self._lock:
            if name not in self._trees:
                self._trees[name] = self._open(name)
            return self._trees[name]

    def ignore(self, name: str = "") -> IgnoreFile | None:
        """The ignore file of the main context or of a named directory. Raises ContextError when it cannot be
        understood.
        """
        from builder.contexts.local import read_ignore

        if name not in self._ignores:
            dockerfile = "" if name else self._wanted.dockerfile
            self._ignores[name] = read_ignore(self._path(name), dockerfile)
        return self._ignores[name]

    def resolve(self, name: str, platform: Platform, at: SourceRange | None) -> Image:
        """The image that `name` means, from the local store. Raises NotFound with the line that wants it."""
        try:
            reference = Reference.parse(name)
        except InvalidReference as error:
            raise UsageError(str(error), at=at) from None
        if self._images is None:
            raise NotFound(f"the image {reference.familiar()!r} is not in the local store", at=at)
        descriptor = self._images.find(reference) or self._by_id(self._images, reference, at)
        blobs = self._images.layout.blobs
        chosen = select(blobs, descriptor, platform)
        if chosen is None:
            raise NotFound(f"the local image {name!r} has nothing for {platform}", at=at)
        return Image.load(blobs, chosen)

    def _by_id(self, images: Images, reference: Reference, at: SourceRange | None) -> Descriptor:
        """The image whose id begins so, as `FROM <id>` means it. Raises NotFound, with what may be meant."""
        shown = reference.familiar()
        try:
            return images.resolve(shown.removesuffix(":latest")).descriptor
        except NotFound as error:
            text = f"the image {shown!r} is not in the local store; pulling comes with the registries"
            raise NotFound(text, at=at, hint=error.hint) from None

    def _open(self, name: str) -> Tree:
        from builder.contexts.local import LocalContext

        shown = f"context {name!r}" if name else "context"
        return self._exit.enter_context(LocalContext(self._path(name), self.ignore(name), shown))

    def _path(self, name: str) -> str:
        return self._wanted.contexts[name] if name else self._wanted.context

    def _named(self, name: str, value: str) -> Image | None:
        if value.startswith(IMAGE):
            return self.resolve(value.removeprefix(IMAGE), platforms.host(), None)
        if value.startswith(LAYOUT):
            return self._from_layout(name, value.removeprefix(LAYOUT))
        if "://" in value or value.startswith("git@"):
            raise UsageError(
                f"--build-context {name}={value}: only directories, {LAYOUT} and {IMAGE} are there yet",
                hint="git and http contexts come with a later version",
            )
        if not os.path.isdir(value):
            raise UsageError(f"--build-context {name}={value}: there is no such directory")
        return None

    def _from_layout(self, name: str, where: str) -> Image:
        """The image of a foreign layout, its blobs verified and copied to the store."""
        from oci.layout import Layout

        path, wanted = _split_layout(where)
        if self._images is None:
            raise NotFound(f"--build-context {name}: there is no store to copy the image to")
        blobs = self._images.layout.blobs
        try:
            layout = Layout.open(path)
            entry = _entry(layout.descriptors(), wanted)
            chosen = select(layout.blobs, entry, platforms.host()) if entry else None
            if chosen is None:
                raise InvalidReference(f"{path} has no image {wanted or 'for this machine'}")
            copy(layout.blobs, chosen, blobs)
        except (OciError, OSError) as error:
            raise UsageError(f"--build-context {name}: {error}") from None
        return Image.load(blobs, chosen)


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
