"""A container's monitor as an event loop: the streams of its programs, the log, and everybody who is
attached.

One thread does all of it. A client that does not read what it asked for holds the program up, as a slow
terminal would; one that goes is forgotten.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from builder.container import wire

if TYPE_CHECKING:
    from builder.container.logs import LogWriter
    from builder.sandbox.run import Running

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_CHUNK = 1 << 16
_HIGH, _LOW = 1 << 20, 1 << 18
"""A client that has more than the one waiting holds its program up until it has less than the other."""


class Loop:
    """Who waits for which descriptor, and for what time."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._events: dict[int, int] = {}

    def watch(self, fd: int, events: int, call: Callable[[int], None]) -> None:
        """Call `call(events)` when one of `events` happens to `fd`; none of them: no longer."""
        if events and fd in self._events:
            self._selector.modify(fd, events, call)
        elif events:
            self._selector.register(fd, events, call)
        elif fd in self._events:
            self._selector.unregister(fd)
        if events:
            self._events[fd] = events
        else:
            self._events.pop(fd, None)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call `call` in so many seconds."""
        self._timers.append((time.monotonic() + seconds, call))

    def run(self, until: Callable[[], bool]) -> None:
        """Serve until `until` says that it is over."""
        while not until():
            now = time.monotonic()
            for timer in [each for each in self._timers if each[0] <= now]:
                self._timers.remove(timer)
                timer[1]()
            wait = min((each[0] for each in self._timers), default=now + 3600) - time.monotonic()
            if until():
                return
            for key, happened in self._selector.select(max(0.0, wait)):
                if key.fd in self._events:  # nobody before it in this round has let go of it
                    key.data(happened)


class Session:
    """One program: the container's own, or one of `exec`. `log` keeps what it prints, if it shall be kept.

    `ended` is called once, when it is over and all that it printed has been handed on.
    """

    def __init__(
        self,
        loop: Loop,
        running: Running,
        stack: ExitStack,
        *,
        log: LogWriter | None = None,
        ended: Callable[[Session], None],
    ) -> None:
        self.loop = loop
        self.running = running
        self.clients: list[Client] = []
        self.over = False
        self._stack = stack
        self._log = log
        self._ended = ended
        self._outputs: dict[int, tuple[bytes, str]] = {}
        self._stdin = -1
        self._typed = bytearray()
        self._typed_end = False
        self.terminal = -1
        self._held = False
        end = running.fileno()
        if running.over:  # it has been heard of already
            loop.later(0.0, self._over)
        else:
            loop.watch(end, READ, lambda _: self._over())

    def reads(self, fd: int, kind: bytes, stream: str) -> None:
        """Hand on what comes from `fd`, which is closed at its end."""
        os.set_blocking(fd, False)
        self._outputs[fd] = (kind, stream)
        self._watch_output(fd)

    def writes(self, fd: int) -> None:
        """`fd` is its standard input."""
        os.set_blocking(fd, False)
        self._stdin = fd

    def has_terminal(self, master: int) -> None:
        """All its streams are one terminal."""
        self.terminal = master
        self.writes(master)
        self.reads(master, wire.OUTPUT, "stdout")

    @property
    def takes_input(self) -> bool:
        """Whether more may be typed."""
        return self._stdin >= 0 and not self._typed_end and len(self._typed) < _HIGH

    def feed(self, chunk: bytes) -> None:
        """What a client typed; b"": it is over, which a terminal does not take."""
        if self._stdin < 0 or self._typed_end:
            return
        if not chunk and self.terminal < 0:
            self._typed_end = True
        self._typed += chunk
        self._pass_on_input()

    def resize(self, rows: int, columns: int) -> None:
        """Its terminal has another size."""
        from builder.sandbox.terminal import set_size

        if self.terminal >= 0 and rows > 0 and columns > 0:
            with suppress(OSError):
                set_size(self.terminal, rows, columns)

    def hold(self) -> None:
        """Stop or go on reading what it prints, as its slowest client wants it."""
        waiting = max((len(each.waiting) for each in self.clients), default=0)
        held = waiting > (_LOW if self._held else _HIGH)
        if held != self._held:
            self._held = held
            for fd in self._outputs:
                self._watch_output(fd)

    # ---- inside ----

    def _watch_output(self, fd: int) -> None:
        events = 0 if self._held else READ
        if fd == self._stdin and self._typed:
            events |= WRITE
        self.loop.watch(fd, events, lambda happened: self._happened(fd, happened))

    def _happened(self, fd: int, happened: int) -> None:
        if happened & WRITE:
            self._pass_on_input()
        if happened & READ and fd in self._outputs:
            self._read(fd)

    def _read(self, fd: int) -> bool:
        """One piece of output; whether there may be more at once."""
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # a terminal without a process
            chunk = b""
        if not chunk:
            self._close_output(fd)
            return False
        kind, stream = self._outputs[fd]
        if self._log is not None:
            self._log.write(stream, chunk)
        for client in list(self.clients):
            client.send(wire.frame(kind, chunk))
        self.hold()
        return True

    def _close_output(self, fd: int) -> None:
        self.loop.watch(fd, 0, lambda _: None)
        del self._outputs[fd]
        if fd == self._stdin:
            self._stdin = self.terminal = -1
        os.close(fd)

    def _pass_on_input(self) -> None:
        fd = self._stdin
        if fd < 0:
            return
        try:
            while self._typed:
                del self._typed[: os.write(fd, self._typed[:_CHUNK])]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads it any more
            self._typed.clear()
            self._typed_end = True
        if fd in self._outputs:
            self._watch_output(fd)
        elif self._typed:
            self.loop.watch(fd, WRITE, lambda _: self._pass_on_input())
        else:
            self.loop.watch(fd, 0, lambda _: None)
            if self._typed_end:
                self._stdin = -1
                os.close(fd)
        for client in self.clients:
            client.watch()

    def _over(self) -> None:
        """Its process is gone: what is still in its pipes, then the end."""
        if self.over:
            return
        self.loop.watch(self.running.fileno(), 0, lambda _: None)
        for fd in list(self._outputs):
            while fd in self._outputs and self._read(fd):
                pass
        self.over = True
        self._ended(self)
        self.close()

    def close(self) -> None:
        """Let go of everything; a process that is still there is killed."""
        if not self.over:
            self.over = True
            self.loop.watch(self.running.fileno(), 0, lambda _: None)
        for fd in list(self._outputs):
            self._close_output(fd)
        if self._stdin >= 0:
            self.loop.watch(self._stdin, 0, lambda _: None)
            os.close(self._stdin)
            self._stdin = -1
        self._stack.close()


class Client:
    """Somebody who is connected. `asked` is called with his request, the first frame."""

    def __init__(
        self, loop: Loop, sock: socket.socket, asked: Callable[[Client, dict[str, Any]], None]
    ) -> None:
        self.loop = loop
        self.waiting = bytearray()
        self.session: Session | None = None
        self.with_input = False
        self.last = False
        """Whether his end is the end of the program's input."""
        self._sock = sock
        self._asked = asked
        self._frames = wire.Frames()
        self._open = True
        self._closing = False
        sock.setblocking(False)
        self.watch()

    def attach(self, session: Session, *, with_input: bool, last: bool = False) -> None:
        """From now on he gets what a program prints, and may type."""
        self.session, self.with_input, self.last = session, with_input, last
        session.clients.append(self)

    def send(self, data: bytes) -> None:
        """Send him something, as soon as he takes it."""
        if self._open:
            self.waiting += data
            self._flush()

    def hand(self, data: bytes, fd: int) -> None:
        """Send him something with a descriptor, before anything else."""
        if self._open:
            socket.send_fds(self._sock, [data], [fd])

    def dismiss(self, seconds: float) -> None:
        """Tell him that it is over, and wait until he has gone."""
        if not self._open:
            return
        self._sock.settimeout(seconds)
        with suppress(OSError):
            self._sock.sendall(wire.document(wire.END, {}))
            while self._sock.recv(_CHUNK):
                pass
        self._leave()

    def end(self, document: dict[str, Any], kind: bytes = wire.END) -> None:
        """The last thing he is told."""
        self._closing = True
        self.send(wire.document(kind, document))
        self._finish()

    def watch(self) -> None:
        """Look for what he sends, unless the program cannot take more of it."""
        if not self._open:
            return
        takes = self.session is None or not self.with_input or self.session.takes_input
        events = (READ if takes and not self._closing else 0) | (WRITE if self.waiting else 0)
        self.loop.watch(self._sock.fileno(), events, self._happened)

    def drain(self, seconds: float) -> None:
        """Wait until he has taken what is waiting: the last chance."""
        if self._open:
            self._sock.settimeout(seconds)
            with suppress(OSError):
                self._sock.sendall(self.waiting)
            self._leave()

    # ---- inside ----

    def _happened(self, happened: int) -> None:
        if happened & WRITE:
            self._flush()
        if happened & READ and self._open:
            self._receive()

    def _flush(self) -> None:
        try:
            while self.waiting:
                del self.waiting[: self._sock.send(self.waiting[: 1 << 18])]
        except BlockingIOError:
            pass
        except OSError:
            self._leave()
            return
        if self.session is not None:
            self.session.hold()
        self._finish()
        self.watch()

    def _finish(self) -> None:
        if self._closing and not self.waiting:
            self._leave()

    def _receive(self) -> None:
        try:
            chunk = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self._leave()
            return
        try:
            for kind, body in self._frames.feed(chunk):
                self._take(kind, body)
        except ValueError:
            self._leave()
            return
        self.watch()

    def _take(self, kind: bytes, body: bytes) -> None:
        session = self.session
        if kind == wire.REQUEST and session is None:
            import json

            self._asked(self, dict(json.loads(body)))
        elif session is None:
            return
        elif kind == wire.INPUT and self.with_input:
            if body or self.last:
                session.feed(body)
        elif kind == wire.SIGNAL:
            session.running.signal(int(body))
        elif kind == wire.SIZE:
            rows, columns = map(int, body.split())
            session.resize(rows, columns)

    def _leave(self) -> None:
        if not self._open:
            return
        self._open = False
        self.loop.watch(self._sock.fileno(), 0, lambda _: None)
        self._sock.close()
        if self.session is not None and self in self.session.clients:
            self.session.clients.remove(self)
            if self.with_input and self.last and self.session.terminal < 0:
                self.session.feed(b"")
            self.session.hold()
