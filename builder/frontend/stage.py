"""A stage under construction: its config, its variables, its steps and its lines of history.

The `lower_*` modules turn instructions into calls of this; nothing here knows an instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, TypeAlias

from builder.errors import ContextError
from builder.events import Warning_
from builder.frontend import scope
from builder.frontend.broken import broken
from builder.frontend.words import Lexer, WordError
from builder.graph import Network, Op, Record, Step
from oci.data import dataclass
from oci.model import RunConfig

if TYPE_CHECKING:
    from builder.patterns import IgnoreFile
    from builder.source import SourceRange
    from oci.image import Image
    from oci.model import Platform

MAX_WORK = 32 << 20
"""How many characters all environments and lines of history of one plan may have together."""


def _silent(_: Warning_) -> None:
    """Nobody listens."""


def _nothing_ignored() -> IgnoreFile | None:
    """There is no ignore file."""
    return None


ReadFile: TypeAlias = Callable[[str], tuple[str, bytes]]
"""A file of the context by its path: its real path, and its content. Raises ContextError."""


def _no_files(path: str) -> tuple[str, bytes]:
    """There is no context."""
    raise ContextError("there is no context to read it from")


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the command line says about a build, as far as it shapes the graph.

    `contexts` maps a named context to what finds its image, or to None when it is a directory;
    `name::platform` is for one platform. `clock` is the SOURCE_DATE_EPOCH or None; only whether there is one
    matters here. `platform_is_default` says that nobody asked for `platform`: the result then keeps the
    platform of its base. `show_platform` puts it into the names of steps. `every_stage` makes all stages part
    of the graph, needed or not. `allow` holds entitlements such as `network.host`. `no_cache_filter` names
    stages. `no_onbuild` refuses what base images bring of their own, `leave_onbuild` leaves it alone.
    `ignore` reads the context's ignore file when it is asked. `enable` names extensions (`extensions.py`),
    `read_file` gives them files of the context.
    """

    platform: Platform
    build_platform: Platform
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, Callable[[Platform], Image] | None] = field(default_factory=dict)
    platform_is_default: bool = True
    show_platform: bool = False
    every_stage: bool = False
    network: Network = "default"
    no_cache: bool = False
    no_cache_filter: frozenset[str] = frozenset()
    no_onbuild: bool = False
    leave_onbuild: bool = False
    allow: frozenset[str] = frozenset()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    hostname: str = "buildkitsandbox"
    shm_size: int = 64 << 20
    ulimits: tuple[tuple[str, int, int], ...] = ()
    security_opts: tuple[str, ...] = ()
    clock: int | None = None
    warn: Callable[[Warning_], None] = _silent
    ignore: Callable[[], IgnoreFile | None] = _nothing_ignored
    enable: frozenset[str] = frozenset()
    read_file: ReadFile = _no_files


@dataclass(slots=True)
class Budget:
    """A bound for what a plan may hold: variables times steps is quadratic, and a Dockerfile may come from
    anywhere.
    """

    left: int = MAX_WORK

    def spend(self, amount: int, at: SourceRange | None) -> None:
        self.left -= amount
        if self.left < 0:
            raise broken(
                "this Dockerfile's variables and steps multiply to more than can be planned",
                at=at,
                hint="fewer or shorter ARG and ENV values before the RUN instructions",
            )


@dataclass(frozen=True, slots=True)
class Shared:
    """What all stages of one plan have in common."""

    options: PlanOptions
    lexer: Lexer
    given: Mapping[str, str]
    global_args: Mapping[str, str]
    proxy_env: tuple[tuple[str, str], ...]
    budget: Budget = field(default_factory=Budget)


@dataclass(slots=True)
class StageBuild:
    """One stage being lowered. `records` holds its own lines of history; those of the stage it is built on
    stand in `parent`, so that a long chain of stages costs no copies.
    """

    shared: Shared
    platform: Platform
    step: Step
    config: scope.Draft
    variables: scope.Variables
    base: Image | None = None
    parent: StageBuild | None = None
    author: str = ""
    name: str = ""
    label: str = ""
    at: SourceRange | None = None
    fresh: bool = False
    onbuild: bool = False
    total: int = 0
    position: int = 0
    records: list[Record] = field(default_factory=list)
    cmd_set: bool = False

    @classmethod
    def on(cls, parent: StageBuild, at: SourceRange) -> StageBuild:
        """A stage built on another stage of the same Dockerfile."""
        parent.shared.budget.spend(parent.variables.weight, at)
        config = scope.Draft(parent.config.run_config())
        variables = scope.Variables.of(config.env, parent.variables)
        return cls(
            parent.shared, parent.platform, parent.step, config, variables, parent.base, parent, parent.author
        )

    @classmethod
    def of(
        cls, shared: Shared, step: Step, start: RunConfig, platform: Platform, image: Image | None
    ) -> StageBuild:
        """A stage built on an image (or on nothing)."""
        config = scope.Draft(start)
        if "PATH" not in config.env:
            config.env["PATH"] = scope.DEFAULT_PATH
        author = image.config.value.author if image is not None else ""
        variables = scope.Variables.of(config.env)
        return cls(shared, platform, step, config, variables, image, None, author)

    def spend(self, amount: int) -> None:
        """Account for what the current instruction adds to the plan. Raises DockerfileError."""
        self.shared.budget.spend(amount, self.at)

    @property
    def env(self) -> Mapping[str, str]:
        return self.variables.env

    def expand(self, word: str, at: SourceRange) -> str:
        """`word` expanded in this stage. Raises DockerfileError."""
        return scope.expand(self.shared.lexer, word, self.env, at)

    def split(self, word: str, at: SourceRange) -> tuple[str, ...]:
        """The same, split into words."""
        try:
            return self.shared.lexer.split(word, self.env)
        except WordError as error:
            raise scope.unreadable(word, error, at) from None

    def say(self, created_by: str, step: Step | None = None) -> None:
        """Add a line of history; with `step` it is the line of that step's layer."""
        self.spend(len(created_by))
        self.records.append(Record(scope.clean(created_by), step))

    def add(self, op: Op, name: str, at: SourceRange, *more: Step) -> Step:
        """Put a step on top; `more` are its other inputs."""
        self.step = Step(op, (self.step, *more), at, self.numbered(name), self.label, self.fresh)
        return self.step

    def numbered(self, name: str) -> str:
        """The line people see: `[build 2/5] RUN make`."""
        if not self.total:
            return name
        self.position += 1
        label = f"{self.name} " if self.name else ""
        if self.shared.options.show_platform:
            label = f"{scope.shown_platform(self.platform, self.env)} {label}"
        number = f"{self.position:>{len(str(self.total))}}/{self.total}"
        return f"[{label}{number}] {'ONBUILD ' * self.onbuild}{name}"

    def shown(self, code: str) -> str:
        """An instruction for people: its keyword in upper case, variables replaced where that works."""
        try:
            text = self.shared.lexer.expand(code, self.env)
        except WordError:
            text = code
        keyword, space, rest = text.partition(" ")
        return f"{keyword.upper()}{space}{rest}"

    def all_records(self) -> tuple[Record, ...]:
        """The whole history of this stage: that of the stages below it first."""
        chain = []
        stage: StageBuild | None = self
        while stage is not None:
            chain.append(stage.records)
            stage = stage.parent
        return tuple(record for records in reversed(chain) for record in records)
