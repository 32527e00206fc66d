"""The host's side of private networks: a claimed /24, NAT, forwarding, and the making of namespaces.

What it leaves in the kernel, and how that goes away, is told in `network`.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct
import time
from typing import TYPE_CHECKING

from builder.sandbox import nft, syscalls
from builder.sandbox.netlink import Route
from builder.sandbox.procfs import Procfs

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "pyb"
"""First letters of every interface of ours; `pyb3x7` is the seventh namespace of the builder with the
network 3.
"""

_TABLE, _UPLINK = "pybuild_", "pybuild_uplink_"
_NETWORKS = [bytes((10, second, third)) for second in (213, 117) for third in range(256)]
_GUESTS = range(2, 255)
_SYSCTL = "sys/net/ipv4/"
_SIX = "sys/net/ipv6/conf/"
_SIX_NETWORKS = [bytes((0xFD, first, 0x70, 0x79, 0x62, 0x75)) for first in (0x6C, 0x21, 0xB3)]
"""Of each builder's network the first 48 bits (RFC 4193); the next 16 are the number of its /24."""


class Gateway:
    """The host's side: a claimed network, NAT, forwarding, and the making of namespaces. One thread at a
    time. `send_buffer` is the most that a connection in a namespace may have on its way, in bytes; 0 leaves
    it to the kernel.
    """

    def __init__(self, send_buffer: int = 0) -> None:
        self._send_buffer = send_buffer
        self._proc = Procfs()
        self._host = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._route = Route()
        self._nft = nft.Nft()
        self._made = 0
        self._six = b""
        self._six_names: set[str] = set()
        try:
            with _Exclusive():
                self._claim()
                self._claim_six()
                self._drop_leftovers()
                self._open_firewalls()
                self._forward()
        except BaseException:
            self.close()
            raise

    def address(self, host: int) -> bytes:
        """An address in our network."""
        return self._network + bytes((host,))

    def _claim(self) -> None:
        """The first network that no route of the host touches and no other builder has."""
        routes = self._route.routes()
        links = self._route.links()
        uplinks = sorted(_uplinks(routes, links))
        self._names = {index: links[index][0] for index in uplinks}
        self._mtu = min([links[index][1] for index in uplinks], default=1500)
        for number, network in enumerate(_NETWORKS):
            if not any(overlap(network, to, length) for to, length, _ in routes if length) and self._own(
                number
            ):
                self._number, self._network = number, network
                return
        raise OSError(
            errno.EADDRNOTAVAIL, "claim network: every candidate under 10.0.0.0/8 is routed or in use"
        )

    def _own(self, number: int) -> bool:
        """Make the builder's table. False when another builder has that network."""
        try:
            self._nft.make_table(f"{_TABLE}{number}", _chains(_NETWORKS[number]), owned=True)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.EPERM) and f"{_TABLE}{number}" in self._nft.tables():
                return False
            raise
        return True

    def _claim_six(self) -> None:
        """IPv6 too where the host has a way out and forwards it already, or can for single interfaces (Linux
        6.17). Switching all forwarding on would make the host deaf to router advertisements, from which it
        may have its own address.
        """
        if _read(_SIX + "all/disable_ipv6").strip() != b"0":
            return
        routes, links = self._route.routes(six=True), self._route.links()
        names = {links[index][0] for index in _uplinks(routes, links)}
        forwarded = _read(_SIX + "all/forwarding").strip() == b"1"
        if not names or not (forwarded or all(_read(_switch(nft.IPV6, name)) for name in names)):
            return
        for first in _SIX_NETWORKS:
            network = first + struct.pack(">H", self._number)
            if not any(overlap(network, to, length) for to, length, _ in routes if length):
                break
        else:
            return
        try:
            self._nft.make_table(self._comment, _chains(network), owned=True, family=nft.IPV6)
        except OSError:
            return  # a kernel without its NAT
        self._six, self._six_names = network, set() if forwarded else names

    def address_six(self, host: int) -> bytes:
        """An IPv6 address in our network."""
        return self._six + struct.pack(">Q", host)

    @property
    def has_six(self) -> bool:
        """Whether namespaces have IPv6."""
        return bool(self._six)

    @property
    def _comment(self) -> str:
        return f"{_TABLE}{self._number}"

    def _foreign(self, *, every: bool = False) -> list[nft.Chain]:
        chains = self._nft.base_chains(nft.FORWARD)
        six = every or self._six
        others = [chain for chain in chains if not chain.table.startswith(_TABLE)]
        return [chain for chain in others if six or chain.family != nft.IPV6]

    def _drop_leftovers(self) -> None:
        """Rules whose builder was killed: no table has the name in their comment any more."""
        alive = self._nft.tables() - {self._comment}
        for chain in self._foreign(every=True):
            for rule in self._nft.rules(chain.family, chain.table, chain.name):
                if rule.comment.startswith(_TABLE) and rule.comment not in alive:
                    self._nft.delete_rule(chain, rule.handle)

    def _open_firewalls(self) -> None:
        """An accept in our table saves no packet that another table drops (KERNEL.md 5.3): it must stand in
        there.

        Only name comparisons, which `iptables -S` can show; connections *to* steps are stopped by our own
        table.
        """
        for chain in self._foreign():
            if not self._nft.lets_pass(chain):
                for key in ("iif", "oif"):
                    match = nft.interface(key, f"{PREFIX}{self._number}x", prefix=True)
                    self._insert(chain, match + nft.verdict(nft.ACCEPT))

    def _insert(self, chain: nft.Chain, expressions: bytes) -> None:
        try:
            self._nft.insert_rule(chain, expressions, self._comment)
        except PermissionError:
            pass  # another program owns that table; only its own configuration can let us through

    def _forward(self) -> None:
        """With ip_forward off, forwarding is switched on for our pairs and the uplinks, and only between
        these.
        """
        self._switch = _read(_SYSCTL + "ip_forward").strip() != b"1"
        if self._switch:
            self._switch_on(nft.IPV4, self._names.values())
        self._switch_on(nft.IPV6, self._six_names)

    def _switch_on(self, family: int, names: Iterable[str]) -> None:
        """Forwarding for these uplinks, and no further than to our pairs."""
        tables = self._nft.tables(family)
        for name in names:
            if _read(_switch(family, name)).strip() == b"1":
                continue
            if _UPLINK + name not in tables:
                guard = nft.interface("iif", name) + nft.interface("oif", PREFIX, prefix=True, equal=False)
                chains = (("forward", "filter", nft.FORWARD, 0, guard + nft.verdict(nft.DROP)),)
                self._nft.make_table(_UPLINK + name, chains, owned=False, family=family)
            self._proc.write(_switch(family, name), b"1")

    def namespace(self) -> int:
        """A new namespace with `lo`, `eth0`, an address and a default route; its descriptor."""
        inside, fd = self._enter_new()
        try:
            name, host = self._connect(fd)
            if self._switch:
                self._proc.write(_switch(nft.IPV4, name), b"1")
            if self._six_names:
                self._proc.write(_switch(nft.IPV6, name), b"1")
            inside.up(1)
            index = inside.index("eth0")
            inside.address(index, self.address(host), 24)
            if self._six:
                inside.address(index, self.address_six(host), 64)
            inside.up(index)
            inside.route(via=self.address(1))
            if self._six:
                inside.route(via=self.address_six(1))
        except BaseException:
            os.close(fd)
            raise
        finally:
            inside.close()
        return fd

    def _enter_new(self) -> tuple[Route, int]:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        try:
            fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self._limit_buffers()
            return Route(), fd
        finally:
            syscalls.setns(self._host, syscalls.CLONE_NEWNET)

    def _limit_buffers(self) -> None:
        if self._send_buffer:
            try:
                self._proc.write(_SYSCTL + "tcp_wmem", b"4096 16384 %d" % self._send_buffer)
            except OSError:
                pass  # a container whose /proc/sys is read-only

    def _connect(self, netns: int) -> tuple[str, int]:
        """The pair and the host's end of it: (name, last byte of the guest's address). An address still in
        use is skipped.
        """
        for _ in _GUESTS:
            host = _GUESTS[self._made % len(_GUESTS)]
            self._made += 1
            name = f"{PREFIX}{self._number}x{self._made % 100_000}"
            if self._in_use(host):
                continue
            self._route.veth(name, "eth0", netns, self._mtu)
            index = self._route.index(name)
            self._route.address(index, self.address(1), 32)
            self._route.route(to=self.address(host), index=index)
            if self._six:
                self._route.address(index, self.address_six(1), 128)
                self._route.route(to=self.address_six(host), index=index)
            return name, host
        raise OSError(errno.EADDRNOTAVAIL, "connect network: 253 namespaces of this build are alive")

    def _in_use(self, host: int) -> bool:
        if self._made <= len(_GUESTS):
            return False
        return any(to == self.address(host) for to, _, _ in self._route.routes())

    def close(self) -> None:
        """Take back rules and switches; the table goes with the socket, last."""
        try:
            if hasattr(self, "_number"):
                with _Exclusive():
                    self._take_back()
        finally:
            self._nft.close()
            self._route.close()
            os.close(self._host)
            self._proc.close()

    def _take_back(self) -> None:
        for chain in self._foreign():
            for rule in self._nft.rules(chain.family, chain.table, chain.name):
                if rule.comment == self._comment:
                    self._nft.delete_rule(chain, rule.handle)
        tables = {table for table in self._nft.tables() if table.startswith(_TABLE)}
        uplinks = {table for table in tables if table.startswith(_UPLINK)}
        if tables - uplinks != {self._comment}:
            return  # the last builder switches off
        for family in (nft.IPV4, nft.IPV6):
            for table in self._nft.tables(family):
                if table.startswith(_UPLINK):
                    self._switch_off(family, table)

    def _switch_off(self, family: int, table: str) -> None:
        # Somebody may have switched all of them on meanwhile.
        if family == nft.IPV6 or _read(_SYSCTL + "ip_forward").strip() != b"1":
            try:
                self._proc.write(_switch(family, table.removeprefix(_UPLINK)), b"0")
            except FileNotFoundError:
                pass  # the interface has gone
        self._nft.delete_table(table, family)


class _Exclusive:
    """One builder at a time looks at and changes what builders share: an abstract socket's name is a lock
    that belongs to the network namespace and ends with its holder.
    """

    def __enter__(self) -> None:
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        deadline = time.monotonic() + 10
        while True:
            try:
                self._socket.bind(b"\0pybuild-network")
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                    self._socket.close()
                    raise OSError(
                        error.errno, f"bind network lock: {os.strerror(error.errno or 0)}"
                    ) from None
            time.sleep(0.002)

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _switch(family: int, name: str) -> str:
    """The file of procfs that has packets forwarded which come in at this interface."""
    if family == nft.IPV6:
        return f"{_SIX}{name}/force_forwarding"
    return f"{_SYSCTL}conf/{name}/forwarding"


def overlap(network: bytes, to: bytes, length: int) -> bool:
    """Whether the network that begins with the bytes `network` (a /24 has three, a /64 eight) and the network
    `to` have addresses in common.
    """
    bits = 8 * len(network)
    shift = bits - min(bits, length)
    theirs = int.from_bytes(to[: len(network)])
    return int.from_bytes(network) >> shift == theirs >> shift


def _uplinks(routes: list[tuple[bytes, int, int]], links: dict[int, tuple[str, int]]) -> set[int]:
    """The interfaces that default routes lead to. One through `lo` says that there is no way."""
    return {index for _, length, index in routes if not length and links.get(index, ("lo", 0))[0] != "lo"}


def _chains(network: bytes) -> tuple[tuple[str, str, int, int, bytes], ...]:
    """A builder's table: NAT for its network, and nobody opens a connection to a step."""
    nat = nft.source_network(network) + nft.masquerade()
    guard = nft.interface("oif", PREFIX, prefix=True) + nft.not_an_answer() + nft.verdict(nft.DROP)
    return (
        ("postrouting", "nat", nft.POSTROUTING, 100, nat),
        ("forward", "filter", nft.FORWARD, 0, guard),
    )


def _read(path: str) -> bytes:
    return read_file("/proc/" + path)


def read_file(path: str) -> bytes:
    """A file's content; nothing when it is missing."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
