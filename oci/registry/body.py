"""Request bodies that stream: from a blob in a store, or from bytes as another registry sends them.

requests and urllib3 pass such a body on untouched (it has a length and yields itself); our connection then
asks it to write itself to the socket, so files go by sendfile where nothing has to be hashed.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from oci.digest import Digest
from oci.errors import DigestMismatch
from oci.progress import Progress, no_progress

if TYPE_CHECKING:
    import socket

PIECE = 1 << 20
_KERNEL_PIECE = 8 << 20

Alive = Callable[[int], None]
"""Told how many bytes have moved; raises to break the transfer off."""


class Outgoing:
    """A body of `size` bytes. `write` puts them on a connected socket."""

    def __init__(self, size: int, *, progress: Progress = no_progress) -> None:
        self.size = size
        self.sent = 0
        self._progress = progress

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Outgoing]:
        yield self

    def write(self, sock: socket.socket, alive: Alive) -> None:
        """Send everything. Raises BrokenPipeError when the peer has already answered: it wants no more."""
        raise NotImplementedError

    def _moved(self, count: int, alive: Alive) -> None:
        self.sent += count
        self._progress(count)
        alive(count)

    def _send(self, sock: socket.socket, data: bytes | memoryview, alive: Alive) -> None:
        view = memoryview(data)
        while view:
            if answered(sock):
                raise BrokenPipeError("the registry answered before it had everything")
            count = sock.send(view)
            view = view[count:]
            self._moved(count, alive)


class FileBody(Outgoing):
    """The bytes of an open file from `offset` on; the kernel moves them. The caller keeps the file open.

    With a `digest` the whole file is hashed on the way, and the last piece held back until the digest is
    known to be right: a damaged blob is never complete anywhere. Raises DigestMismatch.
    """

    def __init__(
        self,
        fd: int,
        offset: int,
        size: int,
        *,
        digest: Digest | None = None,
        progress: Progress = no_progress,
    ) -> None:
        super().__init__(size, progress=progress)
        self._fd = fd
        self._offset = offset
        self._digest = digest
        self._name = str(digest or "")

    def write(self, sock: socket.socket, alive: Alive) -> None:
        end = self._offset + self.size
        if self._digest is None:
            return self._move(sock, self._offset, end, alive)
        start = self._offset
        for position in self._hashed(self._digest):
            stop = min(position, end)
            self._move(sock, start, stop, alive)
            start = max(start, stop)
        return self._move(sock, start, end, alive)

    def _hashed(self, digest: Digest) -> Iterator[int]:
        """Hash the file piece by piece, giving each piece's position; return only if the digest is right."""
        import hashlib

        hasher = hashlib.new(digest.algorithm)
        view = memoryview(bytearray(PIECE))
        position = 0
        while count := os.preadv(self._fd, [view], position):
            yield position
            hasher.update(view[:count])
            position += count
        if hasher.hexdigest() != digest.hex:
            raise DigestMismatch(
                f"blob {digest} is damaged: its {position} bytes are those of "
                f"{digest.algorithm}:{hasher.hexdigest()}",
                blob=str(digest),
            )

    def _move(self, sock: socket.socket, start: int, end: int, alive: Alive) -> None:
        move = self._by_hand if _is_tls(sock) else self._by_kernel
        while start < end:
            count = move(sock, start, end, alive)
            if not count:
                raise DigestMismatch("the blob's file was cut short while it was sent", blob=self._name)
            start += count

    def _by_kernel(self, sock: socket.socket, start: int, end: int, alive: Alive) -> int:
        while True:
            if answered(sock):
                raise BrokenPipeError("the registry answered before it had everything")
            try:
                count = os.sendfile(sock.fileno(), self._fd, start, min(end - start, _KERNEL_PIECE))
            except BlockingIOError:
                _wait_writable(sock)
                continue
            self._moved(count, alive)
            return count

    def _by_hand(self, sock: socket.socket, start: int, end: int, alive: Alive) -> int:
        piece = os.pread(self._fd, min(PIECE, end - start), start)
        self._send(sock, piece, alive)
        return len(piece)


class PiecesBody(Outgoing):
    """Bytes as somebody else yields them. `pieces` must add up to `size`, or raise."""

    def __init__(self, pieces: Iterator[bytes], size: int, *, progress: Progress = no_progress) -> None:
        super().__init__(size, progress=progress)
        self._pieces = pieces

    def write(self, sock: socket.socket, alive: Alive) -> None:
        for piece in self._pieces:
            self._send(sock, piece, alive)


def answered(sock: socket.socket) -> bool:
    """Whether the peer has sent something, or hung up, while we were still sending. TLS has words of its own
    to say at any time, so there we learn it only at the end."""
    if _is_tls(sock):
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _is_tls(sock: socket.socket) -> bool:
    return hasattr(sock, "cipher")


def _wait_writable(sock: socket.socket) -> None:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    timeout = sock.gettimeout()
    if not poll.poll(None if timeout is None else timeout * 1000):
        raise TimeoutError("timed out")
