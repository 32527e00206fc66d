"""Blobs that come from another registry and go out to clients at the same time.

One download serves all who ask for the blob, from its first byte on. It goes on when they are slow or gone,
and nobody gets its last byte before its digest was right.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

from oci.blobs import PARTIAL, BlobStore
from oci.digest import Digest
from oci.errors import BlobNotFound, OciError
from oci.model import Descriptor
from oci.registry.moving import Moving, Watch
from oci.registry.patience import Stopped
from oci.registry.server.options import Guard
from oci.registry.server.problems import Problem
from oci.registry.server.receive import BLOCK, Gone

MOST = 256
"""Downloads at once, waiting ones included; who asks for more is told to come again."""
_END_SECONDS = 5.0
_RESET_SECONDS = 0.05

Fetch = Callable[[Watch], None]
"""Puts the blob into the store, verified, and tells how far it is."""


class Transfer:
    """One blob on its way into the store."""

    def __init__(self, store: BlobStore, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self._store = store
        self._changed = threading.Condition()
        self._there = 0
        self._ended = False
        self._error: Exception | None = None

    @property
    def count(self) -> int:
        """Bytes of the whole."""
        return self.descriptor.size

    def at(self, moving: Moving) -> None:
        """The download tells how far it is; it may fall back."""
        if moving.state == "moving":
            with self._changed:
                self._there = moving.done
                self._changed.notify_all()

    def end(self, error: Exception | None) -> None:
        """The blob is in the store, or never will be."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def started(self) -> None:
        """Wait for the first bytes. Raises the download's error if it ends without any."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._there)
            if self._error is not None:
                raise self._error

    def finished(self) -> None:
        """Wait until the blob is in the store. Raises the download's error."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended)
            if self._error is not None:
                raise self._error

    def blocks(self) -> Iterator[memoryview]:
        """The blob as it arrives. Raises Gone when the download fails, or began anew with other bytes."""
        hasher = hashlib.new(self.descriptor.digest.algorithm)
        size, position, fd = self.descriptor.size, 0, -1
        block = memoryview(bytearray(BLOCK))
        try:
            while position < size:
                limit = self._wait(position)
                if fd < 0 and (fd := self._open()) < 0:
                    continue
                count = os.preadv(fd, [block[: limit - position]], position)
                if not count:
                    self._fallen_back(fd)
                    continue
                hasher.update(block[:count])
                position += count
                if position == size and hasher.hexdigest() != self.descriptor.digest.hex:
                    raise Gone("other bytes were sent before the download began anew")
                yield block[:count]
        finally:
            if fd >= 0:
                os.close(fd)

    def _wait(self, position: int) -> int:
        """Up to where bytes may be sent, which is beyond `position`: the last one waits for the digest."""
        last = self.descriptor.size - 1
        with self._changed:
            self._changed.wait_for(lambda: self._ended or min(self._there, last) > position)
            if self._error is not None:
                raise Gone(str(self._error))
            return self.descriptor.size if self._ended else min(self._there, last)

    def _open(self) -> int:
        """The file under construction, or the blob; -1 if it is just turning from one into the other."""
        digest = self.descriptor.digest
        try:
            if self._ended:
                return self._store.open_fd(digest)
            path = os.path.join(self._store.temporary, f"{PARTIAL}{digest.algorithm}-{digest.hex}")
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except BlobNotFound as error:
            raise Gone(str(error)) from None
        except FileNotFoundError:
            with self._changed:
                self._changed.wait_for(lambda: self._ended, _RESET_SECONDS)
            return -1

    def _fallen_back(self, fd: int) -> None:
        """The file has become shorter: it fills again, unless all is over."""
        with self._changed:
            if self._ended and os.fstat(fd).st_size < self.descriptor.size:
                raise Gone("the file became shorter")
            self._changed.wait_for(lambda: self._ended, _RESET_SECONDS)


class Transfers:
    """All downloads of a server, one for each blob."""

    def __init__(self, store: BlobStore, guard: Guard) -> None:
        self._store = store
        self._guard = guard
        self._lock = threading.Lock()
        self._running: dict[Digest, tuple[Transfer, threading.Thread]] = {}

    def begin(self, descriptor: Descriptor, fetch: Fetch) -> Transfer:
        """The download of a blob: the one that runs, or a new one. Raises Problem (503) for one too many."""
        with self._lock:
            running = self._running.get(descriptor.digest)
            if running is not None:
                return running[0]
            if len(self._running) >= MOST:
                headers = (("Retry-After", "5"),)
                raise Problem(503, "TOOMANYREQUESTS", "too many blobs are being fetched", headers=headers)
            transfer = Transfer(self._store, descriptor)
            thread = threading.Thread(target=self._run, args=(transfer, fetch), daemon=True)
            self._running[descriptor.digest] = (transfer, thread)
            thread.start()
        return transfer

    def running(self, digest: Digest) -> Transfer | None:
        """The download of a blob, if there is one."""
        with self._lock:
            found = self._running.get(digest)
        return found[0] if found else None

    def close(self) -> None:
        """Wait a while for those who were told to end."""
        with self._lock:
            threads = [thread for _, thread in self._running.values()]
        for thread in threads:
            thread.join(_END_SECONDS)

    def _run(self, transfer: Transfer, fetch: Fetch) -> None:
        digest = transfer.descriptor.digest
        error: Exception | None = OciError("the download was given up")
        try:
            with self._guard() as protection:
                protection.add((digest,))
                if digest not in self._store:  # who ended just before us may have brought it
                    fetch(transfer.at)
            error = None
        except Exception as failed:
            error = failed
            if not isinstance(failed, Stopped):
                sys.stderr.write(f"warning: {digest}: {failed}\n")
        finally:
            with self._lock:
                self._running.pop(digest, None)
            transfer.end(error)
