"""An answer, and its way out: one write if it is small, files sent by the kernel."""

from __future__ import annotations

import os
import select
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Protocol

from oci.registry.server.problems import Headers, Problem, reason
from oci.registry.server.receive import BLOCK, STALL_SECONDS, Gone, Pace, Stalled

LINGER_SECONDS = 2.0
"""How long a connection that ends early is read on, so that the other side gets our answer."""


@dataclass(slots=True)
class File:
    """Part of an open file as an answer's body: `count` bytes from `offset`. The descriptor belongs to it.

    `check` sees every block and may refuse the last one: then the other side is left with less than it was
    promised, rather than with bytes that are wrong.
    """

    fd: int
    offset: int
    count: int
    check: Check | None = None


class Stream(Protocol):
    """A body that arrives while it is sent."""

    @property
    def count(self) -> int:
        """Bytes of the whole."""

    def blocks(self) -> Iterator[memoryview]:
        """The bytes; each block is over when the next is asked for. Raises Gone if there will be no more."""


class Check(Protocol):
    """Looks at a file's bytes as they leave."""

    def update(self, block: memoryview) -> None:
        """The next bytes."""

    def passed(self) -> bool:
        """Whether all bytes together are what they should be."""


@dataclass(slots=True)
class Response:
    """An answer. `length` is what a HEAD is told when there is no body."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | File | Stream = b""
    length: int | None = None
    sent: int = 0

    @classmethod
    def of(cls, problem: Problem) -> Response:
        """The answer to a problem."""
        return cls(problem.status, [*json_type(), *problem.headers], problem.document())


def json_type() -> Headers:
    """The header of a JSON body."""
    return (("Content-Type", "application/json"),)


def close(response: Response) -> None:
    """Release what an answer holds."""
    if isinstance(response.body, File) and response.body.fd >= 0:
        os.close(response.body.fd)
        response.body.fd = -1


_date: tuple[int, str] = (0, "")


def _now() -> str:
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, formatdate(now, usegmt=True))
    return _date[1]


def send(sock: socket.socket, response: Response, *, bare: bool, last: bool) -> None:
    """Write an answer; `bare` without its body (HEAD), `last` when the connection ends. Raises Gone."""
    body = response.body
    length = response.length
    if length is None:
        length = len(body) if isinstance(body, bytes) else body.count
    lines = [f"HTTP/1.1 {response.status} {reason(response.status)}", f"Date: {_now()}"]
    if response.status not in (204, 304):
        lines.append(f"Content-Length: {length}")
    lines += [f"{name}: {value}" for name, value in response.headers]
    if last:
        lines.append("Connection: close")
    head = "\r\n".join([*lines, "\r\n"]).encode("latin-1", "replace")
    if bare or not length:
        send_all(sock, head)
    elif isinstance(body, File):
        send_all(sock, head, socket.MSG_MORE)
        _send_file(sock, body, response)
    elif isinstance(body, bytes):
        send_all(sock, head + body)
        response.sent = len(body)
    else:
        send_all(sock, head)
        for block in body.blocks():
            send_all(sock, block)
            response.sent += len(block)


def send_all(sock: socket.socket, data: bytes | memoryview, flags: int = 0) -> None:
    """Write all bytes within the stall time. Raises Gone."""
    sock.settimeout(STALL_SECONDS)
    try:
        if isinstance(sock, ssl.SSLSocket):
            sock.sendall(data)
        else:
            sock.sendall(data, flags)
    except TimeoutError:
        raise Stalled("nothing was taken") from None
    except OSError as error:
        raise Gone(str(error)) from None


def _send_file(sock: socket.socket, body: File, response: Response) -> None:
    if body.check is not None or isinstance(sock, ssl.SSLSocket):
        _send_blocks(sock, body, response)
        return
    pace = Pace()
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLOUT)
    while response.sent < body.count:
        try:
            count = os.sendfile(
                sock.fileno(), body.fd, body.offset + response.sent, min(body.count - response.sent, BLOCK)
            )
        except BlockingIOError:
            if not poll.poll(STALL_SECONDS * 1000):
                raise Stalled("nothing was taken") from None
            continue
        except OSError as error:
            raise Gone(str(error)) from None
        if not count:
            raise Gone("the file became shorter")
        response.sent += count
        pace.moved(count)


def _send_blocks(sock: socket.socket, body: File, response: Response) -> None:
    block = memoryview(bytearray(min(BLOCK, body.count)))
    pace = Pace()
    while response.sent < body.count:
        left = body.count - response.sent
        count = os.preadv(body.fd, [block[:left]], body.offset + response.sent)
        if not count:
            raise Gone("the file became shorter")
        if body.check is not None:
            body.check.update(block[:count])
            if count == left and not body.check.passed():
                raise Gone("the file is damaged")
        send_all(sock, block[:count])
        response.sent += count
        pace.moved(count)


def linger(sock: socket.socket) -> None:
    """Close so that the other side can still read our answer, though it has not sent all of its request."""
    deadline = time.monotonic() + LINGER_SECONDS
    try:
        sock.shutdown(socket.SHUT_WR)
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            if not sock.recv(BLOCK):
                break
    except OSError:
        pass
