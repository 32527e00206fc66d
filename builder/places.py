"""Where `copy` reads images and writes them: registries, the store, layouts, archives, directories.

    docker://NAME  NAME               a registry
    store:NAME                        the local store
    oci:DIR[:TAG]                     an image layout
    oci-archive:FILE[:NAME]           one in a tar
    docker-archive:FILE[:NAME:TAG]    what docker load reads
    dir:DIR                           skopeo's plain directory

The words are skopeo's, but for `store:`. `-` as a file is standard input or output.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, BinaryIO, Literal, cast

from builder.errors import ContextError, NotFound, UsageError
from oci import platforms
from oci.archive import Named
from oci.data import dataclass
from oci.errors import InvalidReference
from oci.image import copy, images, select, verify
from oci.reference import Reference

if TYPE_CHECKING:
    from builder.images import Images
    from builder.registries import Registries
    from oci.blobs import BlobStore
    from oci.model import Descriptor, Platform

Kind = Literal["docker", "store", "oci", "oci-archive", "docker-archive", "dir"]
KINDS: tuple[Kind, ...] = ("docker", "store", "oci", "oci-archive", "docker-archive", "dir")

_STDOUT = 1


@dataclass(frozen=True, slots=True)
class Place:
    """A place, as people write it. `path` is a host path, `name` an image's name there, "" for none."""

    kind: Kind
    path: str = ""
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read a place. Raises UsageError."""
        for kind in KINDS:
            mark = "docker://" if kind == "docker" else f"{kind}:"  # docker:24 is an image's name
            if text.startswith(mark):
                rest = text[len(mark) :]
                break
        else:
            kind, rest = "docker", text
        if kind in ("docker", "store"):
            return cls(kind, "", str(_reference(rest)))
        path, _, name = (rest, "", "") if kind == "dir" else rest.partition(":")
        if not path:
            raise UsageError(f"{text!r} names no {'directory' if kind in ('dir', 'oci') else 'file'}")
        if kind == "docker-archive" and name:
            name = str(_reference(name))
        return cls(kind, path, name)

    @property
    def reference(self) -> Reference:
        """The image's name, of a registry or the store."""
        return Reference.parse(self.name)

    def __str__(self) -> str:
        if self.kind in ("docker", "store"):
            return f"{self.kind}:{'//' if self.kind == 'docker' else ''}{self.reference.familiar()}"
        return f"{self.kind}:{self.path}{':' if self.name else ''}{self.name}"


class Copying:
    """Copies images, by way of no more than what lies between the two places. Use it in `with`.

    `source` and `target` are registries with the access of each side.
    """

    def __init__(self, stored: Images, source: Registries, target: Registries) -> None:
        self._images = stored
        self._source = source
        self._target = target
        self._exit = ExitStack()

    def __enter__(self) -> Copying:
        return self

    def __exit__(self, *exc: object) -> None:
        self._exit.close()

    def copy(self, source: Place, target: Place, platform: Platform | None) -> Descriptor:
        """Copy what `source` means, of an index the image for `platform` or (None) all; what was copied.

        Raises BuildError and OciError; then `target` is as it was, but for blobs that nothing points at.
        """
        if source.kind == target.kind == "docker" and self._source is self._target:
            return self._source.copy(source.reference, target.reference, platform)
        blobs, named = self._read(source, platform)
        if platform is not None and source.kind not in ("docker", "store"):
            named = _one_platform(blobs, named, platform, source)
        self._write(target, blobs, named)
        return named.descriptor

    # ---- from ----

    def _read(self, source: Place, platform: Platform | None) -> tuple[BlobStore, Named]:
        """A store that holds the image, and what it is called where it comes from."""
        match source.kind:
            case "store":
                name = source.reference.familiar()
                if platform is None:
                    found = self._images.named(name)
                else:
                    found = self._images.choose(self._images.resolve(name), platform).descriptor
                self._images.refuse_sparse(found, name)
                self._source.complete(found)
                return self._images.layout.blobs, Named(found, (source.reference.with_default_tag(),))
            case "oci":
                return _from_layout(source)
        staging = self._exit.enter_context(self._images.layout.blobs.staging())
        match source.kind:
            case "docker":
                found = self._source.bring(source.reference, staging, platform)
                return staging, Named(found, (source.reference.with_default_tag(),))
            case "dir":
                from oci.directory import read_directory

                return staging, Named(read_directory(source.path, staging))
        return staging, self._from_archive(source, staging)

    def _from_archive(self, source: Place, staging: BlobStore) -> Named:
        from oci.archive import read_archive

        stream = self._exit.enter_context(_opened(source.path))
        return _chosen(read_archive(stream, staging), source)

    # ---- to ----

    def _write(self, target: Place, blobs: BlobStore, named: Named) -> None:
        match target.kind:
            case "docker":
                name = target.reference if target.reference.digest else target.reference.with_default_tag()
                self._target.push(blobs, named.descriptor, [name])
            case "store":
                copy(blobs, named.descriptor, self._images.layout.blobs)
                self._images.tag(target.reference.with_default_tag(), named.descriptor)
            case "oci":
                verify(blobs, named.descriptor)
                _to_layout(target, blobs, named.descriptor)
            case "dir":
                verify(blobs, named.descriptor)
                from oci.directory import write_directory

                write_directory(target.path, named.descriptor, blobs)
            case _:
                _to_archive(target, blobs, named)


def _reference(text: str) -> Reference:
    try:
        return Reference.parse(text)
    except InvalidReference as error:
        raise UsageError(str(error), hint=f"or one of {': '.join(KINDS)}: before it") from None


def _one_platform(blobs: BlobStore, named: Named, platform: Platform, source: Place) -> Named:
    chosen = select(blobs, named.descriptor, platform)
    if chosen is None:
        offered = ", ".join(str(each.platform) for each in images(blobs, named.descriptor))
        raise NotFound(f"{source} has nothing for {platform}; there is {offered or 'no image'}")
    return Named(chosen, named.names)


def _from_layout(source: Place) -> tuple[BlobStore, Named]:
    from oci.layout import REF_NAME, Layout, name_of, without_names

    layout = Layout.open(source.path)
    entries = layout.descriptors()
    for entry in entries:
        if source.name in (entry.annotations.get(REF_NAME), name_of(entry), str(entry.digest)):
            return layout.blobs, Named(without_names(entry), _names(name_of(entry)))
    if source.name or len(entries) != 1:
        known = ", ".join(entry.annotations.get(REF_NAME) or str(entry.digest) for entry in entries)
        raise NotFound(f"{source}: which image? there is {known or 'none'}", hint="oci:DIR:TAG names one")
    return layout.blobs, Named(without_names(entries[0]), _names(name_of(entries[0])))


def _names(text: str) -> tuple[Reference, ...]:
    if "/" not in text and ":" not in text:  # a bare word is a tag of something unknown
        return ()
    try:
        return (Reference.parse(text).with_default_tag(),)
    except InvalidReference:
        return ()


def _chosen(found: Sequence[Named], source: Place) -> Named:
    """The one of an archive's images that is meant."""
    if not source.name and len(found) == 1:
        return found[0]
    for each in found:
        for name in each.names:
            if source.name and source.name in (str(name), name.familiar(), name.tag):
                return Named(each.descriptor, (name,))
    known = ", ".join(name.familiar() for each in found for name in each.names)
    raise NotFound(f"{source}: which image? there is {known or f'{len(found)} without a name'}")


def _opened(path: str) -> BinaryIO:
    if path == "-":
        return cast(BinaryIO, open(0, "rb", closefd=False))
    try:
        return open(path, "rb")
    except OSError as error:
        raise ContextError(f"{path}: {error.strerror}") from None


def _to_layout(target: Place, blobs: BlobStore, descriptor: Descriptor) -> None:
    from oci.layout import Layout

    fresh = not os.path.exists(os.path.join(target.path, "index.json"))
    layout = Layout.create(target.path, private=False) if fresh else Layout.open(target.path)
    copy(blobs, descriptor, layout.blobs)
    with layout.editing() as names:
        if target.name:
            names.set(target.name, descriptor)
        else:
            names.add(descriptor)


def _to_archive(target: Place, blobs: BlobStore, named: Named) -> None:
    from oci.archive import write_archive

    names = _names(target.name) if target.name else named.names
    docker = target.kind == "docker-archive"
    what = [Named(named.descriptor, tuple(name for name in names if not docker or name.tag))]
    if target.path == "-":
        sys.stdout.flush()
        write_archive(what, blobs, _STDOUT, docker=docker, platform=platforms.host())
        return
    from builder.export.archive import replacing

    if os.path.isdir(target.path):
        raise UsageError(f"{target}: {target.path} is a directory")
    with replacing(target.path) as fd:
        write_archive(what, blobs, fd, docker=docker, platform=platforms.host())
