"""What a container's monitor and its clients say to each other: frames over a stream socket.

    frame      one letter, a length in four bytes (big endian), that many bytes

    client     J  a request, JSON; the first frame
               I  standard input; empty: it is over
               S  a signal's number, as text
               W  the terminal's size: "ROWS COLUMNS"
    monitor    R  the answer to a request, JSON: {} or {"error": ...}
               O, E  standard output, standard error
               X  the end, JSON: {"status": 0, ...}; the last frame

The socket's directory is its owner's alone (SECURITY.md S60).
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import Any

from builder.errors import SandboxError

REQUEST, INPUT, SIGNAL, SIZE = b"J", b"I", b"S", b"W"
ANSWER, OUTPUT, ERRORS, END = b"R", b"O", b"E", b"X"
_HEAD = struct.Struct("!cI")
_MOST = 1 << 20


def frame(kind: bytes, body: bytes = b"") -> bytes:
    """One frame."""
    return _HEAD.pack(kind, len(body)) + body


def document(kind: bytes, value: Any) -> bytes:
    """A frame that holds JSON."""
    return frame(kind, json.dumps(value).encode())


class Frames:
    """Frames out of the bytes as they come. Raises ValueError for one that is too long."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, chunk: bytes) -> list[tuple[bytes, bytes]]:
        """The frames that are complete now: (letter, body)."""
        self._held += chunk
        found = []
        while len(self._held) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._held)
            if length > _MOST:
                raise ValueError("a frame is too long")
            end = _HEAD.size + length
            if len(self._held) < end:
                break
            found.append((kind, bytes(self._held[_HEAD.size : end])))
            del self._held[:end]
        return found


def listen(directory: str) -> socket.socket:
    """A listening socket `control` in a directory, whose path may be of any length."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path = os.path.join(directory, "control")
        if os.path.lexists(path):
            os.unlink(path)
        server.bind(f"/proc/self/fd/{fd}/control")
        server.listen(64)
    except BaseException:
        server.close()
        raise
    finally:
        os.close(fd)
    return server


def connect(directory: str) -> socket.socket:
    """A connection to who listens there. Raises OSError when nobody does."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        client.connect(f"/proc/self/fd/{fd}/control")
    except BaseException:
        client.close()
        raise
    finally:
        os.close(fd)
    return client


def received(connection: socket.socket) -> int:
    """The descriptor that comes with an answer. Raises SandboxError with what the monitor says instead,
    OSError when it says nothing.
    """
    frames, found = Frames(), -1
    while True:
        chunk, fds, _, _ = socket.recv_fds(connection, 1 << 16, 1, socket.MSG_CMSG_CLOEXEC)
        found = fds[0] if fds else found
        if not chunk:
            raise ConnectionResetError("the container's monitor is gone")
        for kind, body in frames.feed(chunk):
            answer = json.loads(body) if kind in (ANSWER, END) else {}
            if found >= 0 and not answer.get("error"):
                return found
            raise SandboxError(answer.get("error") or "it has ended", hint=answer.get("hint", ""))


def ask(directory: str, request: dict[str, Any]) -> dict[str, Any]:
    """One request and its answer. Raises OSError when nobody answers."""
    with connect(directory) as client:
        client.sendall(document(REQUEST, request))
        frames = Frames()
        while chunk := client.recv(1 << 16):
            for kind, body in frames.feed(chunk):
                if kind in (ANSWER, END):
                    return dict(json.loads(body))
    raise ConnectionResetError("the container's monitor is gone")
