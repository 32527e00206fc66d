"""What uploads leave on the disk: they outlive the server, so that a client goes on where it was (R28).

    registry/uploads/<id>        what has arrived; locked by the server that has it open
    registry/uploads/<id>.json   which repository it is for, and the algorithm its digest will have

Nothing here is visible to anybody but the one who knows the id. Neither file is flushed: after a power cut a
session may be gone or wrong, and the digest tells.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
import uuid
from contextlib import suppress

from oci.blobs import BlobStore
from oci.digest import Digest
from oci.durable import write_all
from oci.registry.server.links import DIRECTORY

LIFE_SECONDS = 24 * 3600.0
"""How long an upload may rest before it is given up."""
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Session:
    """The file of one upload, open and locked. `size` bytes are there."""

    def __init__(
        self, store: BlobStore, path: str, fd: int, repository: str, algorithm: str, size: int
    ) -> None:
        self.id = os.path.basename(path)
        self.repository = repository
        self.algorithm = algorithm
        self.size = size
        self._store = store
        self._path = path
        self._fd = fd

    def write(self, data: memoryview) -> None:
        """Append bytes."""
        write_all(self._fd, data)
        self.size += data.nbytes

    def fileno(self) -> int:
        """The file, for reading what is there."""
        return self._fd

    def commit(self, digest: Digest) -> None:
        """Make it a blob; that the digest is right is the caller's word."""
        self._store.adopt(self._path, self._fd, digest)
        self.rest()
        _unlink(self._path)

    def discard(self) -> None:
        """Give it up: nothing is left."""
        _unlink(self._path)
        self.rest()

    def rest(self) -> None:
        """Let go of the file, which stays."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Sessions:
    """The sessions of a store's registry."""

    def __init__(self, root: str, store: BlobStore) -> None:
        self._store = store
        self._directory = os.path.join(root, DIRECTORY, "uploads")
        os.makedirs(self._directory, 0o700, exist_ok=True)

    def create(self, repository: str, algorithm: str, *, lasting: bool = True) -> Session:
        """A new one, with an id that nobody can guess. One that is not `lasting` dies with this process."""
        path, fd = self._file()
        session = Session(self._store, path, fd, repository, algorithm, 0)
        if lasting:
            try:
                about = json.dumps({"repository": repository, "algorithm": algorithm})
                with open(f"{path}.json", "x", encoding="utf-8", opener=_private) as file:
                    file.write(about)
            except BaseException:
                session.discard()
                raise
        return session

    def resume(self, name: str) -> Session | None:
        """One that an earlier server left; None if there is none, or another server has it open."""
        if not _ID.fullmatch(name):
            return None
        path = os.path.join(self._directory, name)
        try:
            fd = os.open(path, _FLAGS)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.lstat(path)):
                repository, algorithm = _about(path)
                size = os.lseek(fd, 0, os.SEEK_END)
                return Session(self._store, path, fd, repository, algorithm, size)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        os.close(fd)
        return None

    def expire(self, age: float = LIFE_SECONDS) -> int:
        """Remove those that rested for `age` seconds, and what broken ones have left; how many files went."""
        before = time.time() - age
        return sum(_expire(entry.path, before) for entry in list(os.scandir(self._directory)))

    def _file(self) -> tuple[str, int]:
        while True:
            path = os.path.join(self._directory, _identifier())
            fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.exists(path):
                return path, fd
            os.close(fd)  # `expire` was faster than our lock


def expire(root: str, age: float = LIFE_SECONDS) -> int:
    """Remove the sessions that nobody goes on with from a layout that a registry served; how many files."""
    directory = os.path.join(root, DIRECTORY, "uploads")
    if not os.path.isdir(directory):
        return 0
    return Sessions(root, BlobStore(root)).expire(age)


def _expire(path: str, before: float) -> bool:
    base, extension = os.path.splitext(path)
    try:
        old = os.lstat(path).st_mtime <= before
        if extension:  # goes with its file
            if os.path.exists(base) or not old:
                return False
            os.unlink(path)
            return True
        fd = os.open(path, _FLAGS)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not old and os.path.exists(f"{path}.json"):
                return False
            _unlink(path)
        finally:
            os.close(fd)
    except OSError:  # somebody has it open, or was faster
        return False
    return True


def _about(path: str) -> tuple[str, str]:
    with open(f"{path}.json", "rb") as file:
        about = json.loads(file.read(4096))
    return str(about["repository"]), str(about["algorithm"])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _unlink(path: str) -> None:
    for each in (path, f"{path}.json"):
        with suppress(FileNotFoundError):
            os.unlink(each)


def _identifier() -> str:
    """A random UUID (RFC 9562, version 4): 122 bits that nobody can guess."""
    return str(uuid.UUID(bytes=os.urandom(16), version=4))
