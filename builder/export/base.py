"""What an export is: the finished image, what it is called, and where it shall go.

An exporter is a class with a `type` as `--output type=` names it; `exporter()` finds one. Options are
`key=value` pairs; an unknown key is an error, never silence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import field
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from builder.errors import UsageError
from oci import media_types
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.registries import Registries
    from builder.snapshot.view import View
    from oci.blobs import BlobStore
    from oci.model import Descriptor, Platform
    from oci.reference import Reference

_TRUE = frozenset({"1", "true", "t", "yes"})
_FALSE = frozenset({"0", "false", "f", "no"})
_EXAMPLE = "e.g. type=oci,dest=image.tar"
_PIPED = ("oci", "tar")


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One `--output`: its type, where it goes (`-` is stdout, empty is the type's default) and its other
    options.
    """

    type: str
    dest: str = ""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_stdout(self) -> bool:
        """Whether it goes to standard output, as archives without a dest do."""
        return self.dest == "-" or (not self.dest and self.type in _PIPED)

    @classmethod
    def parse(cls, text: str) -> OutputSpec:
        """Read `type=oci,dest=x.tar`, a path (a `local` output) or `-` (a `tar` on stdout), as buildx.

        A value with commas has quotes around it, as in CSV: `type=image,"name=a,b"`.
        """
        if text == "-":
            return cls("tar", "-")
        if "=" not in text:
            return cls("local", text)
        options: dict[str, str] = {}
        for part in _parts(text):
            key, sep, value = part.partition("=")
            if not sep or not key.strip():
                raise UsageError(
                    f"--output {text!r}: {part!r} is no key=value", hint="e.g. type=oci,dest=image.tar"
                )
            head, dot, tail = key.strip().partition(".")
            options[head.lower() + dot + tail] = value
        kind = options.pop("type", "")
        if not kind:
            raise UsageError(f"--output {text!r} has no type", hint=_EXAMPLE)
        return cls(kind, options.pop("dest", ""), options)

    def flag(self, name: str, default: bool) -> bool:
        """A boolean option."""
        value = self.options.get(name)
        if value is None:
            return default
        if value.lower() in _TRUE | _FALSE:
            return value.lower() in _TRUE
        raise UsageError(f"--output type={self.type}: {name}={value!r} is neither true nor false")


def _parts(text: str) -> list[str]:
    if '"' not in text:
        return text.split(",")
    import csv

    try:
        return next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration) as error:
        raise UsageError(f"--output {text!r}: {error}", hint='e.g. type=image,"name=a,b"') from None


@dataclass(frozen=True, slots=True)
class One:
    """The image of one platform. `view` opens its merged root (made only when an output wants files),
    `new_layers` counts the layers that this build made, from the top.
    """

    platform: Platform
    descriptor: Descriptor
    view: Callable[[], AbstractContextManager[View]]
    new_layers: int = 0


@dataclass(frozen=True, slots=True)
class Export:
    """A finished image on its way out.

    `descriptor` is its manifest in the store, or the index of its `images`; `names` is what it is called.
    `registries` are where images are pushed to and where missing layers come from. `folder` is the name of
    its stage when a build has several, and files of all go to one place.
    """

    descriptor: Descriptor
    names: tuple[str, ...]
    images: tuple[One, ...]
    clock: int | None = None
    registries: Registries | None = None
    folder: str = ""

    @property
    def is_index(self) -> bool:
        """Whether it is an index, be it of one image."""
        return self.descriptor.media_type in media_types.INDEXES

    def complete(self) -> None:
        """Have the layers of the base in the store, which may have been left where it came from."""
        if self.registries is not None:
            self.registries.complete(self.descriptor)


class Wish(NamedTuple):
    """What an output wants of the local store: whether to keep the image there, under which names besides
    those of `-t`; whether it was pushed, so that a base's layers need not be here; and whether its layers are
    to be unpacked there."""

    keep: bool = False
    names: tuple[Reference, ...] = ()
    pushed: bool = False
    unpack: bool = False


class Exporter(Protocol):
    """One class per output type."""

    def export(self, what: Export, blobs: BlobStore) -> str:
        """Write it out and return the line people see. Atomic: all of it, or no trace."""


@runtime_checkable
class Gathering(Protocol):
    """An output that takes all images of a build at once."""

    def export_all(self, whats: Sequence[Export], blobs: BlobStore) -> str:
        """Write them out and return the line people see."""


def wish(exporter: Exporter, descriptor: Descriptor) -> Wish:
    """What `exporter` wants of the local store for this image; nothing, but for images and registries."""
    ask = getattr(exporter, "wish", None)
    return ask(descriptor) if ask is not None else Wish()


def called(exporter: Exporter) -> tuple[str, ...]:
    """The names that `exporter` gives besides those of `-t`."""
    return tuple(getattr(exporter, "called", ()))


def refuse_nameless(exporters: Iterable[Exporter]) -> None:
    """Raise UsageError if one of these needs a name that the build does not have."""
    if any(getattr(each, "needs_name", False) for each in exporters):
        raise UsageError("there is no name to push to", hint="-t REGISTRY/NAME[:TAG], or name=... in -o")


def refuse_one_place(specs: Sequence[OutputSpec]) -> None:
    """Raise UsageError if two outputs would be written into each other: both to standard output, or to one
    file."""
    seen = set()
    for spec in specs:
        into_directory = spec.type == "local" or not spec.flag("tar", True)
        special = os.path.exists(spec.dest) and not os.path.isfile(spec.dest)
        if into_directory or not (spec.is_stdout or spec.dest) or special:
            continue
        place = "-" if spec.is_stdout else os.path.realpath(spec.dest)
        if place in seen:
            where = "standard output" if place == "-" else spec.dest
            raise UsageError(f"two outputs cannot both go to {where}", hint="give one of them another dest")
        seen.add(place)


def refuse_several(exporters: Iterable[Exporter], platforms: int) -> None:
    """Raise UsageError if one of these cannot take an image for so many platforms."""
    if platforms > 1 and any(getattr(each, "of_one_platform", False) for each in exporters):
        raise UsageError(
            f"--output type=docker holds an image for one platform, not for {platforms}",
            hint="use type=oci, or leave it out: the store holds them all, and `pybuild save` writes them",
        )


def exporter(spec: OutputSpec) -> Exporter:
    """The exporter that `spec` names. Raises UsageError for unknown types, unknown options, no `dest`."""
    from builder.export import archive, local

    match spec.type:
        case "docker" if not spec.dest:
            return exporter(_loaded(spec))
        case "oci" | "docker":
            return archive.ImageExporter.of(spec)
        case "tar":
            return local.TarExporter.of(spec)
        case "local":
            return local.LocalExporter.of(spec)
        case "cacheonly":
            return CacheOnly()
        case "image" | "registry":
            from builder.export.registry import RegistryExporter

            return RegistryExporter.of(spec)
    raise UsageError(
        f"--output type={spec.type} is unknown",
        hint="known types: image, registry, oci, docker, tar, local, cacheonly",
    )


def _loaded(spec: OutputSpec) -> OutputSpec:
    """`type=docker` without a dest: docker loads it, and here the store is where images are loaded."""
    if "context" in spec.options:
        raise UsageError(
            "--output type=docker: there is no docker behind a context= that could load it",
            hint="type=docker,dest=- writes what `docker --context NAME load` reads",
        )
    return OutputSpec("image", "", spec.options)


def dest_of(spec: OutputSpec) -> str:
    """Where an archive goes: standard output without a dest, but never a terminal. Raises UsageError."""
    if spec.is_stdout and os.isatty(1):
        raise UsageError(
            f"--output type={spec.type} would write an archive to the terminal",
            hint=f"type={spec.type},dest=image.tar, or a pipe",
        )
    return "-" if spec.is_stdout else spec.dest


def refuse_unknown(spec: OutputSpec, known: frozenset[str]) -> None:
    """Raise UsageError for an option that `spec`'s type does not have."""
    for name in spec.options:
        if name not in known:
            raise UsageError(
                f"--output type={spec.type} has no option {name!r}",
                hint=f"it has: dest, {', '.join(sorted(known))}",
            )


def refuse_missing_directory(spec: OutputSpec) -> None:
    """Raise UsageError unless the directory that shall hold `dest` exists: found before the build, not after
    it.
    """
    parent = os.path.dirname(os.path.abspath(spec.dest))
    if spec.dest != "-" and not os.path.isdir(parent):
        raise UsageError(f"--output type={spec.type}: the directory {parent!r} of dest does not exist")


@dataclass(frozen=True, slots=True)
class CacheOnly:
    """`type=cacheonly`: the steps run and are remembered; no image is stored."""

    def export(self, what: Export, blobs: BlobStore) -> str:
        return ""
