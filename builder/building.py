"""A request becomes an image, and the image its outputs. The one module that knows all rooms."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from builder import assembling, planning
from builder.delivering import Delivery
from builder.errors import BuildError, UsageError
from builder.events import Emit, Note, Warning_, discard, stamp
from builder.export.base import exporter, refuse_nameless, refuse_one_place, refuse_several
from builder.finishing import Workplace
from builder.goals import goals
from builder.request import BuildRequest, Built
from builder.site import Site, lent, opened
from builder.solver.cache import Cache
from builder.solver.solve import solve
from builder.state import default_root
from oci.compress import codec
from oci.errors import OciError

if TYPE_CHECKING:
    from builder.contexts.ahead import Ahead
    from builder.graph import Step
    from builder.solver.failed import FailedStep
    from builder.solver.result import Result
    from oci.image import Image

__all__ = ["BuildRequest", "Built", "build"]

_REF = "pybuild/local"
"""In front of a build's name: buildx has its builder and its node there."""


def build(
    request: BuildRequest,
    emit: Emit = discard,
    ahead: Ahead | None = None,
    *,
    on_failure: Callable[[FailedStep], None] | None = None,
) -> Built:
    """Build `request`. Raises BuildError and OciError; then no name, output or record is half written.

    `ahead` may be listing the context already (`builder.contexts.ahead`). When a RUN fails, `on_failure` may
    look around in it, in the calling thread, before its error is raised: all else has ended by then. Not
    with `keep_going`.

    A blob of the store that turns out damaged is put aside, and all is tried once more (R16): what it held is
    fetched or made again.
    """
    try:
        return _built(request, emit, ahead, on_failure=on_failure)
    except (BuildError, OciError) as error:
        if not _healed(request, emit, error):
            raise
    return _built(request, emit, None, on_failure=on_failure)


def _healed(request: BuildRequest, emit: Emit, error: Exception) -> bool:
    """Whether a damaged blob was the reason, and trying again makes sense."""
    from builder.healing import damaged, put_aside
    from builder.images import Images
    from builder.registries import Registries
    from builder.state import StateDir

    if damaged(error) is None:
        return False
    with StateDir(request.root or default_root(), emit) as state, state.lease():
        images = Images(state)
        with Registries(request.access, images, emit) as registries:
            aside = put_aside(images, error, registries)
    if aside is None:
        return False
    emit(Warning_("Damaged", f"the blob {aside.digest} was damaged and is put aside; once more, without it"))
    return request.stdin is None


def _built(
    request: BuildRequest,
    emit: Emit,
    ahead: Ahead | None,
    *,
    on_failure: Callable[[FailedStep], None] | None,
) -> Built:
    """One attempt."""
    if on_failure is not None and request.keep_going:
        raise UsageError("--on-failure and --keep-going cannot both be: one step is entered, when all ended")
    exporters = [exporter(spec) for spec in request.outputs]
    refuse_one_place(request.outputs)
    wanted = goals(request.targets, request.tags, outputs=request.outputs)
    index = planning.is_index(request)
    lending = lent(request)
    for goal in wanted:
        if not goal.names:
            refuse_nameless(exporters)
    refuse_several(exporters, len(planning.targets(request.platforms)))
    if any(spec.type == "local" for spec in request.outputs):
        from builder.export.local import refuse_deletion

        named = (request.context, request.dockerfile, request.ignorefile, *request.contexts.values())
        refuse_deletion(exporters, request.allow, (request.root or default_root(), *named))
    with ExitStack() as stack:
        if request.timeout_s:
            from builder.deadline import deadline

            emit = stack.enter_context(deadline(request.timeout_s, emit))
        keeps = on_failure is not None
        site = stack.enter_context(opened(request, lending, emit, ahead, keeps_failed=keeps))
        request = site.request
        if request.no_cache:
            site.executor.prepare()
        works = planning.works(request, wanted, site.inputs, emit)
        for text in planning.triggers(works):
            emit(Note(f"ONBUILD of a base: {text}", stamp()))
        results = _solved(request, site, planning.roots(request, works), on_failure)
        made = site.executor.everything_made()
        site.executor.settle()
        ref = f"{_REF}/{site.name}"
        if exporters and not any(goal.names for goal in wanted) and _only_cached(request):
            return Built(None, None, ref=ref)
        blobs = site.images.layout.blobs
        place = Workplace(Cache(site.state.steps()), blobs, codec("gzip", 1))
        products = [
            assembling.product(
                each, made, request.finish, blobs, place, emit, clock=request.clock, index=index
            )
            for each in works
        ]
        delivery = Delivery(
            exporters,
            site.images,
            site.registries,
            lambda step: site.executor.rootfs(results[step.digest]),
            request.clock,
            emit,
            partial(_unpacked, site, emit),
        )
        built = [replace(delivery.named(each), ref=ref) for each in delivery.export(products)]
        if unbuilt := planning.skipped(works):
            emit(Note(f"stages not built: {', '.join(unbuilt)} (--target or --all-stages)", stamp()))
        targets = {work.plans[0].stage: each for work, each in zip(works, built, strict=True)}
        return replace(built[0], targets=targets) if len(built) > 1 else built[0]


def _solved(
    request: BuildRequest, site: Site, roots: Sequence[Step], on_failure: Callable[[FailedStep], None] | None
) -> dict[str, Result]:
    """The results of steps, by their digests. Raises what the first failing one raised."""
    site.lease.add(site.executor.recorded(roots))
    try:
        found = solve(
            roots,
            site.executor.perform,
            jobs=request.jobs or os.cpu_count() or 1,
            cancel=site.executor.cancel,
            keep_going=request.keep_going,
        )
    except BuildError as error:
        failed = site.executor.failed(error)
        if on_failure is not None and failed is not None:
            on_failure(failed)
        raise
    return {step.digest: result for step, result in zip(roots, found, strict=True)}


def _unpacked(site: Site, emit: Emit, image: Image) -> None:
    """Make directories of an image's layers, for what runs on it to find."""
    from builder.container.unpack import unpack
    from builder.isolation import current

    if not current().unpacks:
        text = "unpack=true: files cannot be given their owners here, so the first who runs in it unpacks it"
        emit(Warning_("Unpack", text))
        return
    unpack(image, site.state, site.images.layout.blobs, site.registries.fetcher(image))


def _only_cached(request: BuildRequest) -> bool:
    """Whether no image is asked for, only that its steps have run."""
    return all(spec.type == "cacheonly" for spec in request.outputs)
