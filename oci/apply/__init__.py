"""Unpacking a layer, or any archive, into a directory (image-spec: layer.md, Applying Changesets).

What is done with what an archive may hold:

    name with `..`                       UnsafePath
    absolute name                        taken from the root, as `tar -x` does
    parent that is a symlink             resolved inside the root
    the root itself                      a directory sets its metadata; anything else: UnsafePath
    a name that exists                   replaced, never written through (but a directory stays one)
    the same name twice                  the last one wins
    hardlink                             to a name inside the root, not followed; sets no metadata
    whiteout                             acts on lower layers only, whatever the order; see `style`
    device                               made; without the privilege left out and noted
    character device 0:0                 left out and noted: overlay takes it for a whiteout
    trusted.overlay.*, user.overlay.*,
      security.selinux                   left out: they would steer the kernel, or are this host's
    other xattrs                         set; noted when the file system or the kernel refuses
    setuid, setgid, sticky               kept (owner first, then mode, then xattrs, then time)
    directory metadata                   set last, so that unpacking into them does not change them
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from oci import whiteout
from oci.apply.metadata import Metadata
from oci.apply.tree import Directory, Lower, Style, Tree, empty_directory, is_whiteout_device
from oci.data import dataclass
from oci.durable import write_all
from oci.errors import InvalidArchive, UnsafePath
from oci.tar import Entry, Kind, TarReader

__all__ = ["ApplyStats", "Lower", "Style", "apply"]

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ASK_SPACE = 16 << 20
"""From this size on, ask for free space before writing a file."""

_MOST_MAJOR, _MOST_MINOR = 0xFFF, 0xFFFFF
"""The largest numbers of a device (include/linux/kdev_t.h)."""

_NODES = {Kind.CHAR: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}


@dataclass(frozen=True, slots=True)
class ApplyStats:
    """What was unpacked. `notes` says in words what was left out, at most a hundred lines of it; `root` tells
    whether the archive had an entry for its root."""

    entries: int
    size: int
    whiteouts: int
    notes: tuple[str, ...] = ()
    root: bool = False


def apply(
    reader: TarReader,
    destination: int | str,
    *,
    style: Style = "overlay",
    userxattr: bool = False,
    lower: Lower | None = None,
    whiteouts: bool | None = True,
    swaps: bool = True,
    prefix: bytes = b"",
    filter: Callable[[Entry], Entry | None] | None = None,  # noqa: A002
    owner: Callable[[int, int], tuple[int, int]] | None = None,
    unmapped: Callable[[bytes, Entry], None] | None = None,
) -> ApplyStats:
    """Unpack `reader` into the directory `destination` (a path or a descriptor).

    `style` "overlay" writes an overlay upper directory: whiteouts become devices 0:0 and opaque marks
    (`trusted.`, or `user.` with `userxattr`); `lower` then tells what is below, for parents the layer does
    not name. "plain" changes a complete tree and deletes. `whiteouts=False` is for archives that are no
    layers: a `.wh.` name is refused; with None it is a name like others. Without `swaps` a directory takes no
    other file's place, and no other file a directory's.

    `prefix` is a directory inside the root to unpack under. `filter` may change an entry or, giving None,
    leave it out; `owner` maps the archive's uid and gid to those to set. `unmapped` is told of files whose
    owner this user namespace does not have (they keep the caller's); without it that is an OSError.

    Raises InvalidArchive, UnsafePath, LimitExceeded for what the archive is, OSError for what the disk is
    (ENOSPC). What was unpacked until then stays: the caller throws `destination` away.
    """
    root = (
        os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if isinstance(destination, str)
        else destination
    )
    opaque = "user.overlay.opaque" if userxattr else "trusted.overlay.opaque"
    tree = Tree(root, style, opaque, lower, reader.limits.depth)
    try:
        metadata = Metadata(owner, unmapped)
        tree.swaps = swaps
        applier = _Applier(reader, tree, metadata, style, lower, whiteouts, b"/".join(_parts(prefix)), filter)
        return applier.run()
    finally:
        tree.close()
        if root != destination:
            os.close(root)


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


class _Applier:
    def __init__(
        self,
        reader: TarReader,
        tree: Tree,
        metadata: Metadata,
        style: Style,
        lower: Lower | None,
        whiteouts: bool | None,
        prefix: bytes,
        edit: Callable[[Entry], Entry | None] | None,
    ) -> None:
        self._reader = reader
        self._tree = tree
        self._metadata = metadata
        self._overlay = style == "overlay"
        self._lower = lower
        self._whiteouts = whiteouts
        self._prefix = prefix
        self._edit = edit
        # What this layer put here, which its own whiteouts must spare; an overlay upper holds nothing else.
        self._mine: set[bytes] = set()
        self._removed = 0
        self._size = 0

    def run(self) -> ApplyStats:
        for read in self._reader:
            entry = self._edit(read) if self._edit else read
            if entry is not None:
                try:
                    self._entry(entry)
                except OSError as error:
                    if error.errno != errno.ENAMETOOLONG:
                        raise
                    shown = str(entry)[:80]
                    raise InvalidArchive(f"{shown}: a name or link is longer than Linux takes") from None
        self._finish_directories()
        notes, root = tuple(self._metadata.notes), b"" in self._tree.pending
        return ApplyStats(self._reader.entries, self._size, self._removed, notes, root)

    def _entry(self, entry: Entry) -> None:
        name = entry.name
        if self._prefix:
            name = self._prefix + b"/" + name if name else self._prefix
        if not entry.name:
            self._root(entry, name)
            return
        parent, _, base = name.rpartition(b"/")
        if base == b"..":
            raise UnsafePath(f"{entry} has `..` in it; entries may only name what is inside")
        if self._whiteouts is not None and b".wh." in name and self._is_whiteout(entry, parent, base):
            return
        if entry.kind is Kind.HARDLINK:
            self._hardlink(entry, parent, base)
        else:
            self._make(self._tree.enter(parent), base, entry, self._reader.read)

    def _root(self, entry: Entry, name: bytes) -> None:
        if entry.kind is not Kind.DIRECTORY:
            raise UnsafePath(f"the archive's root is a {entry.kind.name.lower()}; it can only be a directory")
        self._tree.pending[self._tree.enter(name).path] = entry

    # ---- making ----

    def _make(self, directory: Directory, base: bytes, entry: Entry, read: Callable[[int], bytes]) -> None:
        """`entry`, no hardlink, as `base` in `directory`."""
        kind = entry.kind
        if not self._overlay:
            self._mine.add(directory.child(base))
        if kind is Kind.FILE:
            self._file(directory, base, entry, read)
        elif kind is Kind.DIRECTORY:
            self._tree.make(directory, base, entry)
        elif kind is Kind.SYMLINK:
            if not entry.link:
                raise InvalidArchive(f"{entry} is a symlink to nothing")
            self._replacing(directory, base, lambda: os.symlink(entry.link, base, dir_fd=directory.fd))
            self._metadata.set_by_name(directory, base, entry)
        else:
            self._node(directory, base, entry)

    def _file(self, directory: Directory, base: bytes, entry: Entry, read: Callable[[int], bytes]) -> None:
        exact = self._metadata.creates_exactly(directory.plain, entry)
        mode = entry.mode if exact else 0o600
        try:
            fd = os.open(base, _CREATE, mode, dir_fd=directory.fd)
        except FileExistsError:
            self._tree.remove(directory, base)
            fd = os.open(base, _CREATE, mode, dir_fd=directory.fd)
        try:
            if entry.size:
                self._size += entry.size
                _fill(fd, entry, read)
            self._metadata.set_file(fd, directory, base, entry, exact)
        finally:
            os.close(fd)

    def _node(self, directory: Directory, base: bytes, entry: Entry) -> None:
        if entry.kind is Kind.CHAR and entry.major == entry.minor == 0:
            self._metadata.note(
                entry, "is character device 0:0, which overlay takes for a whiteout; left out"
            )
            return
        if entry.major > _MOST_MAJOR or entry.minor > _MOST_MINOR:
            self._metadata.note(entry, "is a device with a number that Linux does not have; left out")
            return
        device = os.makedev(entry.major, entry.minor)
        mode = _NODES[entry.kind] | 0o600
        try:
            self._replacing(directory, base, lambda: os.mknod(base, mode, device, dir_fd=directory.fd))
        except PermissionError:
            self._metadata.note(entry, "is a device, which takes privileges to make; left out")
            return
        self._metadata.set_by_name(directory, base, entry)

    def _replacing(self, directory: Directory, base: bytes, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._tree.remove(directory, base)
            make()

    # ---- hardlinks ----

    def _hardlink(self, entry: Entry, parent: bytes, base: bytes) -> None:
        name = self._prefix + b"/" + entry.link if self._prefix else entry.link
        target_parent, _, target = name.rpartition(b"/")
        if target in (b"", b".."):
            raise UnsafePath(f"{entry} is a hardlink to {entry.link!r}, which names no file inside")
        found = self._tree.enter(target_parent)
        self._copy_up(entry, found, target)
        where, source = found.child(target), os.dup(found.fd)
        try:
            directory = self._tree.enter(parent)
            if directory.child(base) == where:
                raise InvalidArchive(f"{entry} is a hardlink to itself")
            self._link(entry, source, target, directory, base)
        finally:
            os.close(source)
        if not self._overlay:
            self._mine.add(directory.child(base))

    def _link(self, entry: Entry, source: int, target: bytes, directory: Directory, base: bytes) -> None:
        try:
            self._replacing(
                directory,
                base,
                lambda: os.link(
                    target, base, src_dir_fd=source, dst_dir_fd=directory.fd, follow_symlinks=False
                ),
            )
        except FileNotFoundError:
            raise InvalidArchive(f"{entry} is a hardlink to {entry.link!r}, which does not exist") from None
        except PermissionError:
            if stat.S_ISDIR(os.lstat(target, dir_fd=source).st_mode):
                raise InvalidArchive(
                    f"{entry} is a hardlink to {entry.link!r}, which is a directory"
                ) from None
            raise

    def _copy_up(self, entry: Entry, directory: Directory, name: bytes) -> None:
        """Bring a hardlink's target up from the lower layers, so that both names are one file, when only
        they have it.
        """
        if not self._overlay:
            return
        try:
            status = os.lstat(name, dir_fd=directory.fd)
        except FileNotFoundError:
            below = self._lower.entry(directory.child(name)) if self._lower and not directory.hidden else None
            if below is None or below.kind in (Kind.DIRECTORY, Kind.HARDLINK):
                return
            self._bring(directory, name, below)
            return
        if is_whiteout_device(status):
            raise InvalidArchive(f"{entry} is a hardlink to {entry.link!r}, which the layer removes")

    def _bring(self, directory: Directory, name: bytes, below: Entry) -> None:
        if below.kind is not Kind.FILE or self._lower is None:
            self._make(directory, name, below, lambda _: b"")
            return
        fd = self._lower.open(directory.child(name))
        try:
            self._make(directory, name, below, lambda size: os.read(fd, size))
        finally:
            os.close(fd)

    # ---- whiteouts ----

    def _is_whiteout(self, entry: Entry, parent: bytes, base: bytes) -> bool:
        """Act on a whiteout. False when the name only looks alike. Reserved names never reach the tree."""
        parts = [part for part in entry.name.split(b"/") if whiteout.is_whiteout(part)]
        if not parts:
            return False
        if not self._whiteouts:
            raise InvalidArchive(f"{entry}: names that begin with `.wh.` are reserved for layers' whiteouts")
        if any(whiteout.is_bookkeeping(part) for part in parts):
            return True
        if len(parts) > 1 or not whiteout.is_whiteout(base):
            raise InvalidArchive(f"{entry} lies in a whiteout, which is no directory")
        self._removed += 1
        directory = self._tree.enter(parent)
        if base == whiteout.OPAQUE:
            self._opaque(directory)
        else:
            self._whiteout(directory, whiteout.target(base))
        return True

    def _opaque(self, directory: Directory) -> None:
        if self._overlay:
            self._tree.hide_lower(directory)
        else:
            empty_directory(directory.fd, b".", self._mine.__contains__, directory.path)

    def _whiteout(self, directory: Directory, name: bytes) -> None:
        if not self._overlay:
            self._delete(directory, name)
            return
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory.fd)
        except FileExistsError:
            # The layer's own: a file hides what is below by itself, a directory must be told to.
            if stat.S_ISDIR(os.lstat(name, dir_fd=directory.fd).st_mode):
                self._tree.hide(directory, name)

    def _delete(self, directory: Directory, name: bytes) -> None:
        path = directory.child(name)
        try:
            empty_directory(directory.fd, name, self._mine.__contains__, path)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            if path not in self._mine:
                os.unlink(name, dir_fd=directory.fd)
            return
        if path not in self._mine:
            try:
                os.rmdir(name, dir_fd=directory.fd)
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise

    # ---- directories, last ----

    def _finish_directories(self) -> None:
        """Metadata of directories, the deepest first: a mode may close a directory, and a name in it
        changes its time.
        """
        pending = self._tree.pending
        for path in sorted(pending, key=lambda path: path.split(b"/"), reverse=True):
            directory = self._tree.existing(path)
            if directory is not None:
                self._metadata.set_directory(directory, pending[path])


def _fill(fd: int, entry: Entry, read: Callable[[int], bytes]) -> None:
    if entry.size > _ASK_SPACE:
        _ask_for_space(fd, entry)
    left = entry.size
    while left:
        chunk = read(min(left, _CHUNK))
        if not chunk:
            raise InvalidArchive(f"{entry} ends {left} bytes too early")
        left -= len(chunk)
        if len(chunk) == _CHUNK and chunk == _ZEROS:
            os.lseek(fd, _CHUNK, os.SEEK_CUR)  # a hole costs no disk
        else:
            write_all(fd, chunk)
    if entry.size >= _CHUNK:
        os.ftruncate(fd, entry.size)


def _ask_for_space(fd: int, entry: Entry) -> None:
    status = os.fstatvfs(fd)
    free = status.f_bavail * status.f_frsize
    if status.f_blocks and free < entry.size:
        raise OSError(errno.ENOSPC, f"{entry} needs {entry.size} bytes, and {free} are free")
