"""What a Dockerfile offers to those who build it: its targets, and the parameters of one (FEATURES.md U02).

Descriptions are the comments right above (`comments.py`). No image is resolved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from builder.frontend import comments
from builder.frontend import instructions as ins
from builder.frontend.lower import Lowering
from builder.frontend.words import Lexer, WordError
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.frontend.reader import Document
    from builder.frontend.stage import PlanOptions
    from builder.source import SourceFile, SourceRange
    from oci.image import Image
    from oci.model import Platform


@dataclass(frozen=True, slots=True)
class Parameter:
    """A build argument, a secret, an ssh agent or a cache that a build uses. Only an argument has a value and
    a description; `required` says that a build without the secret or agent fails.
    """

    name: str
    at: SourceRange
    description: str = ""
    value: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class Outline:
    """One target and what it takes, its stages' parameters included, each where it is first defined."""

    source: SourceFile
    name: str
    description: str
    args: tuple[Parameter, ...]
    secrets: tuple[Parameter, ...]
    ssh: tuple[Parameter, ...]
    caches: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """A stage, as its FROM has it."""

    index: int
    name: str
    base: str
    platform: str
    description: str
    default: bool
    at: SourceRange


def targets(source: SourceFile, options: PlanOptions) -> tuple[Target, ...]:
    """All stages, in order. Raises DockerfileError."""
    lowering = _read(source, options)
    stages = lowering.dockerfile.stages
    return tuple(
        Target(
            stage.index,
            stage.head.name,
            stage.head.base,
            stage.head.platform,
            comments.description(lowering.document, stage.head.at, stage.head.name),
            stage is stages[-1],
            stage.head.at,
        )
        for stage in stages
    )


def outline(source: SourceFile, options: PlanOptions) -> Outline:
    """What the build of `options.target` takes. Raises DockerfileError, UsageError for what is no target."""
    lowering = _read(source, options)
    graph = lowering.graph
    index = graph.target(options.target)
    found = _Collector(lowering.document, graph.shared.given)
    found.add_global(lowering.dockerfile.args, graph.shared.global_args)
    for each in graph.reachable(index):
        found.add_stage(graph.nodes[each].stage)
    head = graph.nodes[index].stage.head
    description = comments.description(lowering.document, head.at, head.name)
    return Outline(
        source,
        head.name,
        description,
        found.used_args(),
        _ordered(found.secrets),
        _ordered(found.ssh),
        _ordered(found.caches),
    )


def _read(source: SourceFile, options: PlanOptions) -> Lowering:
    return Lowering(source, options, _no_images, lambda finding: None)


def _no_images(reference: str, platform: Platform, at: SourceRange) -> Image:
    raise AssertionError("an outline resolves nothing")


def _ordered(found: Mapping[str, Parameter]) -> tuple[Parameter, ...]:
    return tuple(sorted(found.values(), key=lambda each: each.at.order()))


@dataclass(slots=True)
class _Collector:
    """Gathers parameters; the first place that defines a name counts, a stage before the ARGs for FROM."""

    document: Document
    given: Mapping[str, str]
    args: dict[str, Parameter] = field(default_factory=dict)
    for_from: dict[str, Parameter] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    secrets: dict[str, Parameter] = field(default_factory=dict)
    ssh: dict[str, Parameter] = field(default_factory=dict)
    caches: dict[str, Parameter] = field(default_factory=dict)
    needs: dict[str, frozenset[str]] = field(default_factory=dict)

    def add_global(self, lines: tuple[ins.Arg, ...], values: Mapping[str, str]) -> None:
        """The ARGs before the first FROM: offered when a stage, a FROM or a default uses them."""
        for line in lines:
            for name, default in line.args:
                self.for_from[name] = self._parameter(name, line, values.get(name, ""))
                self.needs[name] = self._names(default or "")

    def add_stage(self, stage: ins.Stage) -> None:
        self._use(self._names(stage.head.base) | self._names(stage.head.platform))
        values: dict[str, str] = {name: each.value for name, each in self.for_from.items()}
        for line in stage.body:
            if isinstance(line, ins.Arg):
                self._declare(line, values)
            elif isinstance(line, ins.Run):
                for mount in line.mounts:
                    self._mount(dict(mount.options), line.at)

    def _declare(self, line: ins.Arg, values: dict[str, str]) -> None:
        for name, default in line.args:
            if default is not None or name not in self.for_from:
                values[name] = self.given.get(name, self._expanded(default or "", values))
                self.args.setdefault(name, self._parameter(name, line, values[name]))
            self._use(frozenset({name}))

    def _parameter(self, name: str, line: ins.Arg, value: str) -> Parameter:
        return Parameter(name, line.at, comments.description(self.document, line.at, name), value)

    def _mount(self, options: Mapping[str, str], at: SourceRange) -> None:
        kind = options.get("type", "bind")
        target = options.get("target", "")
        required = options.get("required", "false").lower() in ("", "true", "1")
        if kind == "secret":
            name = options.get("source") or options.get("id") or target.rpartition("/")[2]
            self.secrets.setdefault(name, Parameter(name, at, required=required))
        elif kind == "ssh":
            name = options.get("id") or "default"
            self.ssh.setdefault(name, Parameter(name, at, required=required))
        elif kind == "cache":
            name = options.get("id") or target
            self.caches.setdefault(name, Parameter(name, at))

    def _use(self, names: frozenset[str]) -> None:
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in self.used:
                self.used.add(name)
                waiting += self.needs.get(name, ())

    def used_args(self) -> tuple[Parameter, ...]:
        known = self.for_from | self.args
        return _ordered({name: each for name, each in known.items() if name in self.used})

    def _names(self, word: str) -> frozenset[str]:
        """The variables a word asks for."""
        try:
            return self._lexer().process(word, {}).missing
        except WordError:
            return frozenset()

    def _expanded(self, word: str, values: Mapping[str, str]) -> str:
        try:
            return self._lexer().expand(word, values)
        except WordError:
            return word

    def _lexer(self) -> Lexer:
        return Lexer(self.document.escape)
