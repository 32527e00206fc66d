"""The lives of a container, one for each time that it began: what it wrote in them, layer upon layer.

Where an overlay can be mounted again on what was written, it has one life that goes on; elsewhere each is one
more layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oci.data import dataclass

if TYPE_CHECKING:
    from builder.container.model import State
    from builder.container.store import Containers


@dataclass(frozen=True, slots=True)
class Life:
    """Where a container writes next: `place` is for `Snapshots.lasting`, on top of `below` (host directories,
    topmost first). `uppers` is what its state says from then on.
    """

    place: str
    below: tuple[str, ...]
    uppers: tuple[str, ...]


def written_in(containers: Containers, ident: str, state: State) -> tuple[str, ...]:
    """The host directories of what a container wrote, lowest first. Some may be missing."""
    return tuple(containers.path(ident, *each.split("/")) for each in state.uppers)


def next_life(
    containers: Containers, ident: str, state: State, lowers: tuple[str, ...], *, goes_on: bool
) -> Life:
    """The life that follows, on top of `lowers`, its image's layers; `goes_on` as `Snapshots` has it."""
    uppers = written_in(containers, ident, state)
    number = len(uppers) if uppers and goes_on else len(uppers) + 1
    return Life(
        place=containers.path(ident, "lives", str(number)),
        below=(*reversed(uppers[: number - 1]), *lowers),
        uppers=tuple(f"lives/{each + 1}/keep/fs" for each in range(number)),
    )
