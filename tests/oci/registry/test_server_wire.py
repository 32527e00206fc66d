"""HTTP as our registry reads it: strictly, with patience that ends (S90, RFC 9112)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import Registry, digest_of, served

from oci.errors import OciError, RegistryError
from oci.layout import Layout
from oci.registry.client import Client
from oci.registry.server import Options, RegistryServer, receive
from oci.registry.server.problems import Problem
from oci.registry.server.receive import Body, Gone, Incoming

BASE = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n"
SECRET = b"GET /v2/secret/tags/list HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def registry(layout: Layout) -> Iterator[Registry]:
    with served(layout) as registry:
        yield registry


def until(true: Callable[[], bool]) -> None:
    """Wait for what is about to happen."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def connections(registry: Registry) -> tuple[int, int]:
    """How many are open, and how many of them rest."""
    found = registry.server._connections
    return len(found._open), len(found._resting)


def connected(registry: Registry) -> socket.socket:
    return socket.create_connection(("127.0.0.1", registry.port), timeout=60)


def begin_upload(sock: socket.socket, location: str, size: int) -> None:
    """Send the head of a request with `size` bytes. On return the server waits for them."""
    head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\nExpect: 100-continue\r\n\r\n"
    sock.sendall(head.encode())
    assert sock.recv(1000).startswith(b"HTTP/1.1 100 ")


def statuses(data: bytes) -> list[int]:
    return [int(part.split()[0]) for part in data.split(b"HTTP/1.1 ")[1:]]


def test_requests_follow_each_other_on_a_connection(registry: Registry) -> None:
    blob = b"some content"
    requests = BASE + b"\r\n" + BASE.replace(b"GET", b"HEAD") + b"\r\n"
    requests += (
        b"POST /v2/app/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        % (digest_of(blob).encode())
    )
    requests += b"4;ext=1\r\n" + blob[:4] + b"\r\n" + b"8\r\n" + blob[4:] + b"\r\n0\r\nTrailer: x\r\n\r\n"
    requests += b"\r\n" + BASE + b"Connection: close\r\n\r\n"
    assert statuses(registry.raw(requests)) == [200, 200, 201, 200]


def test_an_unwanted_body_is_passed_over(registry: Registry) -> None:
    body = b"x" * 300_000
    request = b"PUT /v2/app/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + body
    assert statuses(registry.raw(request + BASE + b"Connection: close\r\n\r\n")) == [404, 200]


def test_an_unwanted_body_that_is_large_ends_the_connection(registry: Registry) -> None:
    size = receive.DRAIN + 1
    request = b"PUT /v2/app/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    answer = registry.raw(request + b"x" * 1000, half_close=True)
    assert statuses(answer) == [404] and b"Connection: close" in answer


def test_clients_may_wait_for_our_word(registry: Registry) -> None:
    digest = digest_of(b"content")
    head = b"Host: x\r\nContent-Length: 7\r\nExpect: 100-continue\r\n"
    with socket.create_connection(("127.0.0.1", registry.port), timeout=60) as sock:
        sock.sendall(b"POST /v2/app/blobs/uploads/?digest=%s HTTP/1.1\r\n" % digest.encode() + head + b"\r\n")
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"content")
        assert sock.recv(1000).startswith(b"HTTP/1.1 201 ")
    refused = registry.raw(b"PUT /v2/app/nothing HTTP/1.1\r\n" + head + b"\r\n")
    assert statuses(refused) == [404]  # no 100: the body is not wanted


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /v2/ HTTP/1.1\r\n\r\n",
        b"GET /v2/ HTTP/2.0\r\nHost: x\r\n\r\n",
        b"get /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET  /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET v2 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET ftp://x/v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v2/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        BASE + b"Name : value\r\n\r\n",
        BASE + b"Folded: a\r\n b\r\n\r\n",
        BASE + b"Evil: a\nb\r\n\r\n",
        BASE + b"Evil: a\x00b\r\n\r\n",
        BASE + b"no colon\r\n\r\n",
        BASE + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        BASE + b"Content-Length: +3\r\n\r\nabc",
        BASE + b"Content-Length: 3, 3\r\n\r\nabc",
        BASE + b"Content-Length: -1\r\n\r\n",
        BASE + b"Content-Length: 99999999999999999999\r\n\r\n",
        BASE + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BASE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        BASE + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v2/?" + b"&".join(b"a=%d" % n for n in range(200)) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_a_request_that_has_two_meanings_has_none(registry: Registry, request_: bytes) -> None:
    """Nothing behind it is taken for a request."""
    answer = registry.raw(request_ + SECRET)
    assert len(statuses(answer)) == 1 and statuses(answer)[0] in (400, 414)
    assert b"secret" not in answer and b"Connection: close" in answer


@pytest.mark.parametrize(
    "chunks",
    [b"x\r\n", b"-1\r\n", b"5\r\nabc\r\n0\r\n\r\n", b"3\nabc\r\n", b"3\r\nabcdef\r\n", b"3;" + b"e" * 3000,
     b"FFFFFFFFFFFFFFFFF\r\n"],
)  # fmt: skip
def test_chunks_that_are_none(registry: Registry, chunks: bytes) -> None:
    location = registry.start("app").encode()
    request = b"PATCH %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % location
    answer = registry.raw(request + chunks + SECRET, half_close=True)
    assert statuses(answer) in ([400], []) and b"secret" not in answer


class Pieces:
    """A socket that gives what it is told to, in pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    def settimeout(self, seconds: float) -> None:
        pass

    def recv(self, size: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 60), st.integers(1, 50))
def test_chunks_however_they_are_cut(chunks: list[bytes], piece: int, room: int) -> None:
    data = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\nNEXT"
    pieces = [data[start : start + piece] for start in range(0, len(data), piece)]
    incoming = Incoming(Pieces(pieces))  # type: ignore[arg-type]
    body = Body(incoming, None)
    view, content = memoryview(bytearray(room)), b""
    while count := body.readinto(view):
        content += view[:count]
    assert content == b"".join(chunks)
    assert b"NEXT".startswith(incoming._rest) and body.ended


@given(st.binary(max_size=200))
def test_anything_as_chunks(data: bytes) -> None:
    body = Body(Incoming(Pieces([data])), None)  # type: ignore[arg-type]
    view = memoryview(bytearray(64))
    try:
        while body.readinto(view):
            pass
    except (Gone, Problem):
        pass


def test_a_head_without_end(registry: Registry) -> None:
    assert statuses(registry.raw(BASE + b"A: " + b"a" * (receive.MAX_HEAD + 10))) == [431]


@pytest.mark.parametrize("where", ["head", "body", "chunk", "answer"])
def test_silence_ends_a_connection(layout: Layout, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    with served(layout) as registry:
        data = {
            "head": BASE,
            "body": b"PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
            "chunk": b"PATCH %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc",
            "answer": b"GET /v2/app/blobs/%s HTTP/1.1\r\nHost: x\r\n\r\n",
        }[where]
        if where == "answer":
            data %= registry.blob("app", b"x" * 30_000_000).encode()
        elif b"%s" in data:
            data %= registry.start("app").encode()
        for name in ("HEAD_SECONDS", "STALL_SECONDS"):  # not before: the way here may be slow
            monkeypatch.setattr(receive, name, 0.2)
        monkeypatch.setattr("oci.registry.server.response.STALL_SECONDS", 0.2)
        with socket.create_connection(("127.0.0.1", registry.port), timeout=60) as sock:
            sock.sendall(data)
            with contextlib.suppress(ConnectionResetError):
                sock.recv(1, socket.MSG_PEEK)  # an answer begins, or it is over
            until(lambda: connections(registry) == (0, 0))
            received = b""
            try:
                while block := sock.recv(1 << 20):
                    received += block
            except ConnectionResetError:
                pass
            assert len(received) < 30_000_000


def test_a_slow_trickle_ends_too(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(layout) as registry:
        location = registry.start("app").encode()
        monkeypatch.setattr(receive, "WINDOW_SECONDS", 0.3)
        monkeypatch.setattr(receive, "HEAD_SECONDS", 0.5)
        for head in (
            b"GET /v2/ HTTP/1.1\r\nHost: x",
            b"PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n" % location,
        ):
            with socket.create_connection(("127.0.0.1", registry.port), timeout=60) as sock:
                sock.sendall(head)
                with pytest.raises(OSError):
                    for _ in range(3000):
                        sock.sendall(b"y")
                        time.sleep(0.02)
        monkeypatch.undo()
        assert registry.ask("GET", "/v2/").status == 200


def test_connections_are_bounded_and_the_resting_ones_go_first(layout: Layout) -> None:
    """S90."""
    with served(layout, connections=3) as registry, ExitStack() as stack:
        location = registry.start("app")
        until(lambda: connections(registry) == (0, 0))
        resting = stack.enter_context(connected(registry))
        resting.sendall(BASE + b"\r\n")
        assert resting.recv(1000)
        until(lambda: connections(registry) == (1, 1))
        for _ in range(3):
            begin_upload(stack.enter_context(connected(registry)), location, 9)
        assert resting.recv(1000) == b""
        refused = registry.raw(b"")
        assert statuses(refused) == [503] and b"Retry-After" in refused


def test_the_end_lets_requests_finish(layout: Layout) -> None:
    with RegistryServer(layout, Options(port=0, grace=60)) as server, ExitStack() as stack:
        thread = threading.Thread(target=server.serve)
        thread.start()
        registry = Registry(server, layout)
        location = registry.start("app")
        resting = stack.enter_context(connected(registry))
        busy = stack.enter_context(connected(registry))
        begin_upload(busy, location, 6)
        busy.sendall(b"abc")
        server.stop()
        thread.join()
        closing = threading.Thread(target=server.close)
        closing.start()
        assert resting.recv(10) == b""
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", server.port), timeout=1)
        busy.sendall(b"def")
        answer = busy.recv(1000)
        assert statuses(answer) == [202] and b"Connection: close" in answer
        closing.join(50)
        assert not closing.is_alive()


def test_the_end_does_not_wait_for_ever(layout: Layout) -> None:
    with ExitStack() as stack:
        with served(layout) as registry:
            begin_upload(stack.enter_context(connected(registry)), registry.start("app"), 6)
            object.__setattr__(registry.server._options, "grace", 0.2)
        # It came here, before the silence of the request itself would have ended it.
        assert receive.STALL_SECONDS >= 60


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", key, "-out", cert, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01"])
def test_silence_ends_a_handshake(
    layout: Layout, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr("oci.registry.server.listener.HEAD_SECONDS", 0.2)
    cert, key = certificate
    with served(layout, tls_cert=str(cert), tls_key=str(key)) as registry:
        with connected(registry) as sock, contextlib.suppress(ConnectionResetError):
            sock.sendall(begun)
            assert sock.recv(100) == b""


def test_the_end_of_the_server_ends_resting_connections_with_tls(
    layout: Layout, certificate: tuple[Path, Path]
) -> None:
    """S90: as those without, at once and not when their time to rest is over."""
    cert, key = certificate
    context = ssl.create_default_context(cafile=str(cert))
    options = Options(port=0, grace=60, tls_cert=str(cert), tls_key=str(key))
    with RegistryServer(layout, options) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        registry = Registry(server, layout)
        with context.wrap_socket(connected(registry), server_hostname="localhost") as sock:
            sock.sendall(BASE + b"\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")
            until(lambda: connections(registry) == (1, 1))
            server.stop()
            thread.join()
            closing = threading.Thread(target=server.close)
            closing.start()
            sock.settimeout(30)
            assert sock.recv(1000) == b""
        closing.join()


def test_a_certificate_that_is_not_believed_is_named(layout: Layout, certificate: tuple[Path, Path]) -> None:
    """Not that plain text was refused, which a loopback host is tried with first."""
    cert, key = certificate
    with served(layout, tls_cert=str(cert), tls_key=str(key)) as registry, Client() as client:
        with pytest.raises(RegistryError, match="the certificate is not trusted"):
            client.ping(f"127.0.0.1:{registry.port}")


def test_tls(layout: Layout, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    blob = bytes(range(256)) * 4000
    with served(layout, tls_cert=str(cert), tls_key=str(key)) as registry:
        assert registry.server.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(cert))
        digest = digest_of(blob).encode()
        with socket.create_connection(("127.0.0.1", registry.port), timeout=60) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as sock:
                sock.sendall(
                    b"POST /v2/app/blobs/uploads/?digest=%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                    % (digest, len(blob))
                )
                sock.sendall(blob)
                assert sock.recv(1000).startswith(b"HTTP/1.1 201")
                sock.sendall(
                    b"GET /v2/app/blobs/%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % digest
                )
                received = b"".join(iter(lambda: sock.recv(65536), b""))
        assert received.partition(b"\r\n\r\n")[2] == blob
        with socket.create_connection(("127.0.0.1", registry.port), timeout=60) as plain:
            plain.sendall(BASE + b"\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert b"HTTP" not in plain.recv(1000)


@pytest.mark.parametrize(
    "options",
    [
        {"tls_cert": "/nowhere", "tls_key": "/nowhere"},
        {"tls_cert": "/nowhere"},
        {"htpasswd": "/nowhere"},
        {"host": "192.0.2.1"},
        {"hostname": "no name"},
        {"hostname": "plain"},
    ],
)
def test_what_will_not_do_is_said_at_once(layout: Layout, options: dict[str, str]) -> None:
    with pytest.raises(OciError):
        RegistryServer(layout, Options(port=0, **options))  # type: ignore[arg-type]


def test_a_port_that_is_taken(registry: Registry, layout: Layout) -> None:
    with pytest.raises(OciError, match=f"127.0.0.1:{registry.port}: Address already in use"):
        RegistryServer(layout, Options(port=registry.port))


def test_the_access_log(layout: Layout) -> None:
    lines: list[bytes] = []
    with served(layout, log=lines.append) as registry:
        registry.ask("PATCH", registry.start("app"), b"12345", User_Agent='te"st')
        registry.raw(b'GET /v2/"x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
        registry.raw(
            b"PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc" % registry.start("app").encode(),
            half_close=True,
        )
    told = [json.loads(line) for line in lines]
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)
    patch = next(each for each in told if each["method"] == "PATCH" and each["status"] == 202)
    assert (patch["received"], patch["agent"], patch["remote"]) == (5, 'te"st', "127.0.0.1")
    assert {"time", "user", "target", "sent", "seconds"} <= set(patch)
    assert [each["status"] for each in told if each["target"] == '/v2/"x'] == [404]
    assert [each["received"] for each in told if each["status"] == 0] == [3]


def test_no_secret_is_in_the_access_log(layout: Layout, tmp_path: Path) -> None:
    """S66, S90."""
    canary = "c4n4ry"
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text("user:{SHA}" + base64.b64encode(hashlib.sha1(canary.encode()).digest()).decode())
    lines: list[bytes] = []
    proof = base64.b64encode(f"user:{canary}".encode()).decode()
    with served(layout, log=lines.append, htpasswd=str(htpasswd)) as registry:
        for target, headers in (
            (f"/v2/?token={canary}&n=5", {}),
            (f"http://user:{canary}@x/v2/?x", {}),
            ("/v2/", {"Authorization": f"Basic {proof}", "User-Agent": f"me Bearer {canary * 2}"}),
            ("/v2/", {"Authorization": f"Bearer {canary}", "Cookie": canary, "User-Agent": "plain"}),
        ):
            said = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            registry.raw(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{said}\r\n".encode())
    log = b"".join(lines)
    assert canary.encode() not in log and proof.encode() not in log
    told = [json.loads(line) for line in lines]
    assert [each["target"] for each in told] == ["/v2/?***&n=5", "/v2/?***", "/v2/", "/v2/"]
    assert [each["user"] for each in told] == ["", "", "user", ""]
