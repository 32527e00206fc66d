"""Request bodies that stream: from a blob in a store, or from bytes as another registry sends them.

requests and urllib3 pass such a body on untouched (it has a length and yields itself); our connection then
asks it to write itself to the socket, so files go by sendfile where nothing has to be hashed.
"""

from __future__ import annotations

import hashlib
import os
import select
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socket import SO_SNDBUF, SO_SNDTIMEO, SOL_SOCKET
from typing import TYPE_CHECKING

from oci.digest import Digest
from oci.errors import DigestMismatch
from oci.progress import Progress, no_progress

if TYPE_CHECKING:
    import socket

    from oci.ahead import Verdict

PIECE = 1 << 20
_KERNEL_PIECE = 8 << 20
_HASHED_PIECE = 512 << 10
"""Fits a processor's own cache, and makes little of the interpreter's lock."""
_NEAR_BUFFER = 128 << 10
"""For a peer on this machine: what it reads is then still in the cache, where the kernel would let megabytes
wait."""

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
            count = _sent(sock, view)
            view = view[count:]
            self._moved(count, alive)


class FileBody(Outgoing):
    """The bytes of an open file from `offset` on, which the caller keeps open.

    Without a `digest` the kernel moves them. With one the whole file is hashed on the way, or has been
    hashed ahead (`verdict`), and the last piece is held back until the digest is known to be right: a damaged
    blob is never complete anywhere. Raises DigestMismatch.
    """

    def __init__(
        self,
        fd: int,
        offset: int,
        size: int,
        *,
        digest: Digest | None = None,
        verdict: Verdict | None = None,
        progress: Progress = no_progress,
    ) -> None:
        super().__init__(size, progress=progress)
        self._fd = fd
        self._offset = offset
        self._end = offset + size
        self._digest = digest
        self._verdict = verdict
        self._name = str(digest or "")

    def write(self, sock: socket.socket, alive: Alive) -> None:
        if self._digest is None:
            return self._move(sock, alive)
        if _is_near(sock):
            sock.setsockopt(SOL_SOCKET, SO_SNDBUF, _NEAR_BUFFER)
        with _patient(sock):
            if self._verdict is None:
                return self._hash_and_send(self._digest, sock, alive)
            return self._send_and_ask(self._digest, self._verdict, sock, alive)

    def _hash_and_send(self, digest: Digest, sock: socket.socket, alive: Alive) -> None:
        """From one buffer: what leaves is what was hashed, and is still in the processor's cache, so that a
        registry on this machine has less work with it than with what the kernel would move."""
        hasher = hashlib.new(digest.algorithm)
        position = 0
        for piece in self._pieces(0):
            hasher.update(piece)
            skip = min(len(piece), max(0, self._offset - position))
            position += len(piece)
            if position >= self._end:
                self._check(hasher, position)
            self._send(sock, piece[skip:], alive)
        if position < self._end or not self._end:
            self._check(hasher, position)
        self._check_whole(position)

    def _send_and_ask(self, digest: Digest, verdict: Verdict, sock: socket.socket, alive: Alive) -> None:
        """What was hashed ahead goes by the same way, and is hashed here only if nothing came of that."""
        position = self._offset
        for piece in self._pieces(self._offset):
            position += len(piece)
            if position >= self._end and not verdict.is_right(self._fd, lambda: alive(0)):
                self._hash(digest, alive)
            self._send(sock, piece, alive)
        self._check_whole(position)

    def _pieces(self, position: int) -> Iterator[memoryview]:
        """The file from `position` on in one buffer that is used again and again."""
        buffer = memoryview(bytearray(_HASHED_PIECE))
        while position < self._end and (
            count := os.preadv(self._fd, [buffer[: self._end - position]], position)
        ):
            yield buffer[:count]
            position += count

    def _hash(self, digest: Digest, alive: Alive) -> None:
        hasher, size = hashlib.new(digest.algorithm), 0
        for piece in self._pieces(0):
            hasher.update(piece)
            size += len(piece)
            alive(0)
        self._check(hasher, size)

    def _check(self, hasher: hashlib._Hash, size: int) -> None:
        if f"{hasher.name}:{hasher.hexdigest()}" != self._name:
            raise DigestMismatch(
                f"blob {self._name} is damaged: its {size} bytes are those of "
                f"{hasher.name}:{hasher.hexdigest()}",
                blob=self._name,
            )

    def _check_whole(self, position: int) -> None:
        if position < self._end:
            raise DigestMismatch("the blob's file was cut short while it was sent", blob=self._name)

    def _move(self, sock: socket.socket, alive: Alive) -> None:
        move = self._by_hand if _is_tls(sock) else self._by_kernel
        position = self._offset
        while position < self._end:
            count = move(sock, position, alive)
            if not count:
                break
            position += count
        self._check_whole(position)

    def _by_kernel(self, sock: socket.socket, start: int, alive: Alive) -> int:
        while True:
            if answered(sock):
                raise BrokenPipeError("the registry answered before it had everything")
            try:
                count = os.sendfile(sock.fileno(), self._fd, start, min(self._end - start, _KERNEL_PIECE))
            except BlockingIOError:
                _wait_writable(sock)
                continue
            self._moved(count, alive)
            return count

    def _by_hand(self, sock: socket.socket, start: int, alive: Alive) -> int:
        piece = os.pread(self._fd, min(PIECE, self._end - start), start)
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


def _is_near(sock: socket.socket) -> bool:
    """Whether the peer is on this machine: its address is ours."""
    try:
        return bool(sock.getpeername()[0] == sock.getsockname()[0])
    except (OSError, IndexError):
        return False


@contextmanager
def _patient(sock: socket.socket) -> Iterator[None]:
    """Have the kernel wait, for as long as the socket's timeout, until it has taken all of a piece: Python
    would be woken for every third of the connection's buffer. A shutdown still ends the wait."""
    timeout = sock.gettimeout()
    if timeout is None or _is_tls(sock):
        yield
        return
    seconds, rest = divmod(max(timeout, 0.001), 1)
    sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, struct.pack("@ll", int(seconds), int(rest * 1e6)))
    sock.settimeout(None)
    try:
        yield
    finally:
        sock.settimeout(timeout)


def _sent(sock: socket.socket, view: memoryview) -> int:
    """How many bytes the socket took. Raises TimeoutError."""
    try:
        return sock.send(view)
    except BlockingIOError:  # the kernel's own word for a time that is over
        raise TimeoutError("timed out") from None


def _wait_writable(sock: socket.socket) -> None:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    timeout = sock.gettimeout()
    if not poll.poll(None if timeout is None else timeout * 1000):
        raise TimeoutError("timed out")
