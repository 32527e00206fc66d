"""Questions about a Dockerfile that no step has to run for: `--check` and `--call`.

No image has to be there, and no store: where there is none, none is made. What registries tell of bases is
kept for as long as the question takes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.errors import NotFound, RegistryFailed
from builder.events import Emit, discard
from builder.images import Images
from builder.inputs import Inputs
from builder.planning import plan_options
from builder.request import BuildRequest
from builder.state import StateDir, default_root
from oci import platforms
from oci.errors import OciError, RegistryError
from oci.reference import Reference

if TYPE_CHECKING:
    from builder.frontend.check import Report
    from builder.frontend.outline import Outline, Target
    from builder.registries import Access, Registries
    from builder.source import SourceFile, SourceRange
    from oci.image import Image
    from oci.model import Platform


def check(request: BuildRequest, emit: Emit = discard) -> Report:
    """What the checks find in the Dockerfile of `request`, and what would stop its build before it begins.

    Raises UsageError and ContextError for a request that names what is not there.
    """
    from builder.frontend.check import check as check_source

    with _store(request, emit) as images, Looking(request.access, emit) as looking:
        request = _without_unknown(request, images, looking, emit)
        with Inputs(request, images, emit, registries=looking) as inputs:

            def resolve(name: str, platform: Platform, at: SourceRange | None) -> Image:
                if images is None:
                    return looking.image(Reference.parse(name), platform)
                return inputs.resolve(name, platform, at)

            return check_source(inputs.dockerfile(), plan_options(request, inputs, emit), resolve)


def outline(request: BuildRequest) -> Outline:
    """What the target of `request` takes. Raises DockerfileError, and UsageError for what is no target."""
    from builder.frontend.outline import outline as outline_source

    request = replace(request, contexts={})
    with Inputs(request, None, discard) as inputs:
        return outline_source(inputs.dockerfile(), plan_options(request, inputs, discard))


def targets(request: BuildRequest) -> tuple[SourceFile, tuple[Target, ...]]:
    """The Dockerfile of `request` and its stages. Raises DockerfileError."""
    from builder.frontend.outline import targets as targets_of

    request = replace(request, contexts={})
    with Inputs(request, None, discard) as inputs:
        source = inputs.dockerfile()
        return source, targets_of(source, plan_options(request, inputs, discard))


def expanded(request: BuildRequest, emit: Emit = discard) -> str:
    """The Dockerfile of `request` without pybuild's extensions, for any builder; a warning tells of what
    had to stay. Raises DockerfileError."""
    from builder.frontend.plain import plain

    request = replace(request, contexts={})
    with Inputs(request, None, discard) as inputs:
        return plain(inputs.dockerfile(), plan_options(request, inputs, emit))


class Looking:
    """Registries that are asked for manifests and configs of bases, and for nothing else. Use it in `with`.

    A check is not worth a long wait: attempts are few, and who could not be reached is not asked again.
    """

    def __init__(self, access: Access, emit: Emit) -> None:
        self.access = access
        self._emit = emit
        self._exit = ExitStack()
        self._registries: Registries | None = None
        self._silent: dict[str, RegistryFailed] = {}

    def __enter__(self) -> Looking:
        return self

    def __exit__(self, *exc: object) -> None:
        self._exit.close()

    def image(self, reference: Reference, platform: Platform) -> Image:
        """The image that a name means for `platform`. Raises RegistryFailed, NotFound when offline."""
        if (known := self._silent.get(reference.domain)) is not None:
            raise RegistryFailed(str(known))
        try:
            return self._asked().image(reference, platform)
        except RegistryFailed as error:
            if _silent(error.__cause__):
                self._silent[reference.domain] = error
            raise

    def _asked(self) -> Registries:
        if self._registries is None:
            from tempfile import TemporaryDirectory

            from builder.registries import Registries
            from oci.registry.patience import Patience

            place = self._exit.enter_context(TemporaryDirectory(prefix="pybuild-"))
            state = self._exit.enter_context(StateDir(place, self._emit))
            hurried = Patience(attempts=2, first=0.5, total=3.0, connect=5.0, answer=15.0)
            made = Registries(self.access, Images(state), self._emit, hurried)
            self._registries = self._exit.enter_context(made)
        return self._registries


@contextmanager
def _store(request: BuildRequest, emit: Emit) -> Iterator[Images | None]:
    root = request.root or default_root()
    if not os.path.exists(os.path.join(root, "oci-layout")):
        yield None
        return
    with StateDir(root, emit) as state:
        yield Images(state)


def _without_unknown(
    request: BuildRequest, images: Images | None, looking: Looking, emit: Emit
) -> BuildRequest:
    """`request` with those named contexts that can be had: an image that is not here is like any base."""
    contexts = dict(request.contexts)
    for name, value in request.contexts.items():
        with Inputs(replace(request, contexts={name: value}), images, emit, registries=looking) as one:
            try:
                for found in one.named().values():
                    if found is not None:
                        found(platforms.host())
            except (NotFound, RegistryFailed, OciError):
                del contexts[name]
    return replace(request, contexts=contexts)


def _silent(error: BaseException | None) -> bool:
    """Whether a registry did not answer, rather than say no."""
    return isinstance(error, RegistryError) and not 400 <= error.status < 429
