"""Blobs that have arrived in part: a file named by digest in the store's `tmp/`, taken up again by the next
pull."""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import suppress

from oci.blobs import PARTIAL, BlobStore
from oci.digest import Digest
from oci.durable import CHUNK, make_private, write_all
from oci.registry.patience import Stop

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_POLL_S = 0.05
_ETAG = "user.pybuild.etag"
_LONGEST_ETAG = 1024


class Partial:
    """A blob under way, locked against every other process and thread. Use it in `with`; what was received
    stays.

    `size` bytes are there. If somebody else finishes the blob while we wait for the lock, `complete` is true.
    """

    def __init__(self, store: BlobStore, digest: Digest, stop: Stop) -> None:
        self.digest = digest
        self.size = 0
        self._store = store
        self._directory = _temporary(store)
        self._path = os.path.join(self._directory, f"{PARTIAL}{digest.algorithm}-{digest.hex}")
        self._fd = self._lock(stop)
        self._hasher = hashlib.new(digest.algorithm)
        self._etag = ""
        with suppress(OSError):
            self._etag = os.getxattr(self._fd, _ETAG).decode("latin-1")
        self.complete = digest in store
        if not self.complete:
            self._take_in()

    def append(self, data: bytes | memoryview) -> None:
        """Add bytes at the end."""
        self._hasher.update(data)
        write_all(self._fd, data)
        self.size += len(data)

    @property
    def etag(self) -> str:
        """The strong validator that came with the bytes, "" if none did; kept with the file where its file
        system keeps attributes."""
        return self._etag

    @etag.setter
    def etag(self, value: str) -> None:
        value = value[:_LONGEST_ETAG] if value.startswith('"') else ""
        if value != self._etag:
            self._etag = value
            with suppress(OSError):
                os.setxattr(self._fd, _ETAG, value.encode("latin-1", "replace"))

    def reset(self) -> None:
        """Forget all that is there."""
        self.etag = ""
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._hasher = hashlib.new(self.digest.algorithm)
        self.size = 0

    def actual(self) -> Digest:
        """The digest of the bytes that are there."""
        return Digest(self.digest.algorithm, self._hasher.hexdigest())

    def commit(self) -> None:
        """Make it a blob. The caller has compared size and digest."""
        with suppress(OSError):
            os.removexattr(self._fd, _ETAG)
        self._store.adopt(self._path, self._fd, self.digest)

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *exc: object) -> None:
        if not self.size or self.complete:  # while we hold the lock, nobody else can have written to it
            with suppress(FileNotFoundError):
                if os.path.samestat(os.lstat(self._path), os.fstat(self._fd)):
                    os.unlink(self._path)
        os.close(self._fd)

    def _lock(self, stop: Stop) -> int:
        while True:
            try:
                fd = os.open(self._path, _FLAGS, 0o600)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(self._directory), 0o700, exist_ok=True)
                make_private(self._directory)
                continue
            try:
                if self._is_ours(fd):
                    return fd
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)
            stop.sleep(_POLL_S)
            stop.check()

    def _is_ours(self, fd: int) -> bool:
        """Whether we have the lock, on the file that still has the name."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return os.path.samestat(os.lstat(self._path), os.fstat(fd))
        except (BlockingIOError, FileNotFoundError):
            return False

    def _take_in(self) -> None:
        """Hash what an earlier pull has left."""
        while chunk := os.read(self._fd, CHUNK):
            self._hasher.update(chunk)
            self.size += len(chunk)


def _temporary(store: BlobStore) -> str:
    """The `tmp/` that outlives this process: a staging's own is gone with it."""
    while parent := getattr(store, "parent", None):
        store = parent
    return store.temporary
