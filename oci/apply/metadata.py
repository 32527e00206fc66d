"""Owner, mode, extended attributes and time of what was unpacked, in the order the kernel needs (S49 of the
requirements in the design: chown clears setuid and capabilities, so it comes first; writing changes the
time, so it comes last).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from oci.apply.tree import Directory
from oci.tar import Entry, Kind

_DROPPED = (b"trusted.overlay.", b"user.overlay.", b"security.selinux")
_REFUSED = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL)
_MOST_NOTES = 100
_NANO = 1_000_000_000


class Metadata:
    """Sets what entries say, and collects notes of what could not be set."""

    def __init__(
        self,
        owner: Callable[[int, int], tuple[int, int]] | None,
        unmapped: Callable[[bytes, Entry], None] | None,
    ) -> None:
        self._map = owner
        self._unmapped = unmapped
        self._self = (os.geteuid(), os.getegid())
        self._shut = 0o7000 | _umask()
        self.notes: list[str] = []

    def note(self, entry: Entry, text: str) -> None:
        if len(self.notes) < _MOST_NOTES:
            self.notes.append(f"{entry} {text}")

    def owner(self, entry: Entry) -> tuple[int, int]:
        return self._map(entry.uid, entry.gid) if self._map else (entry.uid, entry.gid)

    def creates_exactly(self, plain: bool, entry: Entry) -> bool:
        """Whether creating a file with its mode leaves owner and mode as they should be."""
        return plain and not entry.mode & self._shut and self.owner(entry) == self._self

    def set_file(self, fd: int, directory: Directory, base: bytes, entry: Entry, exact: bool) -> None:
        """Everything of the new file `fd`; `exact` says that owner and mode are right already."""
        if not exact:
            owner = self.owner(entry)
            if owner != self._self or not directory.plain:
                self._chown(lambda: os.chown(fd, *owner), directory.child(base), entry)
            os.chmod(fd, entry.mode)
        self._finish(fd, entry)

    def set_directory(self, directory: Directory, entry: Entry) -> None:
        """Everything of a directory, which may be older than the archive."""
        fd = directory.fd
        owner = self.owner(entry)
        self._chown(lambda: os.chown(fd, *owner), directory.path, entry)
        os.chmod(fd, entry.mode)
        self._finish(fd, entry)

    def _finish(self, fd: int, entry: Entry) -> None:
        for name, value in entry.xattrs:
            self._xattr(fd, name, value, entry)
        time = entry.mtime * _NANO
        os.utime(fd, ns=(time, time))

    def set_by_name(self, directory: Directory, base: bytes, entry: Entry) -> None:
        """Everything of a symlink, device or fifo just made, which nothing may open."""
        owner = self.owner(entry)
        if owner != self._self or not directory.plain:
            self._chown(
                lambda: os.chown(base, *owner, dir_fd=directory.fd, follow_symlinks=False),
                directory.child(base),
                entry,
            )
        if entry.kind is not Kind.SYMLINK:
            fd = os.open(base, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
            try:
                os.chmod(f"/proc/self/fd/{fd}", entry.mode)
            finally:
                os.close(fd)
        for name, value in entry.xattrs:
            self._xattr(b"/proc/self/fd/%d/%b" % (directory.fd, base), name, value, entry)
        time = entry.mtime * _NANO
        os.utime(base, ns=(time, time), dir_fd=directory.fd, follow_symlinks=False)

    def _chown(self, chown: Callable[[], None], path: bytes, entry: Entry) -> None:
        try:
            chown()
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            if self._unmapped is None:
                text = f"owner {entry.uid}:{entry.gid} of {entry} has no id in this user namespace"
                raise OSError(errno.EINVAL, text) from None
            self._unmapped(path, entry)

    def _xattr(self, where: int | bytes, name: bytes, value: bytes, entry: Entry) -> None:
        if name.startswith(_DROPPED):
            return
        try:
            os.setxattr(where, name, value, follow_symlinks=isinstance(where, int))
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            self.note(entry, f"keeps no {name.decode(errors='replace')}: {os.strerror(error.errno)}")


def _umask() -> int:
    """The process's umask, read without setting it (which other threads would see)."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o777
