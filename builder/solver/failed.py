"""A RUN step that failed, kept as it was so that its user can look around in it (FEATURES.md D02)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.isolation import current
from builder.sandbox.spec import Bind, Layers, Overlay
from builder.snapshot.view import DirectoryLayer, View
from builder.tree import clean
from oci.tar import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.errors import BuildError
    from builder.graph import Exec, Step
    from builder.sandbox.run import Running
    from builder.sandbox.spec import Mount, Sandbox, Terminal
    from builder.snapshot.base import Active
    from builder.solver.running import Runner
    from builder.solver.shown import Shown
    from builder.tree import Tree

_TERM = ("TERM", "xterm")


class FailedStep:
    """The step of `error`, with its files and mounts. It is gone with the build's executor.

    `caches` is the host directory of what its mounts would keep.
    """

    def __init__(
        self,
        error: BuildError,
        step: Step,
        runner: Runner,
        active: Active,
        what: tuple[Exec, Callable[[], Tree], Shown],
        caches: str,
    ) -> None:
        self._caches = os.path.join(caches, "")
        self.error = error
        self.step = step
        self._runner = runner
        self._active = active
        self._op, self._view, self._shown = what
        self._entered = 0

    def programs(self) -> tuple[str, ...]:
        """Shells to try, in this order: that of the step's SHELL, and the one every image should have."""
        return tuple(dict.fromkeys((*self._op.shell[:1], "/bin/sh")))

    def has_shell(self) -> bool:
        """Whether one of them is among the step's files (what only its mounts hold is not looked at)."""
        marks = current().userxattr
        layers = reversed((self._active.upper, *self._active.lowers))
        tree = View([DirectoryLayer(each, userxattr=marks) for each in layers])
        search = dict(self._op.env).get("PATH", "").split(":")
        places = [
            [name] if "/" in name else [f"{each}/{name}" for each in search] for name in self.programs()
        ]
        return any(_is_program(tree, path) for paths in places for path in paths)

    @contextmanager
    def entered(self, program: str, terminal: Terminal) -> Iterator[Running]:
        """Run `program` where the step ran, in a terminal of its own. Raises SandboxError.

        What it writes lies in directories that are gone afterwards, also where the step's own would stay.
        """
        with self._runner.begin(self.sandbox(program, terminal), None) as running:
            yield running

    def sandbox(self, program: str, terminal: Terminal) -> Sandbox:
        """The step's own sandbox, from where every step's comes, with `program` and nothing more in it
        (SECURITY.md S35).
        """
        self._entered += 1
        own = self._runner.sandbox(self._op, self._active, self._view, self._shown)
        term = () if "TERM" in dict(own.env) else (_TERM,)
        layered = isinstance(own.root, Overlay)
        return replace(
            own,
            root=self._root(own.root),
            argv=(program,),
            env=(*own.env, *term),
            mounts=tuple(self._apart(number, each, layered) for number, each in enumerate(own.mounts)),
            limits=replace(own.limits, wall_s=0.0),  # people take their time
            terminal=terminal,
        )

    def _root(self, own: Overlay | Bind) -> Overlay | Bind:
        """One more layer over what the step left; its plain directory where snapshots are none in layers."""
        if isinstance(own, Bind):
            return own
        upper, work = self._extra("root", (self._active.upper,))
        return replace(own, lowers=(self._active.upper, *self._active.lowers), upper=upper, work=work)

    def _apart(self, number: int, mount: Mount, layered: bool) -> Mount:
        """`mount`; a cache with a layer over it, or read-only where there are no layers. What a mount that is
        not kept held when the step failed is not changed either.
        """
        if isinstance(mount, Bind) and mount.source.startswith(self._caches) and not mount.read_only:
            if not layered:
                return replace(mount, read_only=True)
            lowers: tuple[str, ...] = (mount.source,)
        elif isinstance(mount, Layers) and mount.upper:
            lowers = (mount.upper, *mount.lowers)
        else:
            return mount
        upper, work = self._extra(str(number), lowers)
        return Layers(mount.target, lowers, mount.path, mount.directory, upper, work)

    def _extra(self, name: str, lowers: tuple[str, ...]) -> tuple[str, str]:
        return self._active.extra(f"entered{self._entered}-{name}", lowers)


def _is_program(tree: Tree, path: str) -> bool:
    try:
        node = tree.lstat(tree.resolve(clean(path)))
    except OSError:
        return False
    return node is not None and node.kind is Kind.FILE and bool(stat.S_IMODE(node.mode) & 0o111)
