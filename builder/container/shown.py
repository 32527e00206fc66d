"""A container's root as a descriptor, whether the container runs or not: where `cp` and `export` work.

Of a running container it is the root of its own mounts, which its monitor hands over; the container may go on
meanwhile. Otherwise its layers and volumes are mounted as for its program, in namespaces of their own, by a
process that executes nothing (`builder.sandbox.step`). Below such a descriptor every name is the container's:
nothing of it is looked up from the host's root, and no program or library of it is ever used.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.container import lifecycle
from builder.container.lives import next_life, written_in
from builder.container.operation import furnished, operation
from builder.container.store import Containers
from builder.errors import BuildError, SandboxError, UsageError
from builder.events import discard
from builder.isolation import current
from builder.snapshot.overlay import opened
from builder.snapshot.view import DirectoryLayer, View
from builder.solver.running import Runner

if TYPE_CHECKING:
    from builder.container.model import Container
    from builder.sandbox.spec import Mount
    from builder.snapshot.base import Active
    from builder.state import StateDir
    from oci.model import RunConfig

_TRIES, _PAUSE_S = 100, 0.05
"""A container that is starting or ending belongs to its monitor, which does not listen then."""

Alive = Callable[[], None]
"""To be called now and then. Raises SandboxError when the container has ended meanwhile."""


@contextmanager
def root_of(
    store: StateDir,
    container: Container,
    config: RunConfig,
    lowers: tuple[str, ...],
    mounts: Callable[[], tuple[Mount, ...]],
    *,
    write: bool = False,
    alone: bool = False,
) -> Iterator[tuple[int, Alive]]:
    """The root of a container on top of `lowers` (its image's layers as directories, topmost first), with
    what `mounts` gives if it does not run; `alone` is without any mount. Without `write` nothing is to be
    written there. Waits for others who work on one that does not run.

    Raises NotFound when it is gone, SandboxError when its root cannot be had.
    """
    containers = Containers(store.root)
    tries = _TRIES
    while True:
        with containers.alone(container.id, wait=False) as mine:
            if mine >= 0:
                there = _places(mounts) if alone else mounts()
                with _mounted(store, container, config, lowers, there, write=write, alone=alone) as fd:
                    yield fd, _still
                return
        if containers.state(container.id).alive:
            try:
                connection, fd = lifecycle.root(store, container.id, alone=alone)
                break
            except (UsageError, ConnectionError):
                tries -= 1
                if not tries:
                    raise
        time.sleep(_PAUSE_S)
    with connection:
        try:
            _need_entry(fd, container)
            yield fd, lambda: _heard(connection.fileno(), container)
        finally:
            os.close(fd)


def _places(mounts: Callable[[], tuple[Mount, ...]]) -> tuple[Mount, ...]:
    """Mounts for the sake of their places, which is no reason to insist on what is mounted."""
    try:
        return mounts()
    except BuildError:
        return ()


def _need_entry(fd: int, container: Container) -> None:
    """Raise SandboxError for a root that lets only processes of its own user namespace in: fuse-overlayfs."""
    try:
        os.stat(".", dir_fd=fd)
    except PermissionError:
        raise SandboxError(
            f"the container {container.name} runs on fuse-overlayfs, which lets no other process in",
            hint=f"pybuild stop {container.name} first, or let tar do it: pybuild exec -i",
        ) from None


def _still() -> None:
    """Nobody starts it as long as this process holds it."""


def _heard(fd: int, container: Container) -> None:
    if select.select([fd], [], [], 0)[0]:
        raise SandboxError(
            f"the container {container.name} ended while its files were being copied",
            hint="try again: they can be had of one that has ended, too",
        )


@contextmanager
def _mounted(
    store: StateDir,
    container: Container,
    config: RunConfig,
    lowers: tuple[str, ...],
    mounts: tuple[Mount, ...],
    *,
    write: bool,
    alone: bool,
) -> Iterator[int]:
    with ExitStack() as stack:
        snapshots = stack.enter_context(opened(store.snapshots, current()))
        containers = Containers(store.root)
        state = containers.state(container.id)
        if write:
            life = next_life(containers, container.id, state, lowers, goes_on=snapshots.goes_on)
            active = stack.enter_context(snapshots.lasting(life.place, life.below))
            containers.update(container.id, replace(state, uppers=life.uppers))
            stack.callback(active.settle)
        else:
            uppers = reversed(written_in(containers, container.id, state))
            there = (each for each in uppers if os.path.isdir(each))
            active = stack.enter_context(snapshots.prepare((*there, *lowers)))
        if current().chroot:
            fd = os.open(active.written, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
        else:
            fd = _shown(stack, store, container, config, active, mounts, alone)
        yield fd


def _shown(
    stack: ExitStack,
    store: StateDir,
    container: Container,
    config: RunConfig,
    active: Active,
    mounts: tuple[Mount, ...],
    alone: bool,
) -> int:
    stubs = os.path.join(store.snapshots, ".stubs")
    runner = stack.enter_context(Runner(stubs=stubs, logs=lambda: "", emit=discard))
    op = replace(
        operation(container, config),
        user="",
        network="none",
        security="sandbox",
        security_opts=(),
        ulimits=(),
    )
    layers = [*reversed(active.lowers), active.upper]

    def view() -> View:
        return View([DirectoryLayer(each, userxattr=current().userxattr) for each in layers])

    request = replace(container.request, privileged=False)
    sandbox = furnished(runner.sandbox(op, active, view), request, active, mounts, None)
    return stack.enter_context(runner.shown(sandbox, "alone" if alone else "mounted"))
