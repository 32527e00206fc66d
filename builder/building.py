"""A request becomes an image, and the image its outputs. The one module that knows all rooms."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import field, replace
from typing import TYPE_CHECKING, BinaryIO, TypedDict

from builder import entitlements, origins
from builder.errors import StepFailed, UsageError
from builder.events import Emit, Exported, Warning_, discard, stamp
from builder.export.base import Export, Exporter, OutputSpec, exporter, refuse_nameless, wish
from builder.finishing import Finish, Workplace, finish, pointer
from builder.graph import Network, Plan, Record
from builder.images import Images
from builder.inputs import Inputs
from builder.registries import Access, Registries
from builder.secrets import Agent, Secret, Secrets, checked_agents
from builder.solver.cache import Cache, at_clock
from builder.solver.execute import Executor
from builder.solver.result import Made
from builder.solver.solve import solve
from builder.state import StateDir, default_root
from oci import platforms
from oci.compress import codec
from oci.data import dataclass
from oci.image import Image
from oci.model import Descriptor, History, ImageConfig
from oci.reference import Reference

if TYPE_CHECKING:
    from builder.contexts.ahead import Ahead
    from builder.contexts.remote import Remotes
    from builder.frontend.lower import PlanOptions
    from builder.solver.failed import FailedStep
    from oci.digest import Digest
    from oci.model import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """All that a build depends on, as `docker build` names it. Nothing else (no environment) is read.

    `context` is a directory, the URL of a git repository, of an archive or of a Dockerfile, or `-` for
    `stdin`, which holds an archive or a Dockerfile. `dockerfile` is a path or a URL, empty for `Dockerfile`
    in the context, `-` for `dockerfile_text`. `ignorefile` is used in place of `.dockerignore`. `contexts`
    are named ones: any of these, or `docker-image://NAME`, or `oci-layout://PATH`. `pull` asks registries for
    every base, whatever the store has; `access` says how they are reached (with its usual credential files).
    `clock` is the moment, in seconds since 1970, that layers, config and history carry. `jobs` 0 is one per
    core. `secrets` and `ssh` are lent to the steps that mount them and are part of no key. `enable` names
    extensions of the language (`frontend.extensions`). `finish` is what is still changed of the image when
    its steps are done.
    """

    context: str = "."
    dockerfile: str = ""
    dockerfile_text: bytes = b""
    stdin: BinaryIO | None = None
    ignorefile: str = ""
    tags: tuple[str, ...] = ()
    outputs: tuple[OutputSpec, ...] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    no_cache: bool = False
    no_cache_filter: frozenset[str] = frozenset()
    contexts: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    platform: str = ""
    network: Network = "default"
    extra_hosts: tuple[tuple[str, str], ...] = ()
    allow: frozenset[str] = frozenset()
    enable: frozenset[str] = frozenset()
    secrets: tuple[Secret, ...] = ()
    ssh: tuple[Agent, ...] = ()
    shm_size: int = 64 << 20
    ulimits: tuple[tuple[str, int, int], ...] = ()
    clock: int | None = None
    jobs: int = 0
    keep_going: bool = False
    finish: Finish = field(default_factory=Finish)
    pull: bool = False
    access: Access = field(default_factory=Access)
    root: str = ""


@dataclass(frozen=True, slots=True)
class Built:
    """What came out. `image_id` and `descriptor` are None when no image was asked for (`type=cacheonly`
    alone). `descriptor` is what was pushed, which may be compressed otherwise than the image of the store.
    """

    image_id: Digest | None
    descriptor: Descriptor | None
    names: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


def build(
    request: BuildRequest,
    emit: Emit = discard,
    ahead: Ahead | None = None,
    *,
    on_failure: Callable[[FailedStep], None] | None = None,
) -> Built:
    """Build `request`. Raises BuildError and OciError; then no name, output or record is half written.

    `ahead` may be listing the context already (`builder.contexts.ahead`). When a RUN fails, `on_failure` may
    look around in it, in the calling thread, before StepFailed is raised: all else has ended by then. Not
    with `keep_going`.
    """
    if on_failure is not None and request.keep_going:
        raise UsageError("--on-failure and --keep-going cannot both be: one step is entered, when all ended")
    exporters = [exporter(spec) for spec in request.outputs]
    names = tuple(_name(tag) for tag in request.tags)
    lent = _lent(request)
    if not names:
        refuse_nameless(exporters)
    with ExitStack() as stack:
        state = stack.enter_context(StateDir(request.root or default_root(), emit))
        lease = stack.enter_context(state.lease())
        images = Images(state)
        images.layout.blobs.clean()
        remotes = stack.enter_context(_remotes(request, images, state, lent, emit))
        registries = stack.enter_context(Registries(request.access, images, emit))
        inputs = stack.enter_context(Inputs(request, images, emit, remotes, registries, ahead))
        sources = (remotes, registries)
        keeps = on_failure is not None
        executor = stack.enter_context(_executor(request, sources, lent, state, images, inputs, emit, keeps))
        if request.no_cache:
            executor.prepare()
        plan = _plan(request, inputs, emit)
        lease.add(executor.recorded(plan.target))
        try:
            result = solve(
                plan.target,
                executor.perform,
                jobs=request.jobs or os.cpu_count() or 1,
                cancel=executor.cancel,
                keep_going=request.keep_going,
            )
        except StepFailed as error:
            failed = executor.failed(error)
            if on_failure is not None and failed is not None:
                on_failure(failed)
            raise
        made = executor.everything_made()
        executor.settle()
        if exporters and not names and all(spec.type == "cacheonly" for spec in request.outputs):
            return Built(None, None)
        image = _finished(assemble(plan, made, request.clock), request, plan, state, images, emit)
        descriptor = pointer(image.write(images.layout.blobs), request.finish)
        shown = tuple(str(name) for name in names)
        layers = len(image.layers) - (len(plan.base.layers) if plan.base else 0)
        export = Export(descriptor, shown, lambda: executor.rootfs(result), layers, request.clock, registries)
        lines = _write_outputs(exporters, export, images, emit)
        wishes = [wish(each, descriptor) for each in exporters]
        names = (*names, *(name for each in wishes for name in each.names))
        kept = not exporters or any(each.keep for each in wishes)
        if (names or kept) and not any(each.pushed for each in wishes):
            registries.complete(descriptor)
        facts = {**_origins(images, plan.base), **registries.pushed(descriptor.digest)}
        _name_it(images, names, descriptor, kept, facts)
        for name in names:
            emit(Exported(f"naming to {name}", stamp()))
        return Built(image.id, registries.shipped or descriptor, shown, lines)


def _finished(
    image: Image, request: BuildRequest, plan: Plan, state: StateDir, images: Images, emit: Emit
) -> Image:
    """`image` with what the request still changes of it."""
    below = len(plan.base.layers) if plan.base else 0
    work = Workplace(Cache(state.steps()), images.layout.blobs, codec("gzip", 1))
    return finish(image, request.finish, below, work, lambda text: emit(Warning_("NothingToUnset", text)))


def assemble(plan: Plan, made: Mapping[str, Made], clock: int | None) -> Image:
    """The image of a plan whose steps are done: the base, then a layer and a history line per record.

    With a clock every new line carries it. Without one a line has the moment its step first ran; those
    between carry that of the line before (BuildKit's rule): a fully cached build gives the same bytes.
    """
    base = plan.base.config.value if plan.base else ImageConfig(plan.platform)
    rows = [(record, _created(record, made, clock)) for record in plan.records]
    created = base.history[-1].created if base.history else base.created
    created = next((moment for _, moment in rows if moment), created)
    history, layers, diff_ids = (
        list(base.history),
        list(plan.base.layers if plan.base else ()),
        list(base.diff_ids),
    )
    for record, moment in rows:
        created = moment or created
        layer = made[record.step.digest].layer.result() if record.step else None
        history.append(History(created, record.created_by, "", record.comment, layer is None))
        if layer is not None:
            layers.append(Descriptor(layer.media_type, layer.digest, layer.size))
            diff_ids.append(layer.diff_id)
    config = replace(plan.config, created=created, diff_ids=tuple(diff_ids), history=tuple(history))
    return Image.of(config, tuple(layers))


def _created(record: Record, made: Mapping[str, Made], clock: int | None) -> str:
    if clock is not None:
        return at_clock(clock)
    return made[record.step.digest].created if record.step else ""


def _name(tag: str) -> Reference:
    name = Reference.parse(tag)
    if name.digest is not None:
        raise UsageError(f"-t {tag}: a digest is its content and cannot be given as a name")
    return name.with_default_tag()


def _platform(request: BuildRequest) -> Platform:
    return platforms.parse(request.platform) if request.platform else platforms.host()


def _plan(request: BuildRequest, inputs: Inputs, emit: Emit) -> Plan:
    from builder.frontend.lower import plan

    return plan(inputs.dockerfile(), plan_options(request, inputs, emit), inputs.resolve)


def plan_options(request: BuildRequest, inputs: Inputs, emit: Emit) -> PlanOptions:
    """What of a request shapes the graph. Raises BuildError for named contexts that are not there."""
    from builder.frontend.lower import PlanOptions

    return PlanOptions(
        target=request.target,
        build_args=request.build_args,
        platform=_platform(request),
        platform_is_default=not request.platform,
        build_platform=platforms.host(),
        labels=request.labels,
        contexts=inputs.named(),
        network=request.network,
        no_cache=request.no_cache,
        no_cache_filter=request.no_cache_filter,
        allow=request.allow,
        extra_hosts=request.extra_hosts,
        shm_size=request.shm_size,
        ulimits=request.ulimits,
        clock=request.clock,
        warn=emit,
        ignore=inputs.ignore,
        enable=request.enable,
        read_file=inputs.read_file,
    )


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
    return Lent(
        secrets=Secrets(request.secrets),
        agents=checked_agents(request.ssh),
        allow=entitlements.granted(request.allow, request.network),
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


def _executor(
    request: BuildRequest,
    sources: tuple[Remotes, Registries],
    lent: Lent,
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
        keeps_failed=keeps_failed,
        **lent,
    )


def _write_outputs(exporters: list[Exporter], export: Export, images: Images, emit: Emit) -> tuple[str, ...]:
    lines = []
    for each in exporters:
        try:
            line = each.export(export, images.layout.blobs)
        except OSError as error:
            raise _export_error(error) from error
        if line:
            lines.append(line)
            emit(Exported(line, stamp()))
    return tuple(lines)


def _export_error(error: OSError) -> Exception:
    from builder.errors import ExportError

    return ExportError(f"an output could not be written: {error}")


def _name_it(
    images: Images,
    names: tuple[Reference, ...],
    descriptor: Descriptor,
    kept: bool,
    facts: Mapping[str, str],
) -> None:
    for name in names:
        if name.digest is None:
            images.tag(name, descriptor, facts)
        else:
            images.pulled(name, descriptor, facts)
    if not names and kept:
        images.keep(descriptor, facts)


def _origins(images: Images, base: Image | None) -> Mapping[str, str]:
    """What to remember of an image on `base`: where the base's layers are to be had."""
    if base is None or not base.layers:
        return {}
    found = origins.origins(images.layout, base.manifest.digest)
    return origins.facts(*origins.of_base(found, len(base.layers)))
