"""Sockets and threads: one thread for each connection, a bound on both, and an end that lets requests
finish.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable

from oci.errors import InvalidReference, OciError
from oci.layout import Layout
from oci.reference import Reference
from oci.registry.config import is_loopback
from oci.registry.server.access import AccessLog
from oci.registry.server.app import App
from oci.registry.server.links import Links
from oci.registry.server.options import Options
from oci.registry.server.problems import Problem
from oci.registry.server.receive import HEAD_SECONDS, IDLE_SECONDS, Gone, Incoming
from oci.registry.server.repositories import Repositories
from oci.registry.server.request import Request, parse
from oci.registry.server.response import Response, close, linger, send, send_all

_WILDCARDS = ("", "0.0.0.0", "::")
_BACKLOG = 512
_NEAR_BUFFER = 256 * 1024
"""Bytes on the way to a client on this machine. More, and they leave the processor's cache before they are
read: the kernel's 4 MiB make one client's pull slower by a third.
"""


class RegistryServer:
    """A registry that listens from the moment it is made, and answers while `serve` runs.

    Use it in `with`, or `close` it. Raises OciError for an address, a certificate or an htpasswd file that
    will not do.
    """

    def __init__(self, layout: Layout, options: Options) -> None:
        self._options = options
        self._tls = _tls_context(options)
        self._listener = _listen(options)
        self._links: Links | None = None
        try:
            self.port: int = self._listener.getsockname()[1]
            domains = _domains(options, self.port)
            self.domain = domains[0]
            layout.blobs.clean()
            self._links = Links(layout.root)
            self._app = App(Repositories(layout, self._links, options.guard, domains), options)
        except BaseException:
            self._listener.close()
            if self._links is not None:
                self._links.close()
            raise
        self._log = AccessLog(options.log)
        self._connections = _Connections(options.connections)
        self._wake_read, self._wake_write = os.pipe()
        self._closed = False

    @property
    def url(self) -> str:
        """Where it answers."""
        host = self._options.host if self._options.host not in _WILDCARDS else "127.0.0.1"
        return f"{'https' if self._tls else 'http'}://{_bracketed(host)}:{self.port}"

    def __enter__(self) -> RegistryServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def serve(self) -> None:
        """Take connections until `stop`, or until an exception (a signal's) passes through."""
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._wake_read in ready:
                return
            try:
                sock, address = self._listener.accept()
            except OSError:  # it went away again, or we have no descriptors left: the next poll will tell
                time.sleep(0.01)
                continue
            self._take(sock, address[0])

    def stop(self) -> None:
        """Let `serve` end; from any thread."""
        os.write(self._wake_write, b"x")

    def close(self) -> None:
        """Take no more requests, let the running ones finish for `grace` seconds, and give the rest up."""
        if self._closed:
            return
        self._closed = True
        self._listener.close()
        self._connections.end(self._options.grace)
        self._app.close()
        if self._links is not None:
            self._links.close()
        for fd in (self._wake_read, self._wake_write):
            os.close(fd)

    def _take(self, sock: socket.socket, remote: str) -> None:
        if not self._connections.begin(sock):
            _refuse(sock)
            return
        try:
            threading.Thread(target=self._converse, args=(sock, remote), daemon=True).start()
        except RuntimeError:  # the system has no thread left for us
            self._connections.finish(sock)
            _refuse(sock)

    def _converse(self, sock: socket.socket, remote: str) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if is_loopback(remote):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _NEAR_BUFFER)
            if self._tls is not None:
                sock.settimeout(HEAD_SECONDS)
                sock = self._encrypted(self._tls, sock)
                sock.do_handshake()
            self._requests(sock, remote)
        except (Gone, OSError):
            pass
        finally:
            self._connections.finish(sock)
            sock.close()

    def _encrypted(self, tls: ssl.SSLContext, plain: socket.socket) -> ssl.SSLSocket:
        """A socket in place of `plain`, whose descriptor it takes over: it is the one to be ended."""
        sock = tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self._connections.exchange(plain, sock)
        return sock

    def _requests(self, sock: socket.socket, remote: str) -> None:
        incoming = Incoming(sock)

        def proceed() -> None:
            send_all(sock, b"HTTP/1.1 100 Continue\r\n\r\n")

        while self._connections.rest(sock, lambda: incoming.idle(IDLE_SECONDS)):
            try:
                request = parse(incoming.head(), incoming, proceed, remote)
            except Problem as problem:
                send(sock, Response.of(problem), bare=False, last=True)
                linger(sock)
                return
            if not self._answer(sock, request):
                return

    def _answer(self, sock: socket.socket, request: Request) -> bool:
        """Answer one request; whether the connection goes on."""
        began = time.monotonic()
        status, sent = 0, 0
        try:
            response = self._app.answer(request)
            last = not (request.keep_alive and request.body.drainable) or self._connections.ending
            try:
                send(sock, response, bare=request.method == "HEAD", last=last)
                status = response.status
            finally:
                sent = response.sent
                close(response)
        finally:
            self._log.tell(request, status, sent, began)
        if last or not request.body.drain():
            if not request.body.ended:
                linger(sock)
            return False
        return True


class _Connections:
    """The connections that are open, and those among them that rest between two requests."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._open: set[socket.socket] = set()
        self._resting: dict[socket.socket, None] = {}
        self.ending = False

    def begin(self, sock: socket.socket) -> bool:
        """One more, unless there are too many and none of them rests; the longest resting one goes first."""
        with self._changed:
            if self.ending:
                return False
            if len(self._open) >= self._most:
                oldest = next(iter(self._resting), None)
                if oldest is None:
                    return False
                del self._resting[oldest]
                _stop_reading(oldest)
            self._open.add(sock)
            return True

    def rest(self, sock: socket.socket, wait: Callable[[], bool]) -> bool:
        """Wait for the next request, which may never come."""
        with self._changed:
            if self.ending:
                return False
            self._resting[sock] = None
        try:
            return wait()
        finally:
            with self._changed:
                self._resting.pop(sock, None)

    def exchange(self, old: socket.socket, new: socket.socket) -> None:
        """`new` stands for the connection from now on. It ends at once if the server has begun to."""
        with self._changed:
            self._open.discard(old)
            self._open.add(new)
            if self.ending:
                _stop_reading(new, socket.SHUT_RDWR)

    def finish(self, sock: socket.socket) -> None:
        """One less."""
        with self._changed:
            self._open.discard(sock)
            self._changed.notify_all()

    def end(self, seconds: float) -> None:
        """End all: resting ones now, the others when they are done, or when the time is over."""
        with self._changed:
            self.ending = True
            for sock in self._resting:
                _stop_reading(sock)
            self._changed.wait_for(lambda: not self._open, seconds)
            for sock in self._open:
                _stop_reading(sock, socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, 1.0)


def _stop_reading(sock: socket.socket, how: int = socket.SHUT_RD) -> None:
    try:
        socket.socket.shutdown(sock, how)
    except OSError:
        pass


def _refuse(sock: socket.socket) -> None:
    problem = Problem(503, "TOOMANYREQUESTS", "too many connections", headers=(("Retry-After", "2"),))
    try:
        send(sock, Response.of(problem), bare=False, last=True)
    except Gone:
        pass
    sock.close()


def _listen(options: Options) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((options.host, options.port))
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise OciError(f"{_bracketed(options.host)}:{options.port}: {error.strerror or error}") from None
    return sock


def _tls_context(options: Options) -> ssl.SSLContext | None:
    if not options.tls_cert and not options.tls_key:
        return None
    if not (options.tls_cert and options.tls_key):
        raise OciError("TLS needs both a certificate and its key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise OciError(f"{options.tls_cert}, {options.tls_key}: {error}") from None
    return context


def _domains(options: Options, port: int) -> tuple[str, ...]:
    """The registry's names; the first is the one it gives to what is pushed."""
    loopback = (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", f"{socket.gethostname()}:{port}")
    own = () if options.host in _WILDCARDS else (f"{_bracketed(options.host)}:{port}",)
    named = (options.hostname,) if options.hostname else ()
    for name in named:
        _check_hostname(name)
    return tuple(dict.fromkeys((*named, *own, *loopback)))


def _check_hostname(name: str) -> None:
    try:
        if Reference.parse(f"{name}/a:b").domain == name:
            return
    except InvalidReference:
        pass
    raise OciError(f"{name!r} is no registry's name; expected something like registry.example:5000")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
