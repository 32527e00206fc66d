"""What our registry reads from its sockets, and what our client reads in a registry's headers."""

from __future__ import annotations

from unittest.mock import patch

from oci.registry import headers
from oci.registry.server import receive
from oci.registry.server.problems import Problem
from oci.registry.server.receive import Gone, Incoming
from oci.registry.server.request import parse

SEEDS = (
    b"GET /v2/a/tags/list?n=5&last=x HTTP/1.1\r\nHost: x\r\nConnection: close, x\r\n\r\n",
    b"PATCH /v2/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4;e=1\r\nab\r\n0\r\nT: x\r\n\r\n",
    b"PUT http://u:p@h/v2/%2e%2e/x HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nabcdefg",
    b'Bearer realm="https://a/t?x=\\"y",service=b,scope="repository:a:pull" , Basic realm="x"',
    b'</v2/a?n=1&last=%20>; rel="next", <x>; rel=prev',
    b"bytes 0-5/*",
    b"Wed, 21 Oct 2015 07:28:00 GMT",
)
WORDS = (
    b"HTTP/1.1\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked",
    b"\r\n\r\n",
    b"Host: ",
    b"0\r\n\r\n",
    b"Basic ",
)


class Pieces:
    """A socket that gives what it has, a few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size

    def settimeout(self, seconds: float) -> None:
        pass

    def recv(self, size: int) -> bytes:
        piece, self._data = self._data[: self._size], self._data[self._size :]
        return piece

    def recv_into(self, view: memoryview) -> int:
        piece = self._data[: min(self._size, len(view))]
        self._data = self._data[len(piece) :]
        view[: len(piece)] = piece
        return len(piece)


def target(data: bytes) -> None:
    """The same requests, however the bytes are cut."""
    with patch.object(receive, "HEAD_SECONDS", 1e9):  # a fuzzer may stand still for a while
        whole, pieces = _requests(Pieces(data, 1 << 20)), _requests(Pieces(data, 3))
    assert whole == pieces, (whole, pieces)
    text = data.decode("latin-1")
    headers.challenges(text)
    headers.retry_after(text, 1e9)
    headers.next_link(text)
    headers.received(text)
    headers.content_range(text)


def _requests(sock: Pieces) -> list[object]:
    incoming = Incoming(sock)  # type: ignore[arg-type]
    found: list[object] = []
    try:
        while len(found) < 50:
            if not incoming.idle(1):
                return found
            request = parse(incoming.head(), incoming, lambda: None, "")
            found.append((request.method, request.path, sorted(request.headers.items()), request.query))
            block, content = memoryview(bytearray(64)), b""
            while count := request.body.readinto(block):
                content += block[:count]
            found.append(content)
    except Problem as problem:
        assert 400 <= problem.status < 500
        found.append(problem.status)
    except Gone:
        found.append("gone")
    return found
