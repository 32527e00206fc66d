"""What a snapshotter is: it gives steps directories to write in, and keeps what they wrote.

`overlay` is the way; where the kernel refuses, fuse-overlayfs or `copy` (reflinks, else copies) take
its place.
What a step leaves has overlay's form in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from builder.snapshot.below import Lowers
from oci.tar import Entry, TarReader


class Snapshot(NamedTuple):
    """A finished directory in overlay's format: what one layer adds. `path` is on the host."""

    name: str
    path: str


class Active(Protocol):
    """A step's directories while it runs. `lowers` are topmost first.

    `notes` is the host file for the owners of symlinks and pipes where owners are noted, else "".
    `merged` is the step's root as a directory of its own, where there is no overlay to mount; else it is "".
    """

    merged: str
    notes: str
    lowers: tuple[str, ...]
    upper: str
    work: str

    @property
    def written(self) -> str:
        """The host directory with what the step adds, while it runs."""

    def settle(self) -> None:
        """Its processes are gone: have what they wrote in `upper`, in overlay's form."""

    def commit(self, name: str = "") -> Snapshot:
        """Keep the upper directory under `name` (a new one if empty)."""

    def unchanged(self, path: bytes) -> None:
        """The file at `path` in `merged`, moved away and back by the builder, is as it was."""

    def scratch(self) -> str:
        """A private directory that is gone with the step."""

    def stacked(self, lowers: Sequence[str]) -> tuple[str, ...]:
        """`lowers` (topmost first, or none) as layers that can be mounted by themselves, without an upper."""

    def plain(self, name: str, lowers: Sequence[str]) -> str:
        """`lowers` as one directory, for one more mount where there is no overlay; gone with the step."""

    def extra(self, name: str, lowers: Sequence[str]) -> tuple[str, str]:
        """Upper and work directory for one more mount, on top of `lowers`; gone with the step."""


class Snapshotter(Protocol):
    """Directories of steps and layers, by name."""

    def existing(self, name: str) -> str:
        """The directory of a snapshot that can be relied on, "" when there is none."""

    def prepare(self, lowers: Sequence[str]) -> AbstractContextManager[Active]:
        """Directories for a step on top of `lowers` (topmost first); discarded on exit unless committed."""

    def unpack(
        self,
        name: str,
        layer: Callable[[], AbstractContextManager[TarReader]],
        lowers: Lowers = (),
        edit: Callable[[Entry], Entry | None] | None = None,
    ) -> str:
        """The directory `name` with what `layer` adds to `lowers` (called, if it is a function, when the
        layer asks for what is below it), made unless it is there."""

    def settled(self, name: str) -> None:
        """A step's snapshot is known to the cache now and may stay when this process is gone."""

    def remove(self, name: str) -> None:
        """Forget a snapshot."""
