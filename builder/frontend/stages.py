"""The stages of a Dockerfile and how they need each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import field
from typing import TYPE_CHECKING, TypeAlias

from builder.errors import DockerfileError, UsageError
from builder.frontend import instructions as ins
from builder.frontend import scope
from builder.frontend.broken import broken
from builder.frontend.stage import Shared
from builder.frontend.suggest import hint
from oci import platforms
from oci.data import dataclass
from oci.errors import InvalidPlatform, InvalidReference
from oci.reference import Reference

if TYPE_CHECKING:
    from builder.source import SourceRange
    from oci.image import Image
    from oci.model import Platform

SCRATCH = "scratch"


@dataclass(frozen=True, slots=True)
class Context:
    """A named context: a directory, or (`find`) an image for each platform."""

    name: str
    find: Callable[[Platform], Image] | None


Origin: TypeAlias = int | Context | str
"""Where files or a base come from: a stage's index, a named context, or an image's name."""


@dataclass(slots=True)
class Node:
    """One stage: what its FROM means, which stages it needs, and which instructions it will run.

    `triggers` are the ONBUILD instructions its base brings; they run before the stage's own. A stage that is
    `replaced` by a named context of its name runs nothing.
    """

    stage: ins.Stage
    base: Origin
    platform: Platform | None
    replaced: bool = False
    triggers: tuple[ins.Instruction, ...] = ()
    needs: set[int] = field(default_factory=set)

    @property
    def lines(self) -> tuple[ins.Instruction, ...]:
        """What the stage will run."""
        return () if self.replaced else (*self.triggers, *self.stage.body)

    @property
    def at(self) -> SourceRange:
        return self.stage.head.at


class Graph:
    """All stages. Making one finds unreadable FROM lines and stages that need themselves. Raises
    DockerfileError.
    """

    def __init__(self, dockerfile: ins.Dockerfile, shared: Shared) -> None:
        self.shared = shared
        self.nodes: list[Node] = []
        self._by_name: dict[str, int] = {}
        for stage in dockerfile.stages:
            self.nodes.append(self._node(stage))
            if stage.head.name:
                self._by_name[stage.head.name] = stage.index
        for node in self.nodes:
            self._find_needs(node, node.lines)
        self._refuse_circles()

    def names(self) -> Iterable[str]:
        """The names of the stages that have one."""
        return self._by_name

    def is_many(self) -> bool:
        """Whether people need a stage's name to tell its steps from others'."""
        return len(self.nodes) > 1

    def _node(self, stage: ins.Stage) -> Node:
        head = stage.head
        name = scope.expand(self.shared.lexer, head.base, self.shared.global_args, head.at)
        if not name:
            raise broken(
                f"FROM `{head.base}` is empty once its variables are replaced",
                at=head.at,
                hint="declare the ARG before the first FROM, with a default: `ARG BASE=debian:12`",
            )
        platform = self._platform(head)
        replaced = self._context(head.name, platform)
        if replaced is not None:
            return Node(stage, replaced, platform, replaced=True)
        return Node(stage, self._context(name, platform) or self._meaning(name), platform)

    def _meaning(self, name: str) -> Origin:
        """The stage called `name`, among those read so far, else the image."""
        return self._by_name.get(name.lower(), name)

    def _platform(self, head: ins.From) -> Platform | None:
        if not head.platform:
            return None
        text = scope.expand(self.shared.lexer, head.platform, self.shared.global_args, head.at)
        try:
            return platforms.parse(text)
        except InvalidPlatform as error:
            raise broken(
                f"FROM --platform={head.platform}: {error}",
                at=head.at,
                hint="the platforms of this build are $BUILDPLATFORM and $TARGETPLATFORM",
            ) from None

    def _context(self, name: str, platform: Platform | None = None) -> Context | None:
        """The named context that takes the place of `name`; one for the platform alone (C05) goes first."""
        contexts = self.shared.options.contexts
        if not contexts or not name or name.lower() in (SCRATCH, "context"):
            return None
        wanted = platform or self.shared.options.platform
        for word in (name, _short(name)):
            for key in (f"{word}::{wanted}", word):
                if key in contexts:
                    return Context(key, contexts[key])
        return None

    def origin(self, line: ins.Copy) -> Origin | None:
        """What `--from` means; None is the build context. Raises DockerfileError."""
        name = line.origin
        if "$" in name:
            raise broken(
                f"COPY --from={name}: variables are not replaced here",
                at=line.at,
                hint="give the image a stage of its own: `FROM $NAME AS source`, then COPY --from=source",
            )
        return self._origin(name, line.at, f"COPY --from={name}")

    def mount_origin(self, mount: ins.Mount, at: SourceRange) -> Origin | None:
        """What a mount's `from` means; None is the build context (or nothing, for types without one)."""
        return self._origin(mount.origin, at, f"--mount from={mount.origin}")

    def _origin(self, name: str, at: SourceRange, shown: str) -> Origin | None:
        if not name:
            return None
        context = self._context(name)
        if context is not None:
            return context
        if name.isascii() and name.lstrip("+-").isdigit():
            return self._indexed(name, at, shown)
        return self._meaning(name)

    def _indexed(self, name: str, at: SourceRange, shown: str) -> int:
        index = int(name) if len(name) < 9 else -1
        if not 0 <= index < len(self.nodes):
            count = len(self.nodes)
            raise broken(
                f"{shown}: there is no stage {name}",
                at=at,
                hint=f"stages count from 0; this file has {count}, the last is {count - 1}",
            )
        return index

    def add_triggers(self, node: Node, triggers: tuple[ins.Instruction, ...]) -> None:
        """What the base of `node` brings. Its `COPY --from` may need more stages."""
        node.triggers = triggers
        self._find_needs(node, triggers)

    def _find_needs(self, node: Node, body: Iterable[ins.Instruction]) -> None:
        if isinstance(node.base, int):
            node.needs.add(node.base)
        for line in body:
            for origin, shown in self._origins(line):
                if origin == node.stage.index:
                    raise broken(f"{shown} from its own stage", at=line.at, hint="a stage reads earlier ones")
                if isinstance(origin, int):
                    node.needs.add(origin)

    def _origins(self, line: ins.Instruction) -> Iterable[tuple[Origin | None, str]]:
        """What `line` reads, and how to speak of it."""
        if isinstance(line, ins.Copy):
            yield self.origin(line), f"COPY --from={line.origin} copies"
        elif isinstance(line, ins.Run):
            for mount in line.mounts:
                yield self.mount_origin(mount, line.at), f"--mount from={mount.origin} shows files"

    def _refuse_circles(self) -> None:
        """A stage that needs a later one is an error when it is built; one that so needs itself always is."""
        done: set[int] = set()
        for start in range(len(self.nodes)):
            path: list[tuple[int, list[int]]] = (
                [(start, sorted(self.nodes[start].needs))] if start not in done else []
            )
            on_path = {start}
            while path:
                index, left = path[-1]
                if not left:
                    path.pop()
                    on_path.discard(index)
                    done.add(index)
                    continue
                following = left.pop()
                if following in on_path:
                    raise self._circle(following)
                if following not in done:
                    on_path.add(following)
                    path.append((following, sorted(self.nodes[following].needs)))

    def _circle(self, index: int) -> DockerfileError:
        node = self.nodes[index]
        return broken(
            f"stage `{node.stage.label}` needs itself, by way of the stages it copies from", at=node.at
        )

    def target(self, name: str) -> int:
        """The stage called `name`; the last one when empty. Raises UsageError."""
        if not name:
            return len(self.nodes) - 1
        index = self._by_name.get(name.lower())
        if index is None and name.isascii() and name.isdigit() and int(name[:9]) < len(self.nodes):
            index = int(name[:9])
        if index is None:
            known = list(self._by_name)
            shown = ", ".join(known[:20])
            raise UsageError(
                f"there is no stage `{name}` to build",
                hint=hint(name, known, f"the stages are {shown}" if known else "no stage here has a name"),
            )
        return index

    def reachable(self, *targets: int) -> list[int]:
        """The stages that `targets` need, themselves included, in the order of the file."""
        found = set(targets)
        stack = [*targets]
        while stack:
            for each in self.nodes[stack.pop()].needs - found:
                found.add(each)
                stack.append(each)
        return sorted(found)


def _short(name: str) -> str:
    """The name under which a context overrides an image: familiar, without `:latest`."""
    try:
        return Reference.parse(name).familiar().removesuffix(":latest")
    except InvalidReference:
        return name
