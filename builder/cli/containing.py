"""What `commit`, `cp`, `diff` and `export` have in common: a container's files, and that nobody takes them
away meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from builder.cli import starting
from builder.cli.session import Session
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.container.model import Container, State
    from builder.container.shown import Alive
    from builder.container.store import Containers
    from builder.container.written import Written
    from builder.images import Entry
    from builder.sandbox.spec import Mount


@dataclass(frozen=True, slots=True)
class Held:
    """A container that nobody starts or removes, with what it wrote."""

    container: Container
    state: State
    entry: Entry
    written: Written


@contextmanager
def held(session: Session, word: str, *, pause: bool = False) -> Iterator[Held]:
    """The container that `word` means. With `pause`, a running one's processes are stopped meanwhile.

    The process has entered its isolation. Raises NotFound, UsageError as `written` does.
    """
    from builder.container.commit import paused
    from builder.container.store import Containers
    from builder.container.written import written
    from builder.isolation import current

    containers = Containers(session.state.root)
    container, ready = _known(session, containers, word)
    with ExitStack() as stack:
        stack.enter_context(containers.alone(container.id, wait=False))
        state = containers.state(container.id)
        if pause:
            stack.enter_context(paused(session.state, container, state))
        found = written(containers, container, state, ready.lowers, userxattr=current().userxattr)
        yield Held(container, state, ready.entry, found)


@contextmanager
def shown(
    session: Session, word: str, *, write: bool = False, alone: bool = False
) -> Iterator[tuple[int, Alive]]:
    """The root of the container that `word` means, as `builder.container.shown.root_of` gives it."""
    from builder.container.shown import root_of
    from builder.container.store import Containers
    from builder.container.volumes import Volumes, mounts

    container, ready = _known(session, Containers(session.state.root), word)
    config = ready.entry.image.config.value.config

    def mounted() -> tuple[Mount, ...]:
        return mounts(container.request.volumes, Volumes(session.state.root))

    with root_of(session.state, container, config, ready.lowers, mounted, write=write, alone=alone) as found:
        yield found


def _known(session: Session, containers: Containers, word: str) -> tuple[Container, starting.Ready]:
    """The container that `word` means, with its image."""
    container = containers.get(containers.find(word))
    return container, starting.ready_again(session, container)
