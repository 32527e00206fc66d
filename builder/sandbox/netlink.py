"""Netlink messages: the socket, attributes, and the few rtnetlink requests that plumb a network namespace.

Byte order is the machine's but where nftables wants big endian. A socket keeps the network namespace it was
made in, so the inside of a namespace is configured without anyone living there (netlink(7), rtnetlink(7)).
"""

from __future__ import annotations

import _socket
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUTE, NETFILTER = 0, 12
REQUEST, ACK, DUMP = 1, 4, 0x300
EXCL, CREATE, APPEND = 0x200, 0x400, 0x800
_ERROR, _DONE = 2, 3
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_ACK_TLVS = 0x200

_NEWLINK, _GETLINK, _NEWADDR, _NEWROUTE, _GETROUTE = 16, 18, 20, 24, 26
_IFF_UP = 1
_IFA_F_NODAD = 2


def attr(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attr(kind | 0x8000, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated string attribute."""
    return attr(kind, os.fsencode(value) + b"\0")


def attributes(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, payload) of each attribute, flags removed from the kind."""
    at = 0
    while at + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, at)
        if length < 4:
            return
        yield kind & 0x3FFF, payload[at + 4 : at + length]
        at += length + 3 & ~3


class Netlink:
    """A netlink socket of one protocol in the caller's network namespace. Errors are OSError with `what` in
    the text.
    """

    def __init__(self, protocol: int) -> None:
        kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
        self._socket = _socket.socket(_socket.AF_NETLINK, kind, protocol)
        try:
            self._socket.bind((0, 0))
            for option in (_CAP_ACK, _EXT_ACK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
        except BaseException:
            self._socket.close()
            raise
        self._sequence = 0

    def close(self) -> None:
        """What the kernel keeps for this socket (nftables' owned tables) goes with it."""
        self._socket.close()

    def message(self, kind: int, body: bytes, flags: int) -> bytes:
        """A message with the next sequence number."""
        self._sequence += 1
        return struct.pack("=IHHII", 16 + len(body), kind, flags | REQUEST, self._sequence, 0) + body

    def request(self, what: str, kind: int, body: bytes, flags: int = 0) -> None:
        """Send one request and wait for its acknowledgement."""
        self.send(what, [self.message(kind, body, flags | ACK)])

    def send(self, what: str, messages: list[bytes]) -> None:
        """Send messages at once and wait for the acknowledgement of each that asks for one; the first error
        is raised.
        """
        waiting = {
            struct.unpack_from("=I", message, 8)[0]
            for message in messages
            if struct.unpack_from("=H", message, 6)[0] & ACK
        }
        self._socket.send(b"".join(messages))
        error: OSError | None = None
        while waiting:
            for kind, flags, sequence, body in self._receive():
                if kind == _ERROR:
                    waiting.discard(sequence)
                    error = error or _error(what, flags, body)
            if error and len(messages) > 1:
                break  # the kernel has undone the batch; what it still says is read with the next answer
        if error:
            raise error

    def ask(self, what: str, kind: int, body: bytes, flags: int = DUMP) -> list[bytes]:
        """The payloads that answer a request; by default of a dump."""
        self._socket.send(self.message(kind, body, flags))
        answers: list[bytes] = []
        while True:
            for got, marks, sequence, payload in self._receive():
                if sequence != self._sequence:
                    continue  # left over from a batch that failed
                if got == _ERROR and (error := _error(what, marks, payload)):
                    raise error
                if got in (_DONE, _ERROR):
                    return answers
                answers.append(payload)
                if flags != DUMP:
                    return answers

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        block = self._socket.recv(1 << 18)
        at = 0
        while at + 16 <= len(block):
            length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", block, at)
            yield kind, flags, sequence, block[at + 16 : at + length]
            at += length + 3 & ~3


def _error(what: str, flags: int, body: bytes) -> OSError | None:
    number = -int(struct.unpack_from("=i", body)[0])
    if not number:
        return None
    said = dict(attributes(body[20:])).get(1, b"") if flags & _ACK_TLVS else b""
    note = f" ({os.fsdecode(said).rstrip(chr(0))})" if said else ""
    return OSError(number, f"{what}: {os.strerror(number)}{note}")


def _link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, flags, change)


class Route(Netlink):
    """rtnetlink in the caller's network namespace."""

    def __init__(self) -> None:
        super().__init__(ROUTE)

    def veth(self, name: str, peer: str, netns: int, mtu: int) -> None:
        """A pair: `name` here, up; `peer` in the namespace `netns`, down (up there it would be refused,
        KERNEL.md 5.2).
        """
        size = attr(4, struct.pack("=I", mtu))
        other = _link() + text(3, peer) + size + attr(28, struct.pack("=I", netns))
        info = nest(18, text(1, "veth"), nest(2, attr(1, other)))
        body = _link(0, _IFF_UP, _IFF_UP) + text(3, name) + size + info
        self.request(f"make veth {name}", _NEWLINK, body, CREATE | EXCL)

    def links(self) -> dict[int, tuple[str, int]]:
        """Name and MTU of every interface, by index."""
        found = {}
        for answer in self.ask("list links", _GETLINK, _link()):
            index, has = struct.unpack_from("=i", answer, 4)[0], dict(attributes(answer[16:]))
            found[int(index)] = (os.fsdecode(has[3]).rstrip("\0"), int(struct.unpack("=I", has[4])[0]))
        return found

    def index(self, name: str) -> int:
        """The index of an interface."""
        answer = self.ask(f"find {name}", _GETLINK, _link() + text(3, name), 0)[0]
        return int(struct.unpack_from("=i", answer, 4)[0])

    def up(self, index: int) -> None:
        """Switch an interface on."""
        self.request("set link up", _NEWLINK, _link(index, _IFF_UP, _IFF_UP))

    def address(self, index: int, address: bytes, prefix: int) -> None:
        """Give an interface an address; of IPv6 without the second that looking for duplicates takes."""
        family, flags = (_socket.AF_INET, 0) if len(address) == 4 else (_socket.AF_INET6, _IFA_F_NODAD)
        body = struct.pack("=BBBBI", family, prefix, flags, 0, index)
        self.request("add address", _NEWADDR, body + attr(2, address) + attr(1, address), CREATE | EXCL)

    def route(self, *, to: bytes = b"", via: bytes = b"", index: int = 0) -> None:
        """A route to the host `to` (empty: the default route), by a gateway or straight out of an
        interface.
        """
        six = 16 in (len(to), len(via))
        family, scope = (_socket.AF_INET6, 0) if six else (_socket.AF_INET, 0 if via else 253)
        body = struct.pack("=BBBBBBBBI", family, 8 * len(to), 0, 0, 254, 4, scope, 1, 0)
        for kind, value in ((1, to), (5, via), (4, struct.pack("=I", index) if index else b"")):
            body += attr(kind, value) if value else b""
        self.request("add route", _NEWROUTE, body, CREATE | EXCL)

    def routes(self, *, six: bool = False) -> list[tuple[bytes, int, int]]:
        """(destination, prefix length, interface index or 0) of every IPv4 (or IPv6) route in every table."""
        found = []
        family = _socket.AF_INET6 if six else _socket.AF_INET
        body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)
        for answer in self.ask("list routes", _GETROUTE, body):
            has = dict(attributes(answer[12:]))
            index = int(struct.unpack("=I", has[4])[0]) if 4 in has else 0
            found.append((has.get(1, bytes(16 if six else 4)), answer[1], index))
        return found
