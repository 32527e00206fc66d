"""What fuse-overlayfs leaves in an upper directory, given the form that the kernel's overlay has there.

Its own marks go; what it cannot help leaving goes too: whiteouts of names that no layer below has (mount
points made and removed again), directories that only lay on the way to one. A directory or symlink that it
copies up gets a new mtime: the old one comes back where nothing was made, removed or replaced in it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from builder.snapshot.view import DirectoryLayer, View
from builder.tree import Node, join
from oci.tar import Kind

_OWN = "user.fuseoverlayfs."
_OPAQUE, _ORIGIN = "user.fuseoverlayfs.opaque", "user.fuseoverlayfs.origin"
_MARKS, _NESTED = "user.overlay.", "user.overlay.overlay."


def normalise(upper: str, lowers: Sequence[str]) -> None:
    """Give `upper`, written on top of `lowers` (host directories, topmost first), overlay's own form."""
    view = View([DirectoryLayer(each, userxattr=True) for each in reversed(lowers)])
    _Upper(os.fsencode(upper), view).directory(b"", view.lstat(b""))


class _Upper:
    def __init__(self, top: bytes, below: View) -> None:
        self._top = top
        self._below = below

    def directory(self, path: bytes, below: Node | None) -> bool:
        """Put a directory in order; whether the layer would be the same without it."""
        full = join(self._top, path) if path else self._top
        before = os.lstat(full)
        kept = below is not None and below.kind is Kind.DIRECTORY and not _attribute(full, _OPAQUE)
        touched = False
        for name in os.listdir(full):
            if name.startswith(b".wh."):
                os.unlink(join(full, name))
            elif self._entry(join(path, name), kept):
                touched = True
        _marks(full)
        if below is None or not kept:
            os.utime(full, ns=(before.st_atime_ns, before.st_mtime_ns))
            return False
        os.utime(full, ns=(before.st_atime_ns, before.st_mtime_ns if touched else below.mtime_ns))
        looks = (stat.S_IMODE(before.st_mode), before.st_uid, before.st_gid)
        return not touched and looks == (below.mode, below.uid, below.gid) and not os.listdir(full)

    def _entry(self, path: bytes, kept: bool) -> bool:
        """Whether it was made, removed or replaced: whether its directory has another mtime."""
        full = join(self._top, path)
        st = os.lstat(full)
        below = self._below.lstat(path) if kept else None
        if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
            if below is None:
                os.unlink(full)
            return below is not None
        if stat.S_ISDIR(st.st_mode):
            if self.directory(path, below):
                os.rmdir(full)
                return False
            return below is None or below.kind is not Kind.DIRECTORY
        if stat.S_ISLNK(st.st_mode):
            same = below is not None and below.kind is Kind.SYMLINK and below.link == os.readlink(full)
            if below is not None and same:
                os.utime(full, ns=(st.st_atime_ns, below.mtime_ns), follow_symlinks=False)
            return not same
        origin = _attribute(full, _ORIGIN).rstrip(b"\0")
        _marks(full)
        return below is None or origin != path


def _attribute(path: bytes, name: str) -> bytes:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return b""


def _marks(path: bytes) -> None:
    """Overlay's names for its marks; a step's own attributes of such a name one level deeper."""
    names = os.listxattr(path, follow_symlinks=False)
    for name in names:
        if name.startswith(_MARKS):
            value = os.getxattr(path, name, follow_symlinks=False)
            os.removexattr(path, name, follow_symlinks=False)
            os.setxattr(path, _NESTED + name[len(_MARKS) :], value, follow_symlinks=False)
    for name in names:
        if name.startswith(_OWN):
            if name == _OPAQUE:
                os.setxattr(path, "user.overlay.opaque", b"y", follow_symlinks=False)
            os.removexattr(path, name, follow_symlinks=False)
