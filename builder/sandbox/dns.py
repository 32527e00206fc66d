"""A relay for hosts whose only resolver listens on loopback, where a step's own network namespace cannot
reach it.

It listens at the gateway's address, port 53, UDP and TCP, and copies bytes; it reads no message. Each UDP
query has a socket of its own towards the resolver, so that answers find their way and ids cannot be mixed
up.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time

_TIMEOUT_S = 10.0
_IP_FREEBIND = 15


class Relay:
    """Runs in a daemon thread until closed. `address` is four bytes; `resolvers` are tried in turn, one per
    query.
    """

    def __init__(self, address: bytes, resolvers: list[str], port: int = 53, upstream_port: int = 53) -> None:
        self._resolvers = [(resolver, upstream_port) for resolver in resolvers]
        where = (".".join(map(str, address)), port)
        self._udp = _listen(socket.SOCK_DGRAM, where)
        try:
            self._tcp = _listen(socket.SOCK_STREAM, where)
        except BaseException:
            self._udp.close()
            raise
        self._tcp.listen(16)
        self._stop, self._stopper = os.pipe2(os.O_CLOEXEC)
        self._queries: dict[int, tuple[socket.socket, tuple[str, int], float]] = {}
        self._streams: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._turn = 0
        self._thread = threading.Thread(target=self._serve, name="dns-relay", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop and close every socket."""
        os.write(self._stopper, b"x")
        self._thread.join()
        for fd in (self._stop, self._stopper):
            os.close(fd)

    def _serve(self) -> None:
        fixed = {self._stop, self._udp.fileno(), self._tcp.fileno()}
        while True:
            poll = select.poll()  # not select(): a build may have more than 1,024 descriptors
            for fd in (*fixed, *self._queries, *self._streams):
                poll.register(fd, select.POLLIN)
            ready = [fd for fd, _ in poll.poll(_TIMEOUT_S * 500)]
            if self._stop in ready:
                break
            # Whoever makes sockets comes last: no new one has the number of one that was ready and is closed.
            for fd in sorted(ready, key=fixed.__contains__):
                try:
                    self._step(fd)
                except OSError:
                    self._forget(fd)
            for fd in [fd for fd, (*_, until) in self._queries.items() if until < time.monotonic()]:
                self._forget(fd)
        for fd in [*self._queries, *self._streams]:
            self._forget(fd)
        self._udp.close()
        self._tcp.close()

    def _step(self, fd: int) -> None:
        if fd == self._udp.fileno():
            query, asker = self._udp.recvfrom(65535)
            upstream = self._upstream(socket.SOCK_DGRAM)
            self._queries[upstream.fileno()] = (upstream, asker, time.monotonic() + _TIMEOUT_S)
            upstream.send(query)
        elif fd == self._tcp.fileno():
            client, _ = self._tcp.accept()
            client.settimeout(_TIMEOUT_S)
            try:
                pair = (client, self._upstream(socket.SOCK_STREAM))
            except BaseException:
                client.close()
                raise
            self._streams |= {end.fileno(): pair for end in pair}
        elif fd in self._queries:
            upstream, asker, _ = self._queries[fd]
            self._udp.sendto(upstream.recv(65535), asker)
            self._forget(fd)
        elif fd in self._streams:
            one, other = self._streams[fd]
            source, target = (one, other) if one.fileno() == fd else (other, one)
            if block := source.recv(65535):
                target.sendall(block)
            else:
                self._forget(fd)

    def _upstream(self, kind: int) -> socket.socket:
        self._turn += 1
        upstream = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
        try:
            upstream.settimeout(_TIMEOUT_S)
            upstream.connect(self._resolvers[self._turn % len(self._resolvers)])
        except BaseException:
            upstream.close()
            raise
        return upstream

    def _forget(self, fd: int) -> None:
        if query := self._queries.pop(fd, None):
            query[0].close()
        for end in self._streams.pop(fd, ()):
            self._streams.pop(end.fileno(), None)
            end.close()


def _listen(kind: int, where: tuple[str, int]) -> socket.socket:
    """The address may not exist yet: it is that of the first namespace's host end."""
    listener = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
    except BaseException:
        listener.close()
        raise
    return listener
