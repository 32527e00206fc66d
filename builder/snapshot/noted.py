"""Owners in the layers of a namespace with one id, where they are noted beside the files
(`builder.sandbox.owners`).

A layer's directory has notes where a file `owners` stands beside it; there those of symlinks and pipes are
told, which can have no attribute. Everything that reads layers asks here, so that views, layers and exports
show whose a file should be.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from builder.sandbox.owners import Owner, note, noted, read_notes
from oci.tar import Entry, Kind

if TYPE_CHECKING:
    from builder.tree import Tree

NAME = "owners"
_KINDS = {b"c": Kind.CHAR, b"b": Kind.BLOCK}


class Owned(NamedTuple):
    """Whose a file should be, and for a placeholder the device it stands for."""

    uid: int
    gid: int
    kind: Kind | None = None
    rdev: int = 0


class Notes:
    """The notes of one layer."""

    def __init__(self, told: dict[int, Owner]) -> None:
        self._told = told

    def owned(self, path: bytes, st: os.stat_result) -> Owned:
        """The owner of the file at `path` (on the host), which has `st`."""
        if stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode):
            owner = noted(path)
        else:
            owner = self._told.get(st.st_ino, Owner())
        if owner.plain:
            return Owned(st.st_uid, st.st_gid)
        if not owner.node:
            return Owned(owner.uid, owner.gid)
        kind, major, minor = owner.node
        return Owned(owner.uid, owner.gid, _KINDS[kind], os.makedev(major, minor))


def beside(directory: str | bytes) -> str:
    """The file of notes of the layer that lies in `directory`."""
    return os.path.join(os.path.dirname(os.fsdecode(directory)), NAME)


def begin(directory: str) -> str:
    """The file of notes for the layer in `directory`, empty at first. That it is there says that owners are
    noted.
    """
    path = beside(directory)
    open(path, "ab").close()
    return path


def notes_of(directory: str | bytes) -> Notes | None:
    """The notes of the layer in the host directory `directory`; None where there are none."""
    try:
        with open(beside(directory), "rb") as file:
            return Notes(read_notes(file.read()))
    except (FileNotFoundError, NotADirectoryError):
        return None


def note_entry(directory: str, path: bytes, entry: Entry) -> None:
    """Note the owner of `entry`, just unpacked at `path` in the layer's `directory`."""
    full = os.path.join(os.fsencode(directory), path)
    st = os.lstat(full)
    _note_at(directory, full, st, entry.uid, entry.gid)


def claim(directory: str, below: Tree, uid: int, gid: int) -> None:
    """Note `uid` and `gid` as the owner of what the layer in `directory` adds to `below` and nobody has been
    given: with one id for all, a file does not tell who made it.
    """
    if not (uid or gid):
        return
    notes = notes_of(directory)
    top = os.fsencode(directory)
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            full = os.path.join(folder, name)
            st = os.lstat(full)
            if _is_free(full, st, notes) and below.lstat(os.path.relpath(full, top)) is None:
                _note_at(directory, full, st, uid, gid)


def _is_free(path: bytes, st: os.stat_result, notes: Notes | None) -> bool:
    """Whether nobody owns a file but for want of another id. A whiteout is no file."""
    owned = notes.owned(path, st) if notes else Owned(st.st_uid, st.st_gid)
    whiteout = stat.S_ISCHR(st.st_mode) and st.st_rdev == 0
    return not (owned.uid or owned.gid or whiteout)


def _note_at(directory: str, path: bytes, st: os.stat_result, uid: int, gid: int) -> None:
    if stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode):
        note(path, Owner(uid, gid, noted(path).node))
    else:
        tell(beside(directory), st.st_ino, uid, gid)


def give(path: str, uid: int, gid: int) -> None:
    """chown(2) of a file or directory outside of layers; an owner without an id here is noted."""
    try:
        os.chown(path, uid, gid)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        note(path, Owner(uid, gid))


def tell(notes: str, number: int, uid: int, gid: int) -> None:
    """Note whose the inode `number` of a layer is, in its file of notes."""
    with open(notes, "ab") as file:
        file.write(b"%d %s\n" % (number, bytes(Owner(uid, gid))))
