"""A Dockerfile to a step graph: which stages are needed, what each is built on, its instructions in order.

    plan(source, options, resolve) -> Plan

Nothing here does I/O: `resolve` is handed in and finds images. Only the stages that the target needs are
lowered, and only their bases are resolved; syntax errors count wherever they are. Names of `FROM` and `COPY
--from` mean, first match wins: a named context, a stage, an image. The graph of stages is walked in the order
of the file, never recursively.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.errors import DockerfileError
from builder.events import Warning_
from builder.frontend import extensions, lower_config, lower_copy, lower_run, scope
from builder.frontend import instructions as ins
from builder.frontend.bases import Bases, Resolve
from builder.frontend.broken import broken
from builder.frontend.include import Part, parts
from builder.frontend.lint.linter import Linter
from builder.frontend.lint.rules import Finding
from builder.frontend.lint.scene import File, Walk
from builder.frontend.lint.settings import Settings
from builder.frontend.parser import parse, trigger
from builder.frontend.reader import read
from builder.frontend.stage import PlanOptions, Shared, StageBuild
from builder.frontend.stages import Graph, Node, Origin
from builder.frontend.words import Lexer
from builder.graph import Plan, Step
from oci.model import ImageConfig

if TYPE_CHECKING:
    from builder.frontend.reader import Document
    from builder.source import SourceFile, SourceRange
    from oci.image import Image
    from oci.model import Platform

__all__ = ["PlanOptions", "Resolve", "plan"]

_COUNTED = (ins.Run, ins.Copy, ins.Add, ins.Workdir)
"""The instructions that `[2/5]` counts, besides FROM of an image."""

_KNOWN_ARGS = ("BUILDKIT_", "SOURCE_DATE_EPOCH")
_SYNTAX_ARG = "BUILDKIT_SYNTAX"
_HOSTNAME_ARG = "BUILDKIT_SANDBOX_HOSTNAME"


def plan(source: SourceFile, options: PlanOptions, resolve: Resolve) -> Plan:
    """What `source` asks for, for one target and platform.

    `resolve(reference, platform, at)` gives an image for a full reference such as
    `docker.io/library/debian:12`. Raises DockerfileError, UsageError for a target that is no stage, and what
    `resolve` raises.
    """
    lowering = Lowering(source, options, resolve, lambda finding: options.warn(finding.warning()))
    target = lowering.graph.target(options.target)
    builds = lowering.lower(range(len(lowering.graph.nodes)) if options.every_stage else (target,))
    lowering.linter.finish()
    _warn_of_foreign_syntax(lowering.document, options)
    _warn_of_strangers(lowering.graph, options)
    _warn_of_unused(lowering.dockerfile, builds, options)
    return _finished(lowering.graph, builds, target, options)


class Lowering:
    """A Dockerfile that was read, checked as far as its text goes, and whose stages can be lowered.

    `tell` gets what the checks find; `is_known` says of an image whether it is a real one. Raises
    DockerfileError.
    """

    def __init__(
        self,
        source: SourceFile,
        options: PlanOptions,
        resolve: Resolve,
        tell: Callable[[Finding], None],
        is_known: Callable[[Image], bool] = lambda image: True,
        *,
        checking: bool = False,
    ) -> None:
        part, enabled = parts_of(source, options)
        self.document = part.whole()
        self.dockerfile = parse(self.document)
        options = replace(options, enable=enabled)
        shared = _shared(self.dockerfile, options)
        settings = Settings.of(self.document, shared.given)
        file = File.of(self.document, self.dockerfile, shared)
        self.linter = Linter(file, settings, tell, checking=checking)
        self.linter.check_file()
        self.graph = Graph(self.dockerfile, shared)
        self.bases = Bases(shared, resolve, self.graph.names())
        self._is_known = is_known

    def lower(self, targets: Iterable[int]) -> dict[int, StageBuild]:
        """The stages that `targets` need, checked, then built. Raises DockerfileError and what `resolve`
        raises.
        """
        needed = _needed(self.graph, self.bases, targets)
        self.linter.check_stages(Walk(self.graph, self.bases, self._is_known).moments(needed))
        try:
            builds: dict[int, StageBuild] = {}
            for index in needed:
                builds[index] = _stage(self.graph, self.bases, builds, self.graph.nodes[index])
            return builds
        finally:
            self.linter.check_bases(self.bases.resolved)


def _warn_of_strangers(graph: Graph, options: PlanOptions) -> None:
    """Tell of names in --no-cache-filter that are no stage's: they have no effect."""
    known = {name for node in graph.nodes for name in (node.stage.label, str(node.stage.index))}
    for name in sorted(options.no_cache_filter):
        if name.lower() not in known:
            options.warn(Warning_("NoSuchStage", f"--no-cache-filter {name}: there is no such stage"))


def parts_of(source: SourceFile, options: PlanOptions) -> tuple[Part, frozenset[str]]:
    """The Dockerfile with what it takes from files, and the extensions that count for it.

    Raises DockerfileError, and UsageError for an extension that does not exist.
    """
    document = read(source)
    enabled = extensions.enabled(document, options.enable)
    if not enabled:
        return Part(document), enabled
    start = scope.platform_args(options.build_platform, options.platform, "")
    del start["TARGETSTAGE"]  # the last stage may be one that a file brings
    return parts(document, enabled, options.read_file, _given(options), start), enabled


def global_arg(source: SourceFile, options: PlanOptions, name: str) -> str:
    """The value of an ARG before the first FROM; "" without one. Raises DockerfileError."""
    dockerfile = parse(parts_of(source, options)[0].whole())
    return _shared(dockerfile, options).global_args.get(name, "")


def _given(options: PlanOptions) -> dict[str, str]:
    """The build arguments, the clock among them."""
    given = dict(options.build_args)
    if options.clock is not None:
        given.setdefault(scope.CLOCK_ARG, str(options.clock))
    return given


def _shared(dockerfile: ins.Dockerfile, options: PlanOptions) -> Shared:
    lexer = Lexer(dockerfile.escape)
    target = options.target or dockerfile.stages[-1].head.name
    start = scope.platform_args(options.build_platform, options.platform, target)
    given = _given(options)
    if given.get(_HOSTNAME_ARG):
        options = replace(options, hostname=given[_HOSTNAME_ARG])
    values = scope.global_args(start, dockerfile.args, given, lexer)
    return Shared(options, lexer, given, values, scope.proxy_env(given))


def _needed(graph: Graph, bases: Bases, targets: Iterable[int]) -> list[int]:
    """The stages that `targets` need, in order. Triggers come first: what they copy from is needed too."""
    known: set[int] = set()
    targets = tuple(targets)
    while True:
        needed = graph.reachable(*targets)
        fresh = [index for index in needed if index not in known]
        if not fresh:
            return needed
        for index in fresh:
            graph.add_triggers(graph.nodes[index], _triggers(graph, bases, graph.nodes[index]))
        known.update(fresh)


def _platform(graph: Graph, node: Node) -> Platform:
    return node.platform or graph.shared.options.platform


def _triggers(graph: Graph, bases: Bases, node: Node) -> tuple[ins.Instruction, ...]:
    """The ONBUILD instructions that the base of `node` brings: an image's, or those of the stage it is built
    on.
    """
    if isinstance(node.base, int):
        below = graph.nodes[node.base].stage
        texts = [line.trigger for line in below.body if isinstance(line, ins.Onbuild)]
        name = below.label
    else:
        image = bases.image(node.base, _platform(graph, node), node.at)
        texts = list(image.config.value.config.on_build) if image is not None else []
        name = node.stage.head.base
        if graph.shared.options.leave_onbuild:
            return ()
        if texts and graph.shared.options.no_onbuild:
            raise _refused(name, texts, node)
    return tuple(trigger(text, f"ONBUILD of {name}", node.at) for text in texts)


def _refused(name: str, texts: Sequence[str], node: Node) -> DockerfileError:
    return broken(
        f"{name} brings ONBUILD instructions, which --no-onbuild refuses: {'; '.join(texts)[:500]}",
        at=node.at,
        hint="read them, and build without --no-onbuild if they may run",
    )


def _stage(graph: Graph, bases: Bases, builds: Mapping[int, StageBuild], node: Node) -> StageBuild:
    build = _start(graph, bases, builds, node)
    for number, line in enumerate(node.lines):
        build.onbuild = number < len(node.triggers)
        _lower(graph, bases, builds, build, line)
    return build


def _start(graph: Graph, bases: Bases, builds: Mapping[int, StageBuild], node: Node) -> StageBuild:
    """The stage as its FROM leaves it."""
    options = graph.shared.options
    head = node.stage.head
    wanted = {each.lower() for each in options.no_cache_filter}
    fresh = options.no_cache or bool({head.name, node.stage.label, str(node.stage.index)} & wanted)
    if isinstance(node.base, int):
        build = StageBuild.on(builds[node.base], node.at)
    else:
        build = bases.start(node.base, _platform(graph, node), node.at)
    build.fresh = fresh
    build.label = node.stage.label
    build.name = node.stage.label if graph.is_many() else ""
    build.total = sum(isinstance(line, _COUNTED) for line in node.lines)
    if not isinstance(node.base, int) and build.step.name:
        build.total += 1
        named = replace(build.step, name=build.numbered(build.step.name), stage=build.label)
        build.records = [
            replace(each, step=named) if each.step is build.step else each for each in build.records
        ]
        build.step = named
    return build


def _lower(
    graph: Graph, bases: Bases, builds: Mapping[int, StageBuild], build: StageBuild, line: ins.Instruction
) -> None:
    build.at = line.at
    match line:
        case ins.Run():
            lower_run.run(build, line, _mount_origins(graph, bases, builds, line))
        case ins.Copy():
            found = graph.origin(line)
            origin = _origin(graph, bases, builds, found, line.at, f"COPY --from={line.origin}")
            lower_copy.copy(build, line, origin)
        case ins.Add():
            lower_copy.add(build, line)
        case ins.From():
            raise broken("FROM cannot be an ONBUILD trigger", at=line.at)
        case _:
            lower_config.lower(build, line)


def _origin(
    graph: Graph,
    bases: Bases,
    builds: Mapping[int, StageBuild],
    origin: Origin | None,
    at: SourceRange,
    shown: str,
) -> Step | str:
    """What is read: a step, or the name of a directory (the main context has none)."""
    if origin is None:
        return ""
    if isinstance(origin, int):
        if origin not in builds:
            raise broken(
                f"{shown}: stage `{graph.nodes[origin].stage.label}` comes after this one",
                at=at,
                hint="a stage reads stages above it; move that stage up",
            )
        return builds[origin].step
    if not isinstance(origin, str) and origin.find is None:
        return origin.name
    return bases.step(origin, graph.shared.options.platform, at)


def _mount_origins(
    graph: Graph, bases: Bases, builds: Mapping[int, StageBuild], line: ins.Run
) -> tuple[Step | str, ...]:
    """What each mount of a RUN reads."""
    return tuple(
        _origin(
            graph, bases, builds, graph.mount_origin(each, line.at), line.at, f"--mount from={each.origin}"
        )
        for each in line.mounts
    )


def _warn_of_foreign_syntax(document: Document, options: PlanOptions) -> None:
    """`# syntax=` is never fetched or run; only one that names another language is worth a word."""
    for each in document.directives:
        if each.name == "syntax" and "dockerfile" not in each.value and _SYNTAX_ARG not in options.build_args:
            message = f"`# syntax={each.value[:80]}` is not used: the file is read as a Dockerfile"
            options.warn(Warning_("SyntaxNotUsed", message, str(each.at), each.at.excerpt()))


def _warn_of_unused(
    dockerfile: ins.Dockerfile, builds: Mapping[int, StageBuild], options: PlanOptions
) -> None:
    declared = {name for line in dockerfile.args for name, _ in line.args}
    for stage in dockerfile.stages:
        declared.update(name for line in stage.body if isinstance(line, ins.Arg) for name, _ in line.args)
    for build in builds.values():
        declared.update(build.variables.args)
    declared |= scope.PROXY_ARGS | scope.platform_args(options.platform, options.platform, "").keys()
    unused = [
        name for name in options.build_args if name not in declared and not name.startswith(_KNOWN_ARGS)
    ]
    if unused:
        names = " ".join(sorted(unused))
        message = f"[Warning] One or more build-args [{names}] were not consumed"
        options.warn(Warning_("UnusedBuildArgs", message))


def _finished(graph: Graph, builds: Mapping[int, StageBuild], target: int, options: PlanOptions) -> Plan:
    build = builds[target]
    build.config.labels.update(options.labels)
    platform = build.platform if options.platform_is_default and build.platform.os else options.platform
    config = ImageConfig(platform, build.config.run_config(), author=scope.clean(build.author))
    steps: dict[str, Step] = {}
    for index, each in builds.items():
        steps[str(index)] = each.step
        if graph.nodes[index].stage.head.name:
            steps[graph.nodes[index].stage.head.name] = each.step
    triggers = tuple(line.code for index in builds for line in graph.nodes[index].triggers)
    skipped = tuple(node.stage.label for index, node in enumerate(graph.nodes) if index not in builds)
    return Plan(
        build.step,
        config,
        platform,
        build.base,
        build.all_records(),
        triggers,
        steps,
        graph.nodes[target].stage.label,
        skipped,
    )
