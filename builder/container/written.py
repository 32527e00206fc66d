"""What a container wrote: the changes of its upper directories, without what is there for its mounts alone.

Mount points that an image lacks are usually shown through from a layer of their own. Where an opaque
directory hides that one, the container's program makes them where it writes, and they go when it ends, but
not if its monitor was killed (`builder.sandbox.stubs`). They are empty, and no work of its program.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.container.lives import written_in
from builder.errors import UsageError
from builder.snapshot.diff import Change, changes
from builder.snapshot.view import DirectoryLayer, View
from builder.tree import clean, join, parent_of
from oci.data import dataclass
from oci.rooted import Root

if TYPE_CHECKING:
    from builder.container.model import Container, State
    from builder.container.store import Containers

_USUAL = (b"proc", b"sys", b"dev", b"etc/hosts", b"etc/resolv.conf", b"etc/hostname")
"""Where something is mounted in every container."""


@dataclass(frozen=True, slots=True)
class Written:
    """A container's own directories in overlay's form, and the image's layers below them, both topmost
    first. `userxattr` says which marks they have; `mounted` are the paths where it has mounts.
    """

    uppers: tuple[str, ...]
    lowers: tuple[str, ...]
    mounted: tuple[bytes, ...] = ()
    userxattr: bool = False

    def view(self) -> View:
        """All that it has but for its mounts, merged."""
        return self._view((*self.uppers, *self.lowers))

    def image(self) -> View:
        """What its image has."""
        return self._view(self.lowers)

    def layers(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Its own directories, lowest first, each with those below it, topmost first."""
        for position in reversed(range(len(self.uppers))):
            yield self.uppers[position], (*self.uppers[position + 1 :], *self.lowers)

    def changes(self, upper: str, below: tuple[str, ...], *, clock: int | None = None) -> Iterator[Change]:
        """What one of them adds, as a layer's entries, without the mount points that only it has."""
        stubs = self._stubs(upper, self._view(below))
        found = changes(upper, below, clock=clock, userxattr=self.userxattr, live=True)
        return (each for each in found if each.entry.name not in stubs)

    def _view(self, layers: tuple[str, ...]) -> View:
        return View([DirectoryLayer(each, userxattr=self.userxattr) for each in reversed(layers)])

    def _stubs(self, upper: str, below: View) -> frozenset[bytes]:
        """Empty files and directories of `upper` at mount points which are not below it, and directories
        that hold nothing else.
        """
        found: set[bytes] = set()
        with Root.at(upper) as root:
            for path in self.mounted:
                while path and below.lstat(path) is None and _is_empty(root, path, found):
                    found.add(path)
                    path = parent_of(path)
        return frozenset(found)


def _is_empty(root: Root, path: bytes, but: set[bytes]) -> bool:
    """Whether there is an empty file or directory, of which `but` does not count."""
    try:
        info = root.lstat(path)
        if stat.S_ISDIR(info.st_mode):
            return all(join(path, name) in but for name in root.listdir(path))
        return stat.S_ISREG(info.st_mode) and info.st_size == 0
    except OSError:
        return False


def written(
    containers: Containers, container: Container, state: State, lowers: tuple[str, ...], *, userxattr: bool
) -> Written:
    """What a container wrote so far, on top of its image's layers (topmost first).

    Raises UsageError where that can only be told when it has ended.
    """
    uppers = written_in(containers, container.id, state)
    if state.alive and uppers and os.path.isdir(os.path.join(os.path.dirname(uppers[-1]), "..", "root")):
        raise UsageError(
            f"the container {container.name} runs, and here what it wrote can be told when it has ended",
            hint=f"pybuild stop {container.name} ends it; "
            "the kernel's overlay, which would tell now, cannot be had here (pybuild doctor)",
        )
    uppers = tuple(each for each in reversed(uppers) if os.path.isdir(each))
    found = Written(uppers, lowers, (), userxattr)
    view = found.view()
    named = (*_USUAL, *(clean(each.target) for each in container.request.volumes))
    mounted = {each for name in named for each in (name, _resolved(view, name)) if each}
    return replace(found, mounted=tuple(sorted(mounted, reverse=True)))


def _resolved(view: View, path: bytes) -> bytes:
    try:
        return view.resolve(path)
    except OSError:
        return b""
