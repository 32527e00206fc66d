"""Files that survive: temporaries that say whether their maker lives, flushes, and reading that verifies."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from oci.digest import Digest
from oci.errors import DigestMismatch
from oci.progress import Progress

CHUNK = 1 << 20
"""Bytes read, hashed or written at once: enough for the interpreter's lock not to matter."""

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class VerifiedReader(io.RawIOBase):
    """Reads a descriptor, which it owns, and compares the digest where the bytes end."""

    def __init__(self, fd: int, digest: Digest) -> None:
        super().__init__()
        self._fd = fd
        self._digest = digest
        self._hasher = hashlib.new(digest.algorithm)
        self._size = os.fstat(fd).st_size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        count = os.readv(self._fd, [view])
        if count:
            self._hasher.update(view[:count])
        elif len(view):
            self._end()
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        chunk = os.read(self._fd, size)
        if chunk:
            self._hasher.update(chunk)
        elif size:
            self._end()
        return chunk

    def _end(self) -> None:
        if self._hasher.hexdigest() != self._digest.hex:
            raise DigestMismatch(
                f"blob {self._digest} is damaged: its {self._size} bytes are those of "
                f"{self._digest.algorithm}:{self._hasher.hexdigest()}",
                blob=str(self._digest),
            )

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


def identity_of(fd: int) -> tuple[int, ...]:
    """What changes when somebody writes to a file or puts another in its place."""
    status = os.fstat(fd)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte to a descriptor, which may be a pipe. An error names the file, if it has a name."""
    view = memoryview(data).cast("B")
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as error:
        with suppress(OSError):
            error.filename = error.filename or _name(fd)
        raise


def _name(fd: int) -> str | None:
    """The path of an open file; that of its directory if it has no name (yet)."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    if path.endswith(" (deleted)"):
        path = os.path.dirname(path)
    return path if path.startswith("/") else None


def sync_directory(path: str) -> None:
    """Make renames in a directory survive a power cut."""
    fd = os.open(path, DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def move(source: int, out: int, progress: Progress) -> int:
    """Copy a file to a descriptor within the kernel: shared extents, or sendfile."""
    total = 0
    copy = os.copy_file_range
    while True:
        try:
            count = copy(source, out, 64 * CHUNK)
        except OSError as error:
            if total or error.errno not in (
                errno.EINVAL,
                errno.EXDEV,
                errno.EBADF,
                errno.ENOSYS,
                errno.EOPNOTSUPP,
            ):
                raise
            break
        if not count:
            return total
        total += count
        progress(count)
    with suppress(OSError):  # files opened to append refuse both
        while count := os.sendfile(out, source, total, 16 * CHUNK):
            total += count
            progress(count)
    while chunk := os.pread(source, CHUNK, total):
        write_all(out, chunk)
        total += len(chunk)
        progress(len(chunk))
    return total


def make_file(path: str) -> int:
    """A new file that nobody could have put there, for `locked`."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def make_directory(path: str) -> int:
    """A new directory, for `locked`."""
    os.mkdir(path, 0o700)
    return os.open(path, DIRECTORY | os.O_NOFOLLOW)


def remove_tree(path: str) -> bool:
    """Remove a directory and all below it, as far as it lets us; whether it is gone.

    `shutil.rmtree` does the same, and brings three codecs with it, which take longer to load than what most
    builds have to remove takes to go.
    """
    with suppress(OSError):
        for _, directories, files, fd in os.fwalk(path, topdown=False):
            for name in (*files, *directories):
                with suppress(OSError):
                    _remove(name, fd)
        os.rmdir(path)
    return not os.path.lexists(path)


def _remove(name: str, directory: int) -> None:
    if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
        os.rmdir(name, dir_fd=directory)
    else:
        os.unlink(name, dir_fd=directory)


def make_private(directory: str) -> None:
    """Make a directory for its owner alone, unless it is there. It may vanish again at any time."""
    with suppress(FileExistsError):
        os.mkdir(directory, 0o700)


def locked(directory: str, make: Callable[[str], int]) -> tuple[str, int]:
    """A new entry of `directory` and a descriptor that holds its lock for as long as it is open."""
    while True:
        path = os.path.join(directory, os.urandom(8).hex())
        try:
            fd = make(path)
        except FileNotFoundError:  # somebody removed it between making and opening, or `tmp/` itself
            make_private(directory)
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.path.exists(path):
            return path, fd
        os.close(fd)  # `clean` was faster than our lock


def open_untrusted(path: str, _flags: int = 0) -> int:
    """Open a file to read where somebody else may have put it: no link is followed, no fifo waited for.

    It is an `opener` for the built-in `open`, which then also closes a directory that it refuses; os.fdopen
    would leave that open.
    """
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def remove_if_dead(path: str) -> bool:
    """Remove a temporary entry whose maker lives no more (nobody holds its lock)."""
    try:
        fd = open_untrusted(path)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            remove_tree(path)
        else:
            with suppress(FileNotFoundError):
                os.unlink(path)
        return True
    finally:
        os.close(fd)
