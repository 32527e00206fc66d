"""What the rules look at: a file as it was read, and a stage at the moment an instruction is reached.

The walk expands only what it must know (ENV, ARG), with a Lexer of its own. Where something cannot be read it
goes on: the error is for the lowering to raise. It is bounded as the lowering is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, TypeVar

from builder.errors import DockerfileError
from builder.frontend import instructions as ins
from builder.frontend import scope
from builder.frontend.flags import split_flags
from builder.frontend.line import BLANKS
from builder.frontend.stage import MAX_WORK
from builder.frontend.words import Expansion, Lexer, WordError
from oci.data import dataclass
from oci.model import RunConfig

if TYPE_CHECKING:
    from builder.frontend.bases import Bases
    from builder.frontend.reader import Document
    from builder.frontend.stage import Shared
    from builder.frontend.stages import Graph, Node
    from oci.image import Image

_KEYWORD = re.compile(r"[^\t\v\f\r ]+")
_WHOLE_CONTEXT = frozenset({".", "./", "/"})
_NOTHING = Expansion("", ())
_T = TypeVar("_T", bound=ins.Written)


def keyword(line: ins.Written) -> str:
    """An instruction's name as it was written."""
    match = _KEYWORD.match(line.code)
    return match[0] if match else ""


def rest(line: ins.Written) -> str:
    """What follows an instruction's name and flags."""
    return split_flags(line.code[len(keyword(line)) :])[1]


def from_words(head: ins.From) -> list[str]:
    """`base`, `AS` and the name of a FROM as they were written."""
    return BLANKS.split(rest(head))


@dataclass(frozen=True, slots=True)
class File:
    """A Dockerfile. `args` are the ARGs before the first FROM with the build's arguments, `defaults` the same
    as if none were given (None when they cannot be read).
    """

    document: Document
    dockerfile: ins.Dockerfile
    lexer: Lexer
    args: Mapping[str, str]
    defaults: Mapping[str, str] | None

    @classmethod
    def of(cls, document: Document, dockerfile: ins.Dockerfile, shared: Shared) -> File:
        lexer = Lexer(dockerfile.escape)
        options = shared.options
        start = scope.platform_args(options.build_platform, options.platform, options.target)
        try:
            defaults: dict[str, str] | None = scope.global_args(start, dockerfile.args, {}, lexer)
        except DockerfileError:
            defaults = None
        return cls(document, dockerfile, lexer, shared.global_args, defaults)

    def declared(self) -> frozenset[str]:
        """Every name that FROM may use."""
        return frozenset(self.args).union(name for line in self.dockerfile.args for name, _ in line.args)

    def expanded(self, word: str, args: Mapping[str, str]) -> Expansion:
        """What becomes of `word` in a FROM; nothing when it cannot be read."""
        try:
            return self.lexer.process(word, args)
        except WordError:
            return _NOTHING

    def lines(self, *kinds: type[_T]) -> Iterator[_T]:
        """The instructions of these types, of all stages; ARG and FROM where they stand."""
        yield from (line for line in self.dockerfile.args if isinstance(line, kinds))
        for stage in self.dockerfile.stages:
            yield from (line for line in (stage.head, *stage.body) if isinstance(line, kinds))


@dataclass(slots=True)
class Moment:
    """A stage when `line` is reached, which has not happened yet.

    `env_known` is False when the base could not be found: its variables may be any. `shell` is what SHELL or
    the base set. `earlier` holds the last CMD, ENTRYPOINT and HEALTHCHECK of this stage by type, `copies` its
    instructions that copied the whole context.
    """

    line: ins.Written
    shared: Shared
    lexer: Lexer
    variables: scope.Variables
    env_known: bool = True
    workdir_set: bool = False
    shell: tuple[str, ...] = ()
    earlier: dict[type[ins.Written], ins.Written] = field(default_factory=dict)
    copies: list[ins.Written] = field(default_factory=list)

    def process(self, word: str, lexer: Lexer | None = None) -> Expansion:
        """What becomes of `word` here; nothing when it cannot be read."""
        try:
            return (lexer or self.lexer).process(word, self.variables.env)
        except WordError:
            return _NOTHING

    def expand(self, word: str) -> str:
        """`word` expanded; as it is when it cannot be read."""
        try:
            return self.lexer.expand(word, self.variables.env)
        except WordError:
            return word

    def pass_line(self) -> None:
        """The instruction has happened."""
        line = self.line
        match line:
            case ins.Arg():
                self._declare(line)
            case ins.Env():
                for name, value in [(self.expand(name), self.expand(value)) for name, value in line.pairs]:
                    self.variables.set(name, value)
            case ins.Workdir():
                self.workdir_set = True
            case ins.Shell():
                self.shell = line.argv
            case ins.Cmd() | ins.Entrypoint() | ins.Healthcheck():
                self.earlier[type(line)] = line
            case ins.Copy() if not line.origin and line.sources and {*line.sources} <= _WHOLE_CONTEXT:
                self.copies.append(line)

    def _declare(self, line: ins.Arg) -> None:
        for name, default in line.args:
            value = self.shared.given.get(name)
            if value is None and default is not None:
                value = self.expand(default)
            elif value is None:
                value = self.shared.global_args.get(name)
            self.variables.declare(name, value)


class Walk:
    """Goes through stages, instruction by instruction."""

    def __init__(self, graph: Graph, bases: Bases, known: Callable[[Image], bool]) -> None:
        self._graph = graph
        self._bases = bases
        self._known = known
        self._lexer = Lexer(graph.shared.lexer.escape)
        self._ends: dict[int, Moment] = {}
        self._left = MAX_WORK

    def moments(self, stages: Iterable[int]) -> Iterator[Moment]:
        """Each instruction of these stages, which are in the order of the file. The Moment is the same object
        throughout a stage.
        """
        parents = {node.base for node in self._graph.nodes}
        for index in stages:
            node = self._graph.nodes[index]
            moment = self._start(node)
            self._left -= moment.variables.weight
            if self._left < 0:
                return
            for moment.line in node.lines:
                yield moment
                moment.pass_line()
            if index in parents:
                self._ends[index] = moment

    def _start(self, node: Node) -> Moment:
        below = self._ends.get(node.base) if isinstance(node.base, int) else None
        if below is None:
            return self._on_image(node)
        moment = self._moment(node, scope.Variables.of({}, below.variables))
        moment.env_known, moment.workdir_set, moment.shell = below.env_known, below.workdir_set, below.shell
        return moment

    def _on_image(self, node: Node) -> Moment:
        image = None
        if not isinstance(node.base, int):
            platform = node.platform or self._graph.shared.options.platform
            image = self._bases.image(node.base, platform, node.at)
        config = image.config.value.config if image is not None else RunConfig()
        env = dict(each.partition("=")[::2] for each in config.env)
        env.setdefault("PATH", scope.DEFAULT_PATH)
        moment = self._moment(node, scope.Variables.of(env))
        moment.env_known = image is None or self._known(image)
        moment.shell = config.shell or ()
        return moment

    def _moment(self, node: Node, variables: scope.Variables) -> Moment:
        return Moment(node.stage.head, self._graph.shared, self._lexer, variables)
