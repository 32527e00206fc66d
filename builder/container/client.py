"""This side of being attached to a container's program: our standard streams joined to its own, through its
monitor.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from builder.container import wire
from builder.container.terminal import raw, size_of
from builder.errors import SandboxError, UsageError
from builder.sandbox.spec import Terminal
from oci.data import dataclass

if TYPE_CHECKING:
    from types import FrameType

DETACH_KEYS = "ctrl-p,ctrl-q"
_CHUNK = 1 << 16
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_ENOUGH = 2
"""So many times what asks us to end asks the program; then it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """What is joined. `terminal`: the program has one. `detach` are the bytes that end our part of it, b""
    for none; `signals` are passed on.
    """

    stdin: bool = False
    terminal: bool = False
    signals: bool = True
    detach: bytes = b""
    outputs: bool = True


def detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` as the bytes they are typed as. Raises UsageError."""
    found = bytearray()
    for key in text.split(",") if text else ():
        if len(key) == 1 and key.isascii():
            found += key.encode()
        elif key.startswith("ctrl-") and len(key) == 6 and "@" <= key[-1].upper() <= "_":
            found.append(ord(key[-1].upper()) & 0x1F)
        else:
            raise UsageError(
                f"--detach-keys {text!r}: {key!r} is no key",
                hint="letters, or ctrl- and one of a-z @ [ \\ ] ^ _",
            )
    return bytes(found)


def attached(connection: socket.socket, streams: Streams) -> dict[str, Any] | None:
    """Pass everything on until the program ends: what is said of its end. None when we left before it.

    Raises SandboxError when the monitor refuses, or is gone without a word.
    """
    with ExitStack() as stack:
        stack.enter_context(connection)
        link = _Link(connection, streams)
        if streams.terminal:
            stack.enter_context(_sizes(link))
            if streams.stdin and os.isatty(0):
                stack.enter_context(raw(0))
        if streams.signals:
            stack.enter_context(_signals(link))
        return link.run()


class _Link:
    def __init__(self, connection: socket.socket, streams: Streams) -> None:
        self._socket = connection
        self._streams = streams
        self._frames = wire.Frames()
        self._lock = threading.Lock()
        self._typed = b""
        self.passed: list[int] = []

    def send(self, kind: bytes, body: bytes = b"") -> None:
        with suppress(OSError):
            self._socket.sendall(wire.frame(kind, body))

    def pass_on(self, number: int) -> None:
        """A signal of ours for the program; after some of them the last one."""
        self.passed.append(number)
        enough = len(self.passed) > _ENOUGH
        self.send(wire.SIGNAL, b"%d" % (signal.SIGKILL if enough else number))

    def run(self) -> dict[str, Any] | None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if self._streams.stdin:
            poll.register(0, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == 0:
                    if not self._type():
                        return None
                    if self._typed == b"" and self._input_over:
                        poll.unregister(0)
                elif (found := self._receive()) is not None:
                    return found

    _input_over = False

    def _type(self) -> bool:
        """Pass on what was typed; False: the keys to leave."""
        try:
            chunk = os.read(0, _CHUNK)
        except OSError:
            chunk = b""
        if not chunk:
            self._input_over = True
            if self._streams.terminal and os.isatty(0):  # it was hung up: nobody will ever type again
                self.pass_on(signal.SIGHUP)
            else:
                self.send(wire.INPUT)
            return True
        keys = self._streams.detach
        if not keys or not self._streams.terminal:
            self.send(wire.INPUT, chunk)
            return True
        text, self._typed = self._typed + chunk, b""
        before, found, _ = text.partition(keys)
        if found:
            if before:
                self.send(wire.INPUT, before)
            return False
        # The beginning of the keys is held back until it is known what it is.
        held = next((n for n in range(len(keys) - 1, 0, -1) if text.endswith(keys[:n])), 0)
        if held < len(text):
            self.send(wire.INPUT, text[: len(text) - held])
        self._typed = text[len(text) - held :] if held else b""
        return True

    def _receive(self) -> dict[str, Any] | None:
        try:
            chunk = self._socket.recv(_CHUNK * 4)
        except OSError:
            chunk = b""
        if not chunk:
            raise SandboxError("the container's monitor is gone")
        for kind, body in self._frames.feed(chunk):
            if kind in (wire.OUTPUT, wire.ERRORS) and self._streams.outputs:
                _write(1 if kind == wire.OUTPUT else 2, body)
            elif kind == wire.END:
                return self._ended(dict(json.loads(body)))
            elif kind == wire.ANSWER and (refused := json.loads(body)).get("error"):
                raise SandboxError(refused["error"], hint=refused.get("hint", ""))
        return None

    def _ended(self, found: dict[str, Any]) -> dict[str, Any]:
        if self.passed and found.get("status") == 137:
            found["status"] = 128 + self.passed[-1]
        return found


def _write(fd: int, body: bytes) -> None:
    """A reader that went away is no reason to end the container."""
    view = memoryview(body)
    with suppress(OSError):
        while view:
            view = view[os.write(fd, view) :]


@contextmanager
def _sizes(link: _Link) -> Iterator[None]:
    """Tell the size of our terminal, now and whenever it changes."""

    def tell(number: int = 0, frame: FrameType | None = None) -> None:
        size = size_of(0, 1, 2)
        if size != Terminal():
            link.send(wire.SIZE, b"%d %d" % (size.rows, size.columns))

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGWINCH, tell)
    try:
        tell()
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


@contextmanager
def _signals(link: _Link) -> Iterator[None]:
    """What asks us to end asks the program; after some times it is killed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        link.pass_on(number)

    before = [(number, signal.signal(number, pass_on)) for number in _PASSED_ON]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
