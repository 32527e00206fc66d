"""A small vocabulary for file trees: what a build context holds, and what a golden tree expects.

The same values are written to disk (`write_tree`), packed into an archive (`pack_tree`) and held against
a result (flatten.py renders both sides as one line per path). A plain `str` is a file of mode 0644.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class File:
    """A regular file. `xattrs` are full names (`user.note`, `security.capability`) to raw values."""

    content: str | bytes = ""
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def data(self) -> bytes:
        return self.content.encode() if isinstance(self.content, str) else self.content


@dataclass(frozen=True, slots=True)
class Dir:
    """A directory; in a context or archive its contents are listed by path of their own."""

    mode: int = 0o755
    owner: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str
    owner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Hard:
    """Another name of the file at path `to` (written the way the tree writes its paths)."""

    to: str


@dataclass(frozen=True, slots=True)
class Fifo:
    """A named pipe."""

    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Device:
    """A device node; `kind` is `char` or `block`."""

    kind: str
    major: int
    minor: int
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar archive as a file of the context; `compression` is "", "gz", "bz2" or "xz"."""

    members: Mapping[str, Entry]
    compression: str = ""


@dataclass(frozen=True, slots=True)
class Gone:
    """In a golden tree: this path of the base is no longer there."""


GONE = Gone()
Entry = str | File | Dir | Link | Hard | Fifo | Device | Archive
Expected = str | File | Dir | Link | Hard | Fifo | Device | Gone
Files = Mapping[str, Entry]


def write_tree(directory: str, files: Files) -> None:
    """Make `files` below `directory`, parents as needed; modes are as said, whatever the umask."""
    os.makedirs(directory, exist_ok=True)
    os.chmod(directory, 0o755)
    for name, entry in files.items():
        path = os.path.join(directory, name.rstrip("/"))
        _make_parents(directory, os.path.dirname(path))
        _write(directory, path, entry)


def pack_tree(files: Files, compression: str = "") -> bytes:
    """`files` as a tar archive, in the order given. Every time is zero, so equal trees are equal bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{compression}", format=tarfile.PAX_FORMAT) as packed:  # type: ignore[call-overload]
        for name, entry in files.items():
            member, data = _member(name, entry)
            if isinstance(entry, Hard):
                _copy_metadata(member, packed.getmember(entry.to))
            packed.addfile(member, io.BytesIO(data) if data else None)
    return out.getvalue()


def _copy_metadata(link: tarfile.TarInfo, target: tarfile.TarInfo) -> None:
    """What every tar writer does: the header of a hard link repeats the inode's owner and mode."""
    link.mode, link.uid, link.gid = target.mode, target.uid, target.gid


def _make_parents(root: str, directory: str) -> None:
    if not os.path.lexists(directory) and directory != root:
        _make_parents(root, os.path.dirname(directory))
        os.mkdir(directory)
        os.chmod(directory, 0o755)


def _write(root: str, path: str, entry: Entry) -> None:
    match entry:
        case Link():
            os.symlink(entry.target, path)
            os.lchown(path, *entry.owner)
            return
        case Hard():
            os.link(os.path.join(root, entry.to), path)
            return
        case Dir():
            os.makedirs(path, exist_ok=True)
        case Fifo():
            os.mkfifo(path)
        case Device():
            raise ValueError("a context has no device nodes")
        case _:
            entry = _plain(entry)
            with open(path, "wb") as out:
                out.write(entry.data)
    os.chown(path, *entry.owner)
    os.chmod(path, entry.mode)
    for name, value in getattr(entry, "xattrs", {}).items():
        os.setxattr(path, name, value)


def _plain(entry: str | File | Archive) -> File:
    match entry:
        case str():
            return File(entry)
        case Archive():
            return File(pack_tree(entry.members, entry.compression))
        case _:
            return entry


def _member(name: str, entry: Entry) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name.rstrip("/"))
    data = b""
    match entry:
        case Link():
            member.type, member.linkname = tarfile.SYMTYPE, entry.target
            member.mode = 0o777
        case Hard():
            member.type, member.linkname = tarfile.LNKTYPE, entry.to
            return member, b""
        case Dir():
            member.type, member.mode = tarfile.DIRTYPE, entry.mode
        case Fifo():
            member.type, member.mode = tarfile.FIFOTYPE, entry.mode
        case Device():
            member.type = tarfile.CHRTYPE if entry.kind == "char" else tarfile.BLKTYPE
            member.mode, member.devmajor, member.devminor = entry.mode, entry.major, entry.minor
        case _:
            entry = _plain(entry)
            data = entry.data
            member.mode, member.size = entry.mode, len(data)
    member.uid, member.gid = entry.owner
    xattrs = {}
    for key, value in getattr(entry, "xattrs", {}).items():
        xattrs[f"SCHILY.xattr.{key}"] = value.decode("utf-8", "surrogateescape")
    member.pax_headers = xattrs
    return member, data
