"""A request becomes an image, and the image its outputs. The one module that knows all rooms."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict

from builder import assembling, entitlements, planning, space
from builder.delivering import Delivery
from builder.errors import BuildError, UsageError
from builder.events import Emit, Note, discard, stamp
from builder.export.base import exporter, refuse_nameless, refuse_several
from builder.finishing import Workplace
from builder.goals import goals
from builder.images import Images
from builder.inputs import Inputs
from builder.registries import Registries
from builder.request import BuildRequest, Built
from builder.secrets import Agent, Secrets, checked_agents
from builder.solver.cache import Cache
from builder.solver.execute import Executor
from builder.solver.solve import solve
from builder.state import StateDir, default_root
from oci.compress import codec

if TYPE_CHECKING:
    from builder.contexts.ahead import Ahead
    from builder.contexts.remote import Remotes
    from builder.sandbox.cgroup import Groups
    from builder.solver.failed import FailedStep

__all__ = ["BuildRequest", "Built", "build"]


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
    """
    if on_failure is not None and request.keep_going:
        raise UsageError("--on-failure and --keep-going cannot both be: one step is entered, when all ended")
    exporters = [exporter(spec) for spec in request.outputs]
    wanted = goals(request.targets, request.tags, outputs=request.outputs)
    index = planning.is_index(request)
    lent = _lent(request)
    for goal in wanted:
        if not goal.names:
            refuse_nameless(exporters)
    refuse_several(exporters, len(planning.targets(request.platforms)))
    with ExitStack() as stack:
        if request.timeout_s:
            from builder.deadline import deadline

            emit = stack.enter_context(deadline(request.timeout_s, emit))
        state = stack.enter_context(StateDir(request.root or default_root(), emit))
        stack.enter_context(space.told(state.root))
        lease = stack.enter_context(state.lease())
        images = Images(state)
        images.layout.blobs.clean()
        remotes = stack.enter_context(_remotes(request, images, state, lent, emit))
        registries = stack.enter_context(Registries(request.access, images, emit))
        inputs = stack.enter_context(Inputs(request, images, emit, remotes, registries, ahead))
        sources = (remotes, registries)
        keeps = on_failure is not None
        groups = _groups(request, stack, state, emit)
        executor = stack.enter_context(
            _executor(request, sources, lent, groups, state, images, inputs, emit, keeps)
        )
        if request.no_cache:
            executor.prepare()
        works = planning.works(request, wanted, inputs, emit)
        roots = planning.roots(request, works)
        lease.add(executor.recorded(roots))
        try:
            results = solve(
                roots,
                executor.perform,
                jobs=request.jobs or os.cpu_count() or 1,
                cancel=executor.cancel,
                keep_going=request.keep_going,
            )
        except BuildError as error:
            failed = executor.failed(error)
            if on_failure is not None and failed is not None:
                on_failure(failed)
            raise
        made = executor.everything_made()
        executor.settle()
        if exporters and not any(goal.names for goal in wanted) and _only_cached(request):
            return Built(None, None)
        place = Workplace(Cache(state.steps()), images.layout.blobs, codec("gzip", 1))
        products = [
            assembling.product(
                each, made, request.finish, images.layout.blobs, place, emit, clock=request.clock, index=index
            )
            for each in works
        ]
        found = {step.digest: result for step, result in zip(roots, results, strict=True)}
        delivery = Delivery(
            exporters,
            images,
            registries,
            lambda step: executor.rootfs(found[step.digest]),
            request.clock,
            emit,
        )
        sent = [delivery.export(each) for each in products]
        built = [delivery.named(each) for each in sent]
        if unbuilt := planning.skipped(works):
            emit(Note(f"stages not built: {', '.join(unbuilt)} (--target or --all-stages)", stamp()))
        targets = {work.plans[0].stage: each for work, each in zip(works, built, strict=True)}
        return replace(built[0], targets=targets) if len(built) > 1 else built[0]


class Lent(TypedDict):
    """What the user lends to steps and lets them have, checked."""

    secrets: Secrets
    agents: Mapping[str, Agent]
    allow: frozenset[str]


def _lent(request: BuildRequest) -> Lent:
    """Raises UsageError, before anything is built."""
    if request.ulimits:
        from builder.ulimits import check_ulimits

        check_ulimits(request.ulimits)
    allow = entitlements.granted(request.allow, request.network)
    if lacking := entitlements.missing("default", "sandbox", allow, options=request.security_opts):
        text = f"--security-opt {entitlements.UNFILTERED} is not allowed"
        raise UsageError(text, hint=f"allow it with --allow {lacking}")
    return Lent(
        secrets=Secrets(request.secrets),
        agents=checked_agents(request.ssh),
        allow=allow,
    )


def _remotes(request: BuildRequest, images: Images, state: StateDir, lent: Lent, emit: Emit) -> Remotes:
    from builder import config
    from builder.contexts.remote import Remotes

    agent = lent["agents"].get("default")
    return Remotes(
        images.layout.blobs,
        state.content(),
        secret=lent["secrets"].value,
        agent=agent.paths[0] if agent and len(agent.paths) == 1 else "",
        config=lambda: config.registries(request.access.config),
        offline=request.access.offline,
        emit=emit,
    )


def _groups(request: BuildRequest, stack: ExitStack, state: StateDir, emit: Emit) -> Groups | None:
    """What limits the steps; and what a killed build left of such is removed."""
    if request.limits is None and not os.path.isdir(state.cgroups):
        return None
    from builder.limiting import limited

    return stack.enter_context(limited(request.limits, state.cgroups, emit))


def _executor(
    request: BuildRequest,
    sources: tuple[Remotes, Registries],
    lent: Lent,
    groups: Groups | None,
    state: StateDir,
    images: Images,
    inputs: Inputs,
    emit: Emit,
    keeps_failed: bool,
) -> Executor:
    return Executor(
        state=state,
        blobs=images.layout.blobs,
        cache=Cache(state.steps()),
        trees=inputs.tree,
        remotes=sources[0],
        layers=sources[1],
        codec=codec("gzip", 1),
        clock=request.clock,
        emit=emit,
        groups=groups,
        keeps_failed=keeps_failed,
        **lent,
    )


def _only_cached(request: BuildRequest) -> bool:
    """Whether no image is asked for, only that its steps have run."""
    return all(spec.type == "cacheonly" for spec in request.outputs)
