"""Published ports: what comes to the host's side is passed on to the container, by a proxy of our own.

It needs no rule in the host's firewall and no right but that of entering the container's network namespace,
so it is the same for root and for an ordinary user. What it cannot do: the container sees its own address as
every client's. A server that listens on its loopback only is not reached, as with docker.

One thread does all of it, and lives in the container's namespace. The listening sockets were made before, in
the host's, where they stay.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import TracebackType

from builder.container.flow import Pipes
from builder.container.forward_tcp import TcpPort
from builder.container.forward_udp import IDLE_S, MOST, Clients, UdpPort, tell_addresses
from builder.container.inside import SHORT, Inside
from builder.container.loop import Loop
from builder.container.ports import EVERYWHERE, Port, bracketed, exposed, listed, parse
from builder.errors import BuildError, ResourceError, UsageError

__all__ = ["Port", "Publisher", "exposed", "listed", "parse"]

_BACKLOG = 4096
_TRIES = 32
_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)

Bound = tuple[Port, socket.socket]


class Publisher:
    """Published ports of one container, from when it is made to `close`.

    All ports are bound when it is made: UsageError for one that is taken or may not be had, ResourceError
    when there are too many for this process. Clients who come before `start` wait. The process may have as
    many descriptors as its hard limit says from then on.
    """

    def __init__(
        self, netns_fd: int, ports: Sequence[Port], *, idle_s: float = IDLE_S, most: int = MOST
    ) -> None:
        self._thread: threading.Thread | None = None
        self._failure: OSError | None = None
        _raise_limit()
        self._bound = _bind_all(ports)
        self._netns = os.dup(netns_fd)
        self._loop = Loop()
        self._clients = Clients(self._loop, idle_s=idle_s, most=most)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    @property
    def bound(self) -> tuple[Port, ...]:
        """Every address and port of the host that leads to the container."""
        return tuple(port for port, _ in self._bound)

    def start(self) -> None:
        """Begin to serve, in a daemon thread. OSError: the container's namespace cannot be entered."""
        if self._thread is not None or not self._bound:
            return
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), name="ports", daemon=True)
        self._thread.start()
        ready.wait()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """End every connection and free the ports."""
        if self._netns < 0:
            return
        if self._thread is not None:
            self._loop.stop()
            self._thread.join()
        self._loop.close()
        _close(self._bound)
        os.close(self._netns)
        self._netns = -1

    def _serve(self, ready: threading.Event) -> None:
        inside, pipes = Inside(), Pipes()
        try:
            try:
                inside.enter(self._netns)
                for port, bound in self._bound:
                    if port.protocol == "tcp":
                        TcpPort(self._loop, inside, pipes, bound, port.container_port)
                    else:
                        UdpPort(self._loop, inside, self._clients, bound, port.container_port)
            except OSError as error:
                self._failure = error
                return
            finally:
                ready.set()
            self._loop.run()
        finally:
            pipes.close()


def _raise_limit() -> None:
    """Have as many descriptors as we may: a connection takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _bind_all(ports: Iterable[Port]) -> list[Bound]:
    bound: list[Bound] = []
    try:
        for port in ports:
            bound += _bind(port)
    except BaseException:
        _close(bound)
        raise
    return bound


def _bind(port: Port) -> list[Bound]:
    """The sockets of one port. Where any of several ports will do, they are tried until one is free at all of
    its addresses.
    """
    first, last = port.host_port, port.host_end or port.host_port
    candidates = range(first, last + 1) if first else [0] * _TRIES
    failure: _Taken | None = None
    for number in candidates:
        bound: list[Bound] = []
        try:
            for address in [port.host_ip] if port.host_ip else EVERYWHERE:
                number = _add(bound, port, address, number)
            return bound
        except _Taken as taken:
            _close(bound)
            failure = taken
            if taken.final:
                break
        except BaseException:
            _close(bound)
            raise
    assert failure is not None
    if last > first and not failure.final:
        hint = failure.error.hint
        raise UsageError(f"Bind for {port.outside} failed: all ports are allocated", hint=hint)
    raise failure.error


class _Taken(Exception):
    """A port that cannot be had. With `final`, neither can any other."""

    def __init__(self, error: BuildError, *, final: bool) -> None:
        super().__init__()
        self.error, self.final = error, final


def _add(bound: list[Bound], port: Port, address: str, number: int) -> int:
    """Bind one socket more; its port. Where there is no IPv6, it is left out unless somebody named it."""
    try:
        made = _socket(address, number, port.protocol)
    except OSError as error:
        if bound and error.errno in _NO_IPV6:
            return number
        final = error.errno not in (errno.EADDRINUSE, errno.EACCES)
        raise _Taken(_refusal(error, port, address, number), final=final) from None
    number = int(made.getsockname()[1])
    bound.append((Port(address, number, port.container_port, port.protocol), made))
    return number


def _socket(address: str, number: int, protocol: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    made = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            # Of these, accepted connections have the last two.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            tell_addresses(made)
        made.bind((address, number))
        if protocol == "tcp":
            made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _refusal(error: OSError, port: Port, address: str, number: int) -> BuildError:
    """Why a port cannot be had, in docker's words where it has some."""
    where = f"Bind for {bracketed(address)}:{number} failed"
    match error.errno:
        case errno.EADDRINUSE:
            hint = f"another program or container has it: take another one, or none for any: -p {port.inside}"
            return UsageError(f"{where}: port is already allocated", hint=hint)
        case errno.EACCES:
            hint = "ports below net.ipv4.ip_unprivileged_port_start (1024) are root's: take a higher one"
            return UsageError(f"{where}: permission denied", hint=hint)
        case errno.EADDRNOTAVAIL:
            return UsageError(f"{where}: no interface of this machine has this address")
        case number_ if number_ in SHORT:
            return ResourceError(f"{where}: {os.strerror(error.errno or 0)}", hint="publish fewer ports")
    return UsageError(f"{where}: {os.strerror(error.errno or 0)}")


def _close(bound: list[Bound]) -> None:
    for _, made in bound:
        made.close()
