"""Questions about a Dockerfile that no step has to run for: `--check` and `--call`.

No image has to be there, and no store: where there is none, none is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.errors import NotFound
from builder.events import Emit, discard
from builder.images import Images
from builder.inputs import Inputs
from builder.planning import plan_options
from builder.request import BuildRequest
from builder.state import StateDir, default_root
from oci import platforms
from oci.errors import OciError

if TYPE_CHECKING:
    from builder.frontend.check import Report
    from builder.frontend.outline import Outline, Target
    from builder.source import SourceFile


def check(request: BuildRequest, emit: Emit = discard) -> Report:
    """What the checks find in the Dockerfile of `request`, and what would stop its build before it begins.

    Raises UsageError and ContextError for a request that names what is not there.
    """
    from builder.frontend.check import check as check_source

    with _store(request, emit) as images:
        request = _without_unknown(request, images, emit)
        with Inputs(request, images, emit) as inputs:
            return check_source(inputs.dockerfile(), plan_options(request, inputs, emit), inputs.resolve)


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


def expanded(request: BuildRequest) -> str:
    """The Dockerfile of `request` without pybuild's extensions, for any builder. Raises DockerfileError."""
    from builder.frontend.plain import plain

    request = replace(request, contexts={})
    with Inputs(request, None, discard) as inputs:
        return plain(inputs.dockerfile(), plan_options(request, inputs, discard))


@contextmanager
def _store(request: BuildRequest, emit: Emit) -> Iterator[Images | None]:
    root = request.root or default_root()
    if not os.path.exists(os.path.join(root, "oci-layout")):
        yield None
        return
    with StateDir(root, emit) as state:
        yield Images(state)


def _without_unknown(request: BuildRequest, images: Images | None, emit: Emit) -> BuildRequest:
    """`request` with those named contexts that can be had: an image that is not here is like any base."""
    contexts = dict(request.contexts)
    for name, value in request.contexts.items():
        with Inputs(replace(request, contexts={name: value}), images, emit) as one:
            try:
                for found in one.named().values():
                    if found is not None:
                        found(platforms.host())
            except (NotFound, OciError):
                del contexts[name]
    return replace(request, contexts=contexts)
