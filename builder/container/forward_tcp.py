"""TCP connections to a published port, each passed on to the container by one of our own."""

from __future__ import annotations

import errno
import select
import socket
import struct

from builder.container.flow import Flow, Pipes
from builder.container.inside import SHORT, Address, Inside
from builder.container.loop import EDGE, IN, Loop

_AT_ONCE = 64
_PAUSE_S = 0.1
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_RESET = struct.pack("ii", 1, 0)
_WAITS = (errno.EINPROGRESS, errno.EALREADY)


class TcpPort:
    """A listening socket, which the loop closes, and the container's port behind it."""

    def __init__(self, loop: Loop, inside: Inside, pipes: Pipes, listener: socket.socket, port: int) -> None:
        self._loop, self._inside, self._pipes = loop, inside, pipes
        self._listener, self._port = listener, port
        loop.watch(listener, IN, self._ready)

    def _ready(self, events: int) -> None:
        """Accept who waits. Nobody is accepted before there is a socket for them: who comes while there are
        no descriptors waits in the kernel until some connection ends.
        """
        spare: socket.socket | None = None
        try:
            for _ in range(_AT_ONCE):
                addresses = self._inside.addresses(self._listener.family)
                spare = spare or _socket(addresses)
                try:
                    client, _ = self._listener.accept()
                except ConnectionAbortedError:
                    continue
                there, spare = spare, None
                Connection(self._loop, self._pipes, client, there, addresses, self._port)
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in SHORT:
                raise
            self._loop.pause(self._listener, _PAUSE_S)
        if spare is not None:
            spare.close()


class Connection:
    """A client's connection and ours to the container's server, which is asked for at the first address that
    does not refuse."""

    def __init__(
        self,
        loop: Loop,
        pipes: Pipes,
        client: socket.socket,
        there: socket.socket,
        addresses: list[Address],
        port: int,
    ) -> None:
        self._loop, self._pipes, self._client, self._there = loop, pipes, client, there
        self._addresses, self._port = addresses, port
        self._connected = False
        client.setblocking(False)  # what else it needs, it has from the listener
        self._join()
        loop.watch(client, EDGE, self._client_ready)
        self._connect()

    def _join(self) -> None:
        self._out = Flow(self._client, self._there, self._pipes)
        self._back = Flow(self._there, self._client, self._pipes)

    def _connect(self) -> None:
        """Ask for a connection, at the next address if one refuses."""
        while self._addresses:
            _, address = self._addresses[0]
            if self._there.connect_ex((address, self._port)) in (0, *_WAITS):
                self._loop.watch(self._there, EDGE, self._there_ready)
                return
            self._there.close()
            self._try_next()
        if self._client.fileno() >= 0:
            self._reset()

    def _try_next(self) -> None:
        """A new socket for the next address; no address is left if there is none."""
        del self._addresses[0]
        if self._addresses:
            try:
                self._there = _socket(self._addresses)
            except OSError:
                self._addresses.clear()
                return
            self._join()

    def _client_ready(self, events: int) -> None:
        self._out.readable |= bool(events & _READABLE)
        self._back.writable |= bool(events & _WRITABLE)
        if self._connected:
            self._pump()

    def _there_ready(self, events: int) -> None:
        if not self._connected:
            error = self._there.connect_ex((self._addresses[0][1], self._port))
            if error in _WAITS:
                return
            if error not in (0, errno.EISCONN):
                self._loop.drop(self._there)
                self._try_next()
                self._connect()
                return
            self._connected = True
        self._back.readable |= bool(events & _READABLE)
        self._out.writable |= bool(events & _WRITABLE)
        self._pump()

    def _pump(self) -> None:
        """Move what can be moved, both ways."""
        if self._out.ended and self._back.ended:
            return
        try:
            more = self._out.pump()
            more = self._back.pump() or more
        except OSError:
            self._reset()
            return
        if self._out.ended and self._back.ended:
            self._loop.drop(self._client)
            self._loop.drop(self._there)
        elif more:
            self._loop.soon(self._pump)

    def _reset(self) -> None:
        """End both at once, so that each side hears that something broke."""
        for flow in (self._out, self._back):
            flow.close()
        for each in (self._client, self._there):
            if each.fileno() >= 0:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._loop.drop(each)


def _socket(addresses: list[Address]) -> socket.socket:
    """A socket for the first of the addresses, in the namespace of this thread."""
    family = addresses[0][0] if addresses else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made
