"""What stages are built on: scratch, images, named contexts. Each image is resolved once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from builder.errors import BuildError, NotFound, RegistryFailed
from builder.frontend.broken import broken
from builder.frontend.scope import DEFAULT_PATH
from builder.frontend.stage import Shared, StageBuild
from builder.frontend.stages import SCRATCH, Context
from builder.frontend.suggest import closest
from builder.graph import Base, ContextSource, Copy, Record, Scratch, Step
from oci.errors import InvalidReference
from oci.model import RunConfig
from oci.reference import Reference

if TYPE_CHECKING:
    from builder.source import SourceRange
    from oci.image import Image
    from oci.model import Platform

Resolve: TypeAlias = "Callable[[str, Platform, SourceRange], Image]"
"""Finds an image by its full reference."""


class Resolved(NamedTuple):
    """An image that was found: under which name, for which platform, and for which line."""

    name: str
    wanted: Platform
    image: Image
    at: SourceRange


class Bases:
    """Finds and remembers bases. `resolved` are the images that were looked for by name."""

    def __init__(self, shared: Shared, resolve: Resolve, stage_names: Iterable[str] = ()) -> None:
        self.shared = shared
        self._stage_names = tuple(stage_names)
        self._resolve = resolve
        self._images: dict[tuple[str, Platform], Image] = {}
        self.resolved: list[Resolved] = []

    def image(self, origin: Context | str, platform: Platform, at: SourceRange) -> Image | None:
        """The image `origin` means; None for scratch and for a directory."""
        if isinstance(origin, Context):
            return self._of_context(origin, platform, at) if origin.find else None
        if origin == SCRATCH:
            return None
        reference = self._reference(origin, at)
        key = (reference, platform)
        if key not in self._images:
            self._images[key] = self._found(origin, reference, platform, at)
            self.resolved.append(Resolved(origin, platform, self._images[key], at))
        return self._images[key]

    def _of_context(self, origin: Context, platform: Platform, at: SourceRange) -> Image:
        key = (f"{origin.name}=", platform)
        if key not in self._images:
            assert origin.find is not None
            try:
                self._images[key] = origin.find(platform)
            except BuildError as error:
                error.at = error.at or at
                raise
        return self._images[key]

    def _found(self, name: str, reference: str, platform: Platform, at: SourceRange) -> Image:
        try:
            return self._resolve(reference, platform, at)
        except (NotFound, RegistryFailed) as error:
            stage = closest(name, self._stage_names)
            if stage:
                error.hint = f"did you mean the stage {stage}? {error.hint}".rstrip()
            raise

    def _reference(self, name: str, at: SourceRange) -> str:
        try:
            return str(Reference.parse(name).with_default_tag())
        except InvalidReference as error:
            raise broken(
                f"`{name}` is neither a stage before this line nor an image's name: {error}", at=at
            ) from None

    def start(self, origin: Context | str, platform: Platform, at: SourceRange) -> StageBuild:
        """A stage that begins with `origin`; its step's name is set by `head`."""
        image = self.image(origin, platform, at)
        step = self.step(origin, platform, at)
        if image is None:
            config = RunConfig(env=(f"PATH={DEFAULT_PATH}",), working_dir="/")
            build = StageBuild.of(self.shared, step, config, platform, None)
            if isinstance(origin, Context):
                build.records.append(Record(f"FROM {origin.name}", step, "buildkit.exporter.image.v0"))
            return build
        found = image.config.value.platform
        return StageBuild.of(self.shared, step, image.config.value.config, found, image)

    def step(self, origin: Context | str, platform: Platform, at: SourceRange, prefix: str = "") -> Step:
        """The files of `origin`, as a step called `<prefix>FROM <name>`."""
        image = self.image(origin, platform, at)
        if isinstance(origin, Context):
            name = origin.name
            if image is None:
                copy = Copy((ContextSource((".",), name),), "/", into_directory=True)
                return Step(copy, (Step(Scratch()),), at, f"{prefix}FROM {name}")
        elif image is None:
            return Step(Scratch(), (), at)
        else:
            name = self._reference(origin, at)
        if not image.config.value.diff_ids:
            return Step(Scratch(), (), at)
        return Step(Base(name, image), (), at, f"{prefix}FROM {name}")
