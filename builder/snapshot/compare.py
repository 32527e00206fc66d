"""Directories of layers, held against each other and against archives: everything but times."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from builder.snapshot.noted import Notes, Owned, notes_of
from oci import whiteout
from oci.tar import Entry, Kind, TarReader

_CHUNK = 1 << 20
_FORMATS = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHAR: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
}
_OVERLAY = ("trusted.overlay.", "user.overlay.")


def difference(found: str, wanted: str) -> str:
    """The first thing in which the tree `found` is not like `wanted`, for people; "" when there is none.

    Times are left out: a clock may have changed them (`builder.snapshot.times`).
    """
    for path, here, there in _pairs(os.fsencode(found), os.fsencode(wanted)):
        shown = "/" + os.fsdecode(path)
        if here is None or there is None:
            return f"{shown} {'is missing' if here is None else 'does not belong there'}"
        if why := _unlike(here, there):
            return f"{shown} {why}"
    return ""


def lacking(directory: str, reader: TarReader) -> str:
    """The first member of a layer's archive that the overlay directory it was written from does not have, or
    has otherwise; "" when it has all. It may hold more: a step's upper directory does."""
    root = os.fsencode(directory)
    notes = notes_of(directory)
    for entry in reader:
        try:
            why = _unlike_entry(os.path.join(root, entry.name), root, entry, reader.read, notes)
        except (FileNotFoundError, NotADirectoryError):
            why = "is missing"
        if why:
            return f"/{os.fsdecode(entry.name)} {why}"
    return ""


def _unlike_entry(
    path: bytes, root: bytes, entry: Entry, read: Callable[[int], bytes], notes: Notes | None
) -> str:
    base = entry.name.rpartition(b"/")[2]
    if whiteout.is_whiteout(base):
        if base == whiteout.OPAQUE:
            return ""
        status = os.lstat(os.path.join(os.path.dirname(path), whiteout.target(base)))
        hides = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
        return "" if hides or stat.S_ISDIR(status.st_mode) else "is there again"
    status = os.lstat(path)
    if entry.kind is Kind.HARDLINK:
        same = os.path.samestat(status, os.lstat(os.path.join(root, entry.link)))
        return "" if same else f"is no link to /{os.fsdecode(entry.link)}"
    owned = notes.owned(path, status) if notes else Owned(status.st_uid, status.st_gid)
    found = _FORMATS[owned.kind] if owned.kind else stat.S_IFMT(status.st_mode)
    if found != _FORMATS[entry.kind]:
        return "is another kind of file"
    if entry.kind is Kind.SYMLINK:
        return "" if os.readlink(path) == entry.link else "is a link to something else"
    if stat.S_IMODE(status.st_mode) != entry.mode:
        return f"has mode {stat.S_IMODE(status.st_mode):o} in place of {entry.mode:o}"
    if (owned.uid, owned.gid) != (entry.uid, entry.gid):
        return f"belongs to {owned.uid}:{owned.gid} in place of {entry.uid}:{entry.gid}"
    if entry.kind is Kind.FILE and not _holds(path, entry.size, read):
        return "has other content"
    return ""


def _holds(path: bytes, size: int, read: Callable[[int], bytes]) -> bool:
    """Whether a file has the next `size` bytes of the archive, and no more."""
    with open(path, "rb") as file:
        left = size
        while left:
            chunk = read(min(left, _CHUNK))
            if not chunk or file.read(len(chunk)) != chunk:
                return False
            left -= len(chunk)
        return not file.read(1)


def _pairs(
    found: bytes, wanted: bytes, path: bytes = b""
) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Every path of either tree with its places in both, None where it is not; directories first."""
    yield path, found, wanted
    if not (_is_directory(found) and _is_directory(wanted)):
        return
    ours, theirs = set(os.listdir(found)), set(os.listdir(wanted))
    for name in sorted(ours | theirs):
        inner = path + b"/" + name if path else name
        here, there = os.path.join(found, name), os.path.join(wanted, name)
        if name in ours and name in theirs:
            yield from _pairs(here, there, inner)
        else:
            yield inner, here if name in ours else None, there if name in theirs else None


def _unlike(here: bytes, there: bytes) -> str:
    ours, theirs = os.lstat(here), os.lstat(there)
    if stat.S_IFMT(ours.st_mode) != stat.S_IFMT(theirs.st_mode) or ours.st_rdev != theirs.st_rdev:
        return "is another kind of file"
    if stat.S_IMODE(ours.st_mode) != stat.S_IMODE(theirs.st_mode):
        return f"has mode {stat.S_IMODE(ours.st_mode):o} in place of {stat.S_IMODE(theirs.st_mode):o}"
    if (ours.st_uid, ours.st_gid) != (theirs.st_uid, theirs.st_gid):
        return f"belongs to {ours.st_uid}:{ours.st_gid} in place of {theirs.st_uid}:{theirs.st_gid}"
    if _xattrs(here) != _xattrs(there):
        return "has other extended attributes"
    if stat.S_ISLNK(ours.st_mode) and os.readlink(here) != os.readlink(there):
        return "is a link to something else"
    if stat.S_ISREG(ours.st_mode) and not (ours.st_size == theirs.st_size and _same_bytes(here, there)):
        return "has other content"
    return ""


def _xattrs(path: bytes) -> dict[str, bytes]:
    """Those that a layer can have: of overlay's own only the mark of an opaque directory."""
    names = os.listxattr(path, follow_symlinks=False)
    kept = (name for name in names if not name.startswith(_OVERLAY) or name.endswith(".opaque"))
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in kept}


def _same_bytes(here: bytes, there: bytes) -> bool:
    with open(here, "rb", buffering=0) as ours, open(there, "rb", buffering=0) as theirs:
        while chunk := ours.read(_CHUNK):
            if chunk != theirs.read(_CHUNK):
                return False
    return True


def _is_directory(path: bytes) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)
