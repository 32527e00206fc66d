"""kill -9 of the server at random points of pushes and pulls: the next one completes, and the store is sound
(R28)."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from served import CONFIG, LAYER, MANIFEST, descriptor, digest_of

from oci.digest import Digest
from oci.layout import Layout, name_of
from oci.validate import validate

PROGRAM = """
import sys
from oci.layout import Layout
from oci.registry.server import Options, RegistryServer
with RegistryServer(Layout.create(sys.argv[1]), Options(port=0, hostname="r.example")) as server:
    print(server.port, flush=True)
    server.serve()
"""
CACHE = """
import sys
from oci.layout import Layout
from oci.reference import Reference
from oci.registry.client import Client
from oci.registry.server import Options, RegistryServer

class Upstream:
    def __init__(self):
        self.client = Client()
        self.close = self.client.interrupt
    def fetch_manifest(self, repository, reference):
        mark = "@" if ":" in reference else ":"
        found = self.client.fetch_manifest(Reference.parse(f"{sys.argv[2]}/{repository}{mark}{reference}"))
        return found[0].media_type, found[1]
    def fetch_blob(self, repository, descriptor, store, watch):
        self.client.fetch_blob(Reference.parse(f"{sys.argv[2]}/{repository}"), descriptor, store, watch)

with RegistryServer(Layout.create(sys.argv[1]), Options(port=0, upstream=Upstream())) as server:
    print(server.port, flush=True)
    server.serve()
"""
SERVER_LIFE_S = 0.25


@contextmanager
def server(root: str, *cache_of: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    program = CACHE if cache_of else PROGRAM
    process = subprocess.Popen([sys.executable, "-c", program, root, *cache_of], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def image(number: int) -> tuple[list[bytes], bytes]:
    """Blobs and manifest of an image that no other number has."""
    layers = [f"{number}.{part}".encode() * 40_000 for part in range(3)]
    rootfs = {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config),
        "layers": [descriptor(LAYER, layer) for layer in layers],
    }
    return [config, *layers], json.dumps(value).encode()


def push(port: int, number: int, acknowledged: dict[str, str]) -> None:
    """Push an image as clients do, chunk by chunk; remember what the server said is there."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        _push(connection, number, acknowledged)


def _push(connection: http.client.HTTPConnection, number: int, acknowledged: dict[str, str]) -> None:
    blobs, manifest = image(number)

    def ask(method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer

    for blob in blobs:
        digest = digest_of(blob)
        if ask("HEAD", f"/v2/app/blobs/{digest}").status == 200:
            continue
        location = ask("POST", "/v2/app/blobs/uploads/").headers["Location"]
        for start in range(0, len(blob), 50_000):
            assert ask("PATCH", location, blob[start : start + 50_000]).status == 202
        assert ask("PUT", f"{location}?digest={digest}").status == 201
        acknowledged[f"blobs/{digest}"] = digest
    kind = {"Content-Type": MANIFEST}
    for tag in ("latest", f"t{number}"):
        assert ask("PUT", f"/v2/app/manifests/{tag}", manifest, **kind).status == 201
    acknowledged[f"manifests/t{number}"] = digest_of(manifest)


def push_until_dead(port: int, numbers: Iterator[int], acknowledged: dict[str, str]) -> None:
    try:
        while True:
            push(port, next(numbers), acknowledged)
    except (OSError, http.client.HTTPException):
        pass


def pull_until_dead(port: int, acknowledged: dict[str, str]) -> None:
    """Ask for what is known to be there; an answer is right, or it is cut off."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        try:
            while True:
                for path, digest in random.sample(sorted(acknowledged.items()), min(5, len(acknowledged))):
                    connection.request("GET", f"/v2/app/{path}")
                    answer = connection.getresponse()
                    content = answer.read()
                    if (answer.status, digest_of(content)) != (200, digest):
                        acknowledged["wrong"] = f"{path}: {answer.status}"
                connection.request("GET", "/v2/")
                connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            pass


def check(root: str, port: int, acknowledged: dict[str, str]) -> None:
    """All that was acknowledged is served, and nothing in the store is anything but what its name says."""
    layout = Layout.open(root)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for path, digest in acknowledged.items():
        connection.request("GET", f"/v2/app/{path}")
        answer = connection.getresponse()
        assert (answer.status, digest_of(answer.read())) == (200, digest), path
    connection.close()
    for blob in layout.blobs:
        layout.blobs.verify(blob)
    for entry in layout.descriptors():
        assert entry.digest in layout.blobs and name_of(entry).startswith("r.example/app:")
        assert validate(layout, entry) == []


def kill_at_random_points(root: str, points: int) -> None:
    acknowledged: dict[str, str] = {}
    numbers = iter(range(1_000_000))
    seen: set[Digest] = set()
    rounds = 0
    while rounds < points or len(seen) <= points:
        rounds += 1
        assert rounds < 10 * points, "hardly anything arrives in a server's life"
        pulled = dict(acknowledged)
        with server(root) as (process, port):
            clients = [
                threading.Thread(target=push_until_dead, args=(port, numbers, acknowledged)) for _ in range(2)
            ]
            clients.append(threading.Thread(target=pull_until_dead, args=(port, pulled)))
            for client in clients:
                client.start()
            time.sleep(random.uniform(0.02, SERVER_LIFE_S * (1 + rounds // points)))
            os.kill(process.pid, signal.SIGKILL)
            for client in clients:
                client.join()
            assert "wrong" not in pulled, pulled["wrong"]
        seen |= set(Layout.open(root).blobs)
    with server(root) as (_, port):
        last = next(numbers)
        push(port, last, acknowledged)
        check(root, port, acknowledged)
        temporary = os.path.join(root, "tmp")
        assert not os.path.exists(temporary) or not os.listdir(temporary)
    assert len(acknowledged) > points


@pytest.fixture
def root(tmp_path: Path) -> Iterator[str]:
    import shutil
    import tempfile

    fast = tempfile.mkdtemp(dir="/dev/shm") if os.access("/dev/shm", os.W_OK) else str(tmp_path / "store")
    yield fast
    shutil.rmtree(fast, ignore_errors=True)


def pull_all(port: int, images: int) -> None:
    """Pull images through a cache. Raises OSError or HTTPException when it dies."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        for number in range(images):
            blobs, manifest = image(number)
            for path, content in (
                (f"manifests/t{number}", manifest),
                *((f"blobs/{digest_of(blob)}", blob) for blob in blobs),
            ):
                connection.request("GET", f"/v2/app/{path}")
                answer = connection.getresponse()
                got = answer.read()
                assert (answer.status, got == content) == (200, True), path


def kill_cache_at_random_points(root: str, points: int, images: int) -> None:
    behind, cached = os.path.join(root, "behind"), os.path.join(root, "cache")
    with server(behind) as (_, far):
        for number in range(images):
            push(far, number, {})
        address = f"127.0.0.1:{far}"
        for _ in range(points):
            with server(cached, address) as (process, port):
                end = threading.Timer(random.uniform(0.02, 0.3), process.kill)
                end.start()
                try:
                    while True:
                        pull_all(port, images)
                except (OSError, http.client.HTTPException):
                    pass
                end.join()
            for blob in Layout.open(cached).blobs:
                Layout.open(cached).blobs.verify(blob)
        with server(cached, address) as (_, port):
            pull_all(port, images)
    for root_of in (behind, cached):
        blobs = Layout.open(root_of).blobs
        assert len(list(blobs)) == 5 * images
        for blob in blobs:
            blobs.verify(blob)


def test_kill_a_cache_at_five_points(root: str) -> None:
    kill_cache_at_random_points(root, 5, 8)


@pytest.mark.corpus
def test_kill_a_cache_at_fifty_points(root: str) -> None:
    kill_cache_at_random_points(root, 50, 40)


def test_kill_at_ten_points(root: str) -> None:
    """SECURITY.md R28."""
    kill_at_random_points(root, 10)


@pytest.mark.corpus
def test_kill_at_fifty_points(root: str) -> None:
    kill_at_random_points(root, 50)


def test_an_upload_goes_on_after_a_kill(root: str) -> None:
    blob = b"0123456789" * 50_000
    location, there = "/v2/app/blobs/uploads/", 0
    while there < len(blob):
        with server(root) as (process, port):
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
                if there:
                    connection.request("GET", location)
                    answer = connection.getresponse()
                    assert (answer.status, answer.headers["Range"]) == (204, f"0-{there - 1}")
                else:
                    connection.request("POST", location)
                    answer = connection.getresponse()
                    location = answer.headers["Location"]
                answer.read()
                piece = blob[there : there + 200_000]
                said = {"Content-Range": f"{there}-{there + len(piece) - 1}"}
                connection.request("PATCH", location, piece, said)
                assert connection.getresponse().status == 202
                there += len(piece)
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
        assert list(Layout.open(root).blobs) == []
    with server(root) as (_, port):
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("PUT", f"{location}?digest={digest_of(blob)}")
            assert connection.getresponse().status == 201
    layout = Layout.open(root)
    layout.blobs.verify(Digest.parse(digest_of(blob)))
