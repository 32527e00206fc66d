"""The bytes that come in: heads and bodies of requests, each with a deadline and a least speed.

Nobody holds a thread by saying nothing, or little. Two readings of one body's length are how requests are
smuggled: whatever leaves room for that is refused (RFC 9112, 6 and 7).
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from typing import NoReturn

from oci.registry.server.problems import Problem

MAX_HEAD = 64 << 10
"""Bytes of a request line with its headers."""
BLOCK = 256 << 10
"""Bytes received at once, of which every connection with a body holds one buffer."""
HEAD_SECONDS = 20.0
"""How long a request's head may take, from its first byte."""
IDLE_SECONDS = 90.0
"""How long a connection may rest between two requests."""
STALL_SECONDS = 60.0
"""How long a body may stand still."""
WINDOW_SECONDS, LEAST_SPEED = 60.0, 1024
"""Slower than this many bytes a second over a whole window, and it is over."""
DRAIN = 8 << 20
"""Bytes of an unwanted body that are read away to save the connection."""

_LINE_END = r"[ \t]*(?:;[^\r\n]*)?\r\n"
_FIRST_CHUNK = re.compile(rf"([0-9A-Fa-f]{{1,15}}){_LINE_END}".encode())
_NEXT_CHUNK = re.compile(rf"\r\n([0-9A-Fa-f]{{1,15}}){_LINE_END}".encode())
_MAX_CHUNK_HEAD = 1024


class Gone(Exception):
    """The other side went away, or is as good as gone."""


class Stalled(Gone):
    """The other side sends or takes nothing, or next to nothing."""


class Pace:
    """Notices a transfer that is slower than `LEAST_SPEED` over a whole window."""

    __slots__ = ("_bytes", "_since")

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._bytes = 0

    def moved(self, count: int) -> None:
        """`count` bytes more. Raises Stalled."""
        self._bytes += count
        now = time.monotonic()
        if now - self._since >= WINDOW_SECONDS:
            if self._bytes < LEAST_SPEED * WINDOW_SECONDS:
                raise Stalled("the transfer is too slow")
            self._since, self._bytes = now, 0


class Incoming:
    """The bytes that come from a socket, with what was received beyond the head."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._rest = b""

    def idle(self, seconds: float) -> bool:
        """Wait for the next request's first byte; False when there will be none."""
        if not self._rest:
            self._socket.settimeout(seconds)
            try:
                self._rest = self._socket.recv(MAX_HEAD)
            except OSError:
                return False
        return bool(self._rest)

    def head(self) -> bytes:
        """A request's head, without the empty line. Raises Gone, and Problem when it is too long."""
        deadline = time.monotonic() + HEAD_SECONDS
        while len(self._rest) < 2 and b"\r\n".startswith(self._rest):  # an empty line goes before some heads
            self._rest += self._receive(MAX_HEAD, deadline - time.monotonic())
        self._rest = self._rest.removeprefix(b"\r\n") or self._receive(MAX_HEAD, deadline - time.monotonic())
        if not 0x41 <= self._rest[0] <= 0x5A:
            # Clients that try TLS first wait for a refusal before they come again in plain.
            raise Problem(400, "UNSUPPORTED", "this is no request of HTTP/1.1")
        while (end := self._rest.find(b"\r\n\r\n")) < 0:
            if len(self._rest) > MAX_HEAD:
                raise Problem(431, "UNSUPPORTED", f"the head is longer than {MAX_HEAD} bytes")
            self._rest += self._receive(MAX_HEAD, deadline - time.monotonic())
        head, self._rest = self._rest[:end], self._rest[end + 4 :]
        return head

    def into(self, view: memoryview) -> int:
        """Some bytes; never none. Raises Gone."""
        if self._rest:
            count = min(len(self._rest), len(view))
            view[:count] = self._rest[:count]
            self._rest = self._rest[count:]
            return count
        self._socket.settimeout(STALL_SECONDS)
        return _received(lambda: self._socket.recv_into(view))

    def more(self) -> bytes:
        """What is there, at most a block. Raises Gone."""
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        return self._receive(BLOCK, STALL_SECONDS)

    def give_back(self, rest: bytes) -> None:
        """What was received too much."""
        self._rest = rest

    def _receive(self, size: int, seconds: float) -> bytes:
        if seconds <= 0:
            raise Stalled("the head takes too long")
        self._socket.settimeout(seconds)
        data = b""

        def receive() -> int:
            nonlocal data
            data = self._socket.recv(size)
            return len(data)

        _received(receive)
        return data


def _received(receive: Callable[[], int]) -> int:
    try:
        count = receive()
    except TimeoutError:
        raise Stalled("nothing came") from None
    except OSError as error:
        raise Gone(str(error)) from None
    if not count:
        raise Gone("the connection ended")
    return count


class Chunks:
    """A body in the chunked transfer coding (RFC 9112, 7.1). Extensions and trailers are passed over."""

    def __init__(self, incoming: Incoming) -> None:
        self.ended = False
        self.broken = False
        self._incoming = incoming
        self._buffer = b""
        self._at = 0
        self._left = 0
        self._head = _FIRST_CHUNK

    def readinto(self, view: memoryview) -> int:
        """Fill some of `view`; 0 at the end. Raises Gone before it, Problem for what is no chunk."""
        filled = 0
        while filled < len(view) and not self.ended:
            if self._left and self._at < len(self._buffer):
                filled += self._payload(view[filled:])
            elif self._left or not self._next():
                if filled:
                    break
                self._buffer, self._at = self._buffer[self._at :] + self._incoming.more(), 0
        return filled

    def _payload(self, view: memoryview) -> int:
        count = min(self._left, len(self._buffer) - self._at, len(view))
        view[:count] = memoryview(self._buffer)[self._at : self._at + count]
        self._at += count
        self._left -= count
        return count

    def _next(self) -> bool:
        """Read the head of the next chunk; False if it is not all there."""
        match = self._head.match(self._buffer, self._at)
        if match is None:
            return self._incomplete(b"\n", self._at + 2)
        self._bounded(match.end())
        if size := int(match[1], 16):
            self._left, self._at, self._head = size, match.end(), _NEXT_CHUNK
            return True
        end = self._buffer.find(b"\r\n\r\n", match.end() - 2)
        if end < 0:
            return self._incomplete(b"", self._at)
        self._bounded(end + 4)
        self.ended = True
        self._incoming.give_back(self._buffer[end + 4 :])
        return True

    def _incomplete(self, sign: bytes, start: int) -> bool:
        self._bounded(len(self._buffer))
        if sign and self._buffer.find(sign, start) >= 0:
            self._malformed()
        return False

    def _bounded(self, end: int) -> None:
        """The head of a chunk, or the trailers, must not be longer than that, however they are cut."""
        if end - self._at > _MAX_CHUNK_HEAD:
            self._malformed()

    def _malformed(self) -> NoReturn:
        self.broken = True
        raise Problem(400, "UNSUPPORTED", "the body's chunks are malformed")


class Body:
    """A request's body. `length` is None if it comes in chunks and only its end will tell."""

    def __init__(
        self, incoming: Incoming, length: int | None, proceed: Callable[[], None] | None = None
    ) -> None:
        self.length = length
        self.received = 0
        self._incoming = incoming
        self._left = length or 0
        self._chunks = Chunks(incoming) if length is None else None
        self._proceed = proceed
        self._pace: Pace | None = None

    def readinto(self, view: memoryview) -> int:
        """Fill some of `view`; 0 at the end. Raises Gone before it, and Problem for broken chunks."""
        if self.ended:
            return 0
        self._begin()
        if self._chunks is not None:
            count = self._chunks.readinto(view)
        else:
            count = self._incoming.into(view[: self._left])
            self._left -= count
        self.received += count
        if self._pace is not None:
            self._pace.moved(count)
        return count

    def read(self, limit: int) -> bytes:
        """All of it. Raises Problem (413) beyond `limit` bytes."""
        if self.length is not None and self.length > limit:
            raise too_large(self.length, limit)
        content = bytearray()
        block = memoryview(bytearray(min(BLOCK, limit + 1)))
        while count := self.readinto(block):
            content += block[:count]
            if len(content) > limit:
                raise too_large(len(content), limit)
        return bytes(content)

    def drain(self) -> bool:
        """Read away what nobody wanted; False if that is too much, and the connection cannot go on."""
        if self.ended or not self.drainable:
            return self.ended
        block = memoryview(bytearray(BLOCK))
        enough = self.received + DRAIN
        while self.received <= enough:
            if not self.readinto(block):
                return True
        return False

    @property
    def ended(self) -> bool:
        """Whether all of it was read."""
        return self._chunks.ended if self._chunks is not None else not self._left

    @property
    def drainable(self) -> bool:
        """Whether what is left is so little that reading it away is cheaper than a new connection."""
        if self._chunks is not None and self._chunks.broken:
            return False
        return self.ended or (self._proceed is None and self._left <= DRAIN)

    def _begin(self) -> None:
        if self._proceed is not None:  # the client waits for our word (RFC 9110, 10.1.1)
            self._proceed()
            self._proceed = None
        if self._pace is None:
            self._pace = Pace()


def too_large(size: int, limit: int) -> Problem:
    """The answer to a body beyond the limit."""
    return Problem(413, "SIZE_INVALID", f"the body has {size} bytes or more; at most {limit} are taken here")
