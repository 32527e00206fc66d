"""Datagrams to a published port: each client has a socket of its own in the container's network, so that the
server's answers are told apart.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable

from builder.container.inside import SHORT, Inside
from builder.container.loop import IN, Loop

IDLE_S = 90.0
"""A client who sent and got nothing for that long is forgotten, as docker's proxy does."""

MOST = 4096
"""So many clients are remembered; with one more, who was silent for longest is forgotten."""

_AT_ONCE = 64
_SWEEP_S = 10.0
_LARGEST = 1 << 16
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50
_ANCILLARY = socket.CMSG_SPACE(20)

Key = tuple[int, object, bytes]


class Client:
    """One that sent a datagram: our socket for it in the container's network, and how to answer."""

    __slots__ = ("answer", "last", "socket")

    def __init__(self, made: socket.socket, answer: Callable[[bytes], None]) -> None:
        self.socket, self.answer, self.last = made, answer, time.monotonic()


class Clients:
    """All clients of all published ports, who was silent for longest first."""

    def __init__(self, loop: Loop, *, idle_s: float = IDLE_S, most: int = MOST) -> None:
        self._loop, self._idle_s, self._most = loop, idle_s, most
        self._known: OrderedDict[Key, Client] = OrderedDict()

    def find(self, key: Key) -> Client | None:
        """A known one, who is heard of now."""
        client = self._known.get(key)
        if client is not None:
            client.last = time.monotonic()
            self._known.move_to_end(key)
        return client

    def add(self, key: Key, client: Client) -> None:
        """Remember one, whose socket is the loop's to close from now on."""
        while len(self._known) >= self._most:
            self.forget_one()
        if not self._known:
            self._loop.after(min(_SWEEP_S, self._idle_s), self._sweep)
        self._known[key] = client
        self._loop.watch(client.socket, IN, lambda _: self._answers(key))

    def forget_one(self) -> None:
        """Forget who was silent for longest, if there is anybody."""
        if self._known:
            _, client = self._known.popitem(last=False)
            self._loop.drop(client.socket)

    def _answers(self, key: Key) -> None:
        client = self.find(key)
        if client is None:
            return
        for _ in range(_AT_ONCE):
            try:
                client.answer(client.socket.recv(_LARGEST))
            except ConnectionRefusedError:
                continue  # nobody listens in the container: to be told of it is enough
            except OSError:
                return

    def _sweep(self) -> None:
        old = time.monotonic() - self._idle_s
        while self._known and next(iter(self._known.values())).last < old:
            self.forget_one()
        if self._known:
            self._loop.after(min(_SWEEP_S, self._idle_s), self._sweep)


class UdpPort:
    """A bound socket, which the loop closes, and the container's port behind it."""

    def __init__(self, loop: Loop, inside: Inside, clients: Clients, bound: socket.socket, port: int) -> None:
        self._inside, self._clients = inside, clients
        self._bound, self._port = bound, port
        loop.watch(bound, IN, self._ready)

    def _ready(self, events: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, more, _, address = self._bound.recvmsg(_LARGEST, _ANCILLARY)
            except ConnectionRefusedError:
                continue  # a client that has gone did not get an answer
            except OSError:
                return
            local = _local(more)
            key = self._bound.fileno(), address, local
            client = self._clients.find(key) or self._new(key, address, local)
            if client is not None:
                _send(client.socket, data)

    def _new(self, key: Key, address: object, local: bytes) -> Client | None:
        """Remember a client; None if there is no descriptor, or no network in the container."""
        made = self._socket()
        if made is None:
            return None
        bound = self._bound

        def answer(data: bytes) -> None:
            try:
                bound.sendmsg([data], _from(local), 0, address)  # type: ignore[arg-type]
            except OSError:
                pass  # datagrams may be lost

        client = Client(made, answer)
        self._clients.add(key, client)
        return client

    def _socket(self) -> socket.socket | None:
        """A socket that sends to the server. At its IPv4 address, if it has one: a server that listens on
        IPv6 gets that as well, and a datagram to the wrong one would be lost.
        """
        for family, address in self._inside.addresses(socket.AF_INET)[:1]:
            try:
                made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            except OSError as error:
                if error.errno not in SHORT:
                    raise
                self._clients.forget_one()  # so that the next datagram finds a descriptor
                return None
            try:
                made.connect((address, self._port))
                return made
            except OSError:
                made.close()
        return None


def tell_addresses(bound: socket.socket) -> None:
    """Have a socket tell at which of our addresses a datagram came in: the answer must come from there."""
    if bound.family == socket.AF_INET:
        bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    else:
        bound.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)


def _local(ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """Our address in what the kernel said of a datagram (ip(7), ipv6(7)), as it is wanted for the answer."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            return struct.pack("=i", 0) + data[4:8] + bytes(4)
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
            return data if data[:2] == b"\xfe\x80" else data[:16] + bytes(4)
    return b""


def _from(local: bytes) -> list[tuple[int, int, bytes]]:
    match len(local):
        case 12:
            return [(socket.IPPROTO_IP, _IP_PKTINFO, local)]
        case 20:
            return [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, local)]
    return []


def _send(there: socket.socket, data: bytes) -> None:
    """Pass a datagram on. An error of an earlier one is told first, once."""
    for _ in range(2):
        try:
            there.send(data)
            return
        except ConnectionRefusedError:
            continue
        except OSError:
            return
