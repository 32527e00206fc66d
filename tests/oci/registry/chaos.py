"""A proxy that stands before a registry and spoils exchanges by rule.

    with chaos("127.0.0.1:5000") as proxy:
        proxy.spoil("GET", "/blobs/", truncate(1000), times=2)

A rule is used `times` times, for requests whose method and path match; the first that matches is the one.
"""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler

from small_registry import listening

PIECE = 16384


class Hangup(Exception):
    """The exchange ends here, with a reset."""


@dataclass
class Rule:
    method: str
    path: str
    spoil: Callable[[Exchange], None]
    times: int
    after: int = 0

    def takes(self, method: str, path: str) -> bool:
        if not (re.fullmatch(self.method, method) and re.search(self.path, path)):
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return self.times >= 0


@dataclass
class Proxy:
    upstream: str
    address: str = ""
    rules: list[Rule] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    spoilt: int = 0
    hanging: int = 0
    """Exchanges that have begun to say nothing."""

    def spoil(
        self, method: str, path: str, how: Callable[[Exchange], None], *, times: int = 1, after: int = 0
    ) -> None:
        self.rules.append(Rule(method, path, how, times, after))

    def rule(self, method: str, path: str) -> Rule | None:
        with self.lock:
            for rule in self.rules:
                if rule.takes(method, path):
                    self.spoilt += 1
                    return rule
        return None


class Exchange(BaseHTTPRequestHandler):
    """One request on its way, and what rules may do to it."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    proxy: Proxy

    def log_message(self, *args: object) -> None:
        pass

    def do(self) -> None:
        self.done = False
        self.headers_out = dict(self.headers.items())
        self.request_limit: int | None = None
        self.lose_answer = False
        self.change: Callable[[bytes], bytes] = lambda data: data
        self.length_delta = 0
        self.answer_limit: int | None = None
        self.hang = False
        self.last = False
        self.pause = 0.0
        self.head_pause = 0.0
        rule = self.proxy.rule(self.command, self.path)
        try:
            if rule:
                rule.spoil(self)
            if not self.done:
                self._forward()
        except (Hangup, OSError):
            self.reset()

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = do

    def reset(self) -> None:
        with suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        with suppress(OSError):
            self.connection.close()

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"", *, drain: bool = True) -> None:
        self.done = True
        if drain:
            left = int(self.headers.get("Content-Length") or 0)
            while left and (piece := self.rfile.read(min(left, PIECE))):
                left -= len(piece)
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _forward(self) -> None:
        upstream = http.client.HTTPConnection(self.proxy.upstream, timeout=60)
        try:
            self._send(upstream)
            answer = upstream.getresponse()
            if self.lose_answer:
                answer.read()
                raise Hangup
            self._answer(answer)
        finally:
            upstream.close()

    def _send(self, upstream: http.client.HTTPConnection) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for key, value in self.headers_out.items():
            upstream.putheader(key, value)
        upstream.endheaders()
        left = int(self.headers.get("Content-Length") or 0)
        sent = 0
        while left:
            piece = self.rfile.read(min(left, PIECE))
            if not piece:
                raise Hangup
            left -= len(piece)
            if self.request_limit is not None and sent + len(piece) > self.request_limit:
                upstream.send(piece[: self.request_limit - sent])
                time.sleep(0.02)  # let it arrive before the connection goes
                raise Hangup
            upstream.send(piece)
            sent += len(piece)

    def _answer(self, answer: http.client.HTTPResponse) -> None:
        if self.head_pause:
            for byte in b"HTTP/1.1 200 OK\r\nX-Drip: " + b"x" * 10_000:
                self.connection.sendall(bytes([byte]))
                time.sleep(self.head_pause)
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() == "content-length":
                value = str(int(value) + self.length_delta)
            self.send_header(key, value)
        if self.last:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.flush()
        if self.command == "HEAD":
            return
        sent = 0
        while piece := answer.read(PIECE):
            piece = self.change(piece)
            if self.answer_limit is not None and sent + len(piece) > self.answer_limit:
                self.connection.sendall(piece[: self.answer_limit - sent])
                if self.hang:
                    with self.proxy.lock:
                        self.proxy.hanging += 1
                    self.connection.settimeout(100)
                    self.connection.recv(1)
                raise Hangup
            for part in [piece[i : i + 1] for i in range(len(piece))] if self.pause else [piece]:
                self.connection.sendall(part)
                if self.pause:
                    time.sleep(self.pause)
            sent += len(piece)
        if self.length_delta:
            self.close_connection = True


def status(code: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Callable[[Exchange], None]:
    """Answer so, without asking the registry."""
    return lambda exchange: exchange.reply(code, headers or {}, body)


def early(code: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Callable[[Exchange], None]:
    """Answer before the request's body was read, and hang up."""

    def spoil(exchange: Exchange) -> None:
        exchange.rfile.read(min(PIECE, int(exchange.headers.get("Content-Length") or 0)))
        exchange.reply(code, {**(headers or {}), "Connection": "close"}, body, drain=False)
        exchange.close_connection = True

    return spoil


def too_many(seconds: int, *, date: bool = False) -> Callable[[Exchange], None]:
    """429 with Retry-After, in seconds or as a date."""

    def spoil(exchange: Exchange) -> None:
        value = formatdate(time.time() + seconds, usegmt=True) if date else str(seconds)
        body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}'
        exchange.reply(429, {"Retry-After": value, "Content-Type": "application/json"}, body)

    return spoil


def reset(exchange: Exchange) -> None:
    """Break the connection off without a word."""
    raise Hangup


def lose_answer(exchange: Exchange) -> None:
    """Let the registry do it, but nobody hears of it."""
    exchange.lose_answer = True


def cut_request(after: int) -> Callable[[Exchange], None]:
    """Break off when the registry has so many bytes of the request's body."""

    def spoil(exchange: Exchange) -> None:
        exchange.request_limit = after

    return spoil


def truncate(after: int) -> Callable[[Exchange], None]:
    """Break off after so many bytes of the answer."""

    def spoil(exchange: Exchange) -> None:
        exchange.answer_limit = after

    return spoil


def hang(after: int, *, last: bool = False) -> Callable[[Exchange], None]:
    """Say nothing more after so many bytes of the answer, until the other side goes. `last`: and say that the
    connection ends with this answer."""

    def spoil(exchange: Exchange) -> None:
        exchange.answer_limit = after
        exchange.hang = True
        exchange.last = last

    return spoil


def wrong_length(delta: int) -> Callable[[Exchange], None]:
    """A Content-Length that is off."""

    def spoil(exchange: Exchange) -> None:
        exchange.length_delta = delta

    return spoil


def corrupt(exchange: Exchange) -> None:
    """One bit of the answer is another."""
    exchange.change = lambda data: bytes([data[0] ^ 1]) + data[1:]


def drip(pause: float) -> Callable[[Exchange], None]:
    """The answer's body comes byte by byte."""

    def spoil(exchange: Exchange) -> None:
        exchange.pause = pause

    return spoil


def drip_head(pause: float) -> Callable[[Exchange], None]:
    """The answer's head comes byte by byte, and never ends."""

    def spoil(exchange: Exchange) -> None:
        exchange.head_pause = pause

    return spoil


def html(code: int = 200) -> Callable[[Exchange], None]:
    """What a captive portal says."""
    body = b"<html><head><title>Hotel</title></head><body>Please <b>log in</b> first</body></html>"
    return status(code, {"Content-Type": "text/html; charset=utf-8"}, body)


def redirect(location: str, code: int = 307) -> Callable[[Exchange], None]:
    """Go elsewhere."""
    return status(code, {"Location": location})


@contextmanager
def chaos(upstream: str, host: str = "127.0.0.1") -> Iterator[Proxy]:
    """A proxy before `upstream` for the block."""
    proxy = Proxy(upstream)
    with listening(type("ChaosExchange", (Exchange,), {"proxy": proxy}), host) as address:
        proxy.address = address
        yield proxy
