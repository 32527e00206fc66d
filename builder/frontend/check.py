"""A Dockerfile tried without building: what the checks find, and what would stop the build before its first
step.

Every stage is looked at unless a target is named. A base that cannot be found stops nothing: a stand-in takes
its place, and the checks that would have to know it are silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.errors import BuildError, ContextError, DockerfileError, UsageError
from builder.frontend.lint.rules import Finding
from builder.frontend.lower import Lowering
from oci.data import dataclass
from oci.errors import OciError
from oci.image import Image
from oci.model import ImageConfig

if TYPE_CHECKING:
    from builder.frontend.bases import Resolve
    from builder.frontend.stage import PlanOptions
    from builder.source import SourceFile, SourceRange
    from oci.model import Platform


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found, in the order of the file. `error` is what would stop the build; `unknown` are the
    bases that could not be looked at.
    """

    source: SourceFile
    findings: tuple[Finding, ...]
    error: BuildError | None = None
    unknown: tuple[str, ...] = ()


def check(source: SourceFile, options: PlanOptions, resolve: Resolve) -> Report:
    """Try `source`. Raises UsageError for a target that is no stage."""
    findings: list[Finding] = []
    bases = _Lenient(resolve)
    error: BuildError | None = None
    try:
        lowering = Lowering(source, options, bases.resolve, findings.append, bases.is_known, checking=True)
        lowering.lower(_targets(lowering, options.target))
    except (DockerfileError, ContextError) as problem:
        error = problem
    ordered = sorted(findings, key=lambda each: each.at.order())
    return Report(source, tuple(ordered), error, tuple(bases.unknown))


def _targets(lowering: Lowering, name: str) -> Sequence[int]:
    return (lowering.graph.target(name),) if name else range(len(lowering.graph.nodes))


class _Lenient:
    """Finds images, and makes stand-ins for those that cannot be found."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._made: list[Image] = []
        self.unknown: dict[str, None] = {}

    def resolve(self, reference: str, platform: Platform, at: SourceRange) -> Image:
        try:
            return self._resolve(reference, platform, at)
        except (UsageError, DockerfileError):
            raise
        except (BuildError, OciError, OSError):
            self.unknown[reference] = None
            self._made.append(Image.of(ImageConfig(platform)))
            return self._made[-1]

    def is_known(self, image: Image) -> bool:
        return all(image is not each for each in self._made)
