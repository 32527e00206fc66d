"""What a step writes in while it runs, and how its layers become one root: by the kernel's overlay, which the
step mounts itself, by fuse-overlayfs, or as a copy of all layers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from builder.errors import SandboxError
from builder.snapshot import noted
from builder.snapshot.base import Snapshot

if TYPE_CHECKING:
    from builder.sandbox.fuse import FuseOverlay
    from builder.snapshot.overlay import Snapshots


class Active:
    """A step's directories while it runs: mount `lowers` (topmost first), `upper` and `work` as its root.

    In a `place` that was used before it goes on with what was written there.
    """

    def __init__(self, snapshots: Snapshots, place: str, lowers: tuple[str, ...]) -> None:
        self._snapshots = snapshots
        self._place = place
        self._committed = False
        self.merged = ""
        self.lowers = lowers
        self.upper = os.path.join(place, "keep", "fs")
        self.work = os.path.join(place, "work")
        if os.path.isdir(self.upper):
            self._begin_again()
        else:
            os.makedirs(self.upper)
            take_root(self.upper, lowers)
        os.mkdir(self.work)
        self.notes = noted.begin(self.upper) if snapshots.noting else ""

    def _begin_again(self) -> None:
        """Overlay wants an empty work directory: what an earlier mount left in it may even forbid another."""
        import shutil

        shutil.rmtree(self.work, ignore_errors=True)

    @property
    def written(self) -> str:
        """The host directory with what the step adds, while it runs."""
        return self.upper

    def close(self) -> None:
        """Let go of what is mounted for the step; its processes are gone."""

    def settle(self) -> None:
        """Its processes are gone: have what they wrote in `upper`, in overlay's form."""

    def unchanged(self, path: bytes) -> None:
        """The file at `path` in `merged`, moved away and back by us, is as it was."""

    def scratch(self) -> str:
        """A private directory that is gone with the step."""
        path = os.path.join(self._place, "scratch")
        os.makedirs(path, 0o700, exist_ok=True)
        return path

    def plain(self, name: str, lowers: Sequence[str]) -> str:
        """`lowers` as one directory, for one more mount where there is no overlay; gone with the step."""
        raise NotImplementedError

    def stacked(self, lowers: Sequence[str]) -> tuple[str, ...]:
        """`lowers` (topmost first, or none) as an overlay without an upper needs them: two at least."""
        missing = max(0, 2 - len(lowers))
        return (*lowers, *(self._snapshots.empty(number) for number in range(missing)))

    def extra(self, name: str, lowers: Sequence[str]) -> tuple[str, str]:
        """Upper and work directory for one more mount, on top of `lowers`; gone with the step."""
        upper, work = (os.path.join(self._place, name, part) for part in ("fs", "work"))
        os.makedirs(upper)
        os.mkdir(work)
        take_root(upper, lowers)
        return upper, work

    def commit(self, name: str = "") -> Snapshot:
        """Keep the upper directory. The step's processes are gone and its mount with them.

        When a snapshot of that name is there already (another process was faster), that one is given.
        """
        self.settle()
        name = name or self._snapshots.new_name()
        self._committed = True
        return Snapshot(name, self._snapshots.keep(os.path.join(self._place, "keep"), name))


class CopiedActive(Active):
    """A step's directories where no overlay can be mounted: its root is a copy of all layers."""

    def __init__(self, snapshots: Snapshots, place: str, lowers: tuple[str, ...]) -> None:
        super().__init__(snapshots, place, lowers)
        from builder.snapshot.copy import Copied

        self._userxattr = snapshots.userxattr
        self.merged = os.path.join(place, "root")
        os.mkdir(self.merged)
        self._copied = Copied(lowers, self.merged, userxattr=self._userxattr, notes=self.notes)

    def unchanged(self, path: bytes) -> None:
        self._copied.unchanged(path)

    def plain(self, name: str, lowers: Sequence[str]) -> str:
        """`lowers` as one directory, for one more mount; gone with the step."""
        from builder.snapshot.copy import Copied

        path = os.path.join(self._place, name)
        os.mkdir(path, 0o755)
        Copied(lowers, path, userxattr=self._userxattr)
        return path

    @property
    def written(self) -> str:
        return self.merged

    def settle(self) -> None:
        self._copied.move_changes(self.upper)


class FuseActive(Active):
    """A step's directories where fuse-overlayfs mounts what the kernel does not."""

    def __init__(self, snapshots: Snapshots, place: str, lowers: tuple[str, ...]) -> None:
        super().__init__(snapshots, place, lowers)
        self._mounts: list[FuseOverlay] = []
        self.merged = self._mount("root", lowers, self.upper, self.work)

    def _mount(self, name: str, lowers: Sequence[str], upper: str, work: str) -> str:
        from builder.sandbox.fuse import FuseOverlay

        target, links = (os.path.join(self._place, f"{name}{part}") for part in ("", ".links"))
        os.mkdir(target)
        os.mkdir(links)
        try:
            self._mounts.append(FuseOverlay(lowers, upper, work, target, links))
        except OSError as error:
            raise SandboxError(f"the layers of a step cannot be mounted: {error.strerror}") from None
        return target

    def plain(self, name: str, lowers: Sequence[str]) -> str:
        lowers = tuple(lowers) or (self._snapshots.empty(),)
        return self._mount(f"{name}.mounted", lowers, *self.extra(name, lowers))

    def settle(self) -> None:
        from builder.snapshot.fused import normalise

        self.close()
        normalise(self.upper, self.lowers)

    def close(self) -> None:
        while self._mounts:
            self._mounts.pop().close()


ACTIVES: Mapping[str, type[Active]] = {"overlay": Active, "fuse": FuseActive, "copy": CopiedActive}
"""By storage."""


def take_root(path: str, lowers: Sequence[str]) -> None:
    """Give the new layer directory `path` the mode and owner of the root below it: the merged root shows
    the top's.
    """
    mode, uid, gid = 0o755, 0, 0
    if lowers:
        st = os.stat(lowers[0])
        mode, uid, gid = st.st_mode & 0o7777, st.st_uid, st.st_gid
    if (uid, gid) != (os.geteuid(), os.getegid()):
        os.chown(path, uid, gid)
    os.chmod(path, mode)
