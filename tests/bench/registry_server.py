"""Throughput of `pybuild registry serve` beside Debian's docker-registry, on loopback, both stores on memory.

    python tests/bench/registry_server.py [--mb N] [--rounds N]

Every client is a process of its own that speaks the protocol over one bare socket, so that little of the
machine goes to clients: push is POST and one PUT from a file, pull is GET into a buffer that is thrown away.
`small` is a whole image of ten small blobs, in images a second. The peers take turns within a round; the best
round counts. Exit code 1 when we are slower than docker-registry anywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import socket
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from peers import Registry, docker_registry, own_registry

CLIENTS = (1, 16)
SMALL_BLOBS = 10
SMALL_BYTES = 16 << 10


class Wire:
    """A client's connection: requests go out, answers come back, bodies are thrown away."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(1 << 20)

    def ask(
        self, method: str, path: str, body: bytes | tuple[int, int] = b"", kind: str = ""
    ) -> tuple[int, dict[str, str]]:
        length = body[1] if isinstance(body, tuple) else len(body)
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n"
        head += f"Content-Type: {kind or 'application/octet-stream'}\r\n\r\n"
        if isinstance(body, tuple):
            self._socket.sendall(head.encode(), socket.MSG_MORE)
            sent = 0
            while sent < length:
                sent += os.sendfile(self._socket.fileno(), body[0], sent, length - sent)
        else:
            self._socket.sendall(head.encode() + body)
        return self._answer(method)

    def _answer(self, method: str) -> tuple[int, dict[str, str]]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._socket.recv(65536)
        head, _, rest = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        left = 0 if method == "HEAD" else int(headers.get("content-length", 0)) - len(rest)
        while left > 0:
            left -= self._socket.recv_into(self._buffer, min(left, len(self._buffer)))
        return int(status.split()[1]), headers


def push_blob(wire: Wire, repository: str, body: bytes | tuple[int, int], digest: str) -> None:
    status, headers = wire.ask("POST", f"/v2/{repository}/blobs/uploads/")
    assert status == 202, status
    location = headers["location"]
    if "://" in location:
        location = "/" + location.split("://", 1)[1].split("/", 1)[1]
    mark = "&" if "?" in location else "?"
    status, _ = wire.ask("PUT", f"{location}{mark}digest={digest}", body)
    assert status == 201, status


def push(port: int, number: int, path: str) -> int:
    """Push one large blob of this client's own."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        digest = f"sha256:{os.path.basename(path)}"
        push_blob(Wire(port), f"bench/c{number}", (file.fileno(), size), digest)
    return size


def pull(port: int, number: int, path: str) -> int:
    """Pull it again, three times."""
    wire = Wire(port)
    for _ in range(3):
        status, _ = wire.ask("GET", f"/v2/bench/c{number}/blobs/sha256:{os.path.basename(path)}")
        assert status == 200, status
    return 3 * os.path.getsize(path)


def small(port: int, number: int, path: str) -> int:
    """Push a few images of small blobs."""
    wire = Wire(port)
    images = 10
    for image in range(images):
        repository = f"bench/s{number}"
        blobs = [os.urandom(SMALL_BYTES) for _ in range(SMALL_BLOBS)]
        parts = []
        for blob in blobs:
            digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
            assert wire.ask("HEAD", f"/v2/{repository}/blobs/{digest}")[0] == 404
            push_blob(wire, repository, blob, digest)
            parts.append(
                {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": len(blob)}
            )
        config = {**parts[0], "mediaType": "application/vnd.oci.image.config.v1+json"}
        kind = "application/vnd.oci.image.manifest.v1+json"
        manifest = {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": parts[1:]}
        status, _ = wire.ask(
            "PUT", f"/v2/{repository}/manifests/t{image}", json.dumps(manifest).encode(), kind
        )
        assert status == 201, status
    return images


Work = Callable[[int, int, str], int]
WORK: dict[str, Work] = {"push": push, "pull": pull, "small": small}


def _client(work: str, port: int, number: int, path: str, start: object, out: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    out.put(WORK[work](port, number, path))  # type: ignore[attr-defined]


def timed_clients(work: str, peer: Registry, paths: list[str]) -> tuple[int, float]:
    """What all clients moved at once (bytes or images), and in how many seconds; each has its own file."""
    context = multiprocessing.get_context("fork")
    start, out = context.Event(), context.Queue()
    clients = [
        context.Process(target=_client, args=(work, peer.port, number, path, start, out))
        for number, path in enumerate(paths)
    ]
    for client in clients:
        client.start()
    time.sleep(0.2)
    began = time.perf_counter()
    start.set()
    moved = sum(out.get(timeout=60) for _ in clients)
    took = time.perf_counter() - began
    for client in clients:
        client.join()
    return moved, took


def material(area: str, count: int, size: int) -> list[str]:
    """Files named by their own sha256, incompressible and all different."""
    paths = []
    for _ in range(count):
        content = os.urandom(min(size, 1 << 20)) * max(1, size >> 20)
        path = os.path.join(area, hashlib.sha256(content).hexdigest())
        with open(path, "wb") as file:
            file.write(content)
        paths.append(path)
    return paths


@dataclass(slots=True)
class Table:
    best: dict[tuple[str, int, str], float] = field(default_factory=dict)

    def add(self, work: str, clients: int, peer: str, value: float) -> None:
        key = (work, clients, peer)
        self.best[key] = max(value, self.best.get(key, 0.0))

    def show(self) -> bool:
        """Print it; whether we were nowhere slower."""
        print(f"{'work':8}{'clients':>8}{'pybuild':>12}{'docker-registry':>18}{'ratio':>8}")
        good = True
        for work, clients in dict.fromkeys(key[:2] for key in self.best):
            ours, theirs = (self.best[work, clients, name] for name in ("pybuild", "docker-registry"))
            unit = 1 if work == "small" else 1e6
            what = "images/s" if work == "small" else "MB/s"
            print(f"{work:8}{clients:8}{ours / unit:12.0f}{theirs / unit:18.0f}{ours / theirs:8.2f}  {what}")
            good = good and ours >= theirs
        return good


def main() -> int:
    parser = argparse.ArgumentParser(description="Time our registry beside docker-registry.")
    parser.add_argument("--mb", type=int, default=512, help="bytes that all clients move at once, in MB")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    table = Table()
    area = tempfile.mkdtemp(prefix="pybuild-bench-", dir="/dev/shm")
    try:
        for _ in range(options.rounds):
            for clients in CLIENTS:
                _round(area, clients, (options.mb << 20) // clients, table)
    finally:
        shutil.rmtree(area, ignore_errors=True)
    return 0 if table.show() else 1


def _round(area: str, clients: int, size: int, table: Table) -> None:
    directory = tempfile.mkdtemp(dir=area)
    paths = material(directory, clients, size)
    program = os.path.join(sysconfig.get_path("scripts"), "pybuild")
    with own_registry(directory, program) as ours, docker_registry(directory) as theirs:
        for work in WORK:
            for peer in (ours, theirs):
                moved, took = timed_clients(work, peer, paths)
                table.add(work, clients, peer.name, moved / took)
                print(f"{work} {clients} {peer.name}", file=sys.stderr, flush=True)
    shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(main())
