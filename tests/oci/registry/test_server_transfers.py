"""Blobs that reach clients while they are fetched from elsewhere: by a cache, and for sparse images."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from served import LAYER, MANIFEST, served
from served import Registry as Served
from served import digest_of as sha256
from small_registry import Handler
from small_registry import Registry as Far
from specimens import named, noise

from oci.blobs import BlobStore
from oci.digest import Digest
from oci.image import Image
from oci.layout import Layout
from oci.model import Descriptor
from oci.reference import Reference
from oci.registry.client import Client
from oci.registry.moving import Watch
from oci.registry.patience import Patience, Stop
from oci.registry.server import transfers

SIZE = 3_000_000
SOON = 60.0


@dataclass
class Valve:
    """Lets the far registry send the first bytes of a blob; the rest goes when it is opened."""

    blob: bytes = b""
    sent: int = 1_500_000
    opened: threading.Event = field(default_factory=threading.Event)
    spoilt: bool = False
    asked: int = 0

    def __call__(self, handler: Handler) -> bool:
        if handler.command != "GET" or "/blobs/" not in handler.path or not self.blob:
            return False
        if sha256(self.blob) not in handler.path:
            return False
        self.asked += 1
        start = int((handler.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(self.blob) - start))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.blob) - 1}/{len(self.blob)}")
        handler.end_headers()
        handler.wfile.write(self.blob[start : self.sent])
        handler.wfile.flush()
        self.opened.wait(SOON)
        rest = self.blob[max(start, self.sent) :]
        handler.wfile.write(rest[:-1] + b"?" if self.spoilt else rest)
        return True


@dataclass
class Upstream:
    """The far registry through our own client."""

    client: Client
    address: str
    known: bool = True

    def fetch_manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        mark = "@" if ":" in reference else ":"
        descriptor, content = self.client.fetch_manifest(
            Reference.parse(f"{self.address}/{repository}{mark}{reference}")
        )
        return descriptor.media_type, content

    def has_blob(self, repository: str, descriptor: Descriptor) -> bool:
        return self.client.has_blob(Reference.parse(f"{self.address}/{repository}"), descriptor)

    def fetch_blob(self, repository: str, descriptor: Descriptor, store: BlobStore, watch: Watch) -> None:
        self.client.fetch_blob(Reference.parse(f"{self.address}/{repository}"), descriptor, store, watch)

    def close(self) -> None:
        self.client.interrupt()


@dataclass
class Origins:
    """The same, as where layers came from."""

    upstream: Upstream
    found: tuple[str, ...] = ("app",)

    def places(self, digest: Digest) -> tuple[Reference, ...]:
        address = self.upstream.address
        return tuple(Reference.parse(each if ":" in each else f"{address}/{each}") for each in self.found)

    def has_blob(self, place: Reference, descriptor: Descriptor) -> bool:
        return self.upstream.client.has_blob(place, descriptor)

    def fetch_blob(self, place: Reference, descriptor: Descriptor, store: BlobStore, watch: Watch) -> None:
        self.upstream.client.fetch_blob(place, descriptor, store, watch)

    def close(self) -> None:
        self.upstream.close()


@pytest.fixture
def valve(registry: Far) -> Iterator[Valve]:
    valve = Valve()
    registry.hooks.append(valve)
    yield valve
    valve.opened.set()


@pytest.fixture
def far(registry: Far, memory: Path, valve: Valve) -> Image:
    """An image in the far registry as app:v1, whose one layer comes through the valve."""
    store = Layout.create(memory / "far").blobs
    image = noise(store, SIZE)
    with Client() as client:
        client.push(store, image.descriptor, [named(registry.address)])
    valve.blob = store.read(image.layers[0].digest)
    return image


@pytest.fixture
def upstream(registry: Far) -> Iterator[Upstream]:
    def at_once(seconds: float, stop: Stop) -> None:
        stop.check()

    with Client(patience=Patience(answer=SOON), sleep=at_once) as client:
        yield Upstream(client, registry.address)


@pytest.fixture
def cache(layout: Layout, upstream: Upstream, far: Image) -> Iterator[Served]:
    with served(layout, upstream=upstream) as registry:
        assert registry.ask("GET", "/v2/app/manifests/v1").status == 200
        yield registry


Begin = Callable[..., http.client.HTTPResponse]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Ask for a blob; the answer, of which nothing is read yet."""
    with ExitStack() as stack:

        def begin(registry: Served, digest: Digest) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=SOON)
            stack.callback(connection.close)
            connection.request("GET", f"/v2/app/blobs/{digest}")
            answer = connection.getresponse()
            stack.callback(answer.close)
            return answer

        yield begin


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()


def test_the_first_bytes_come_before_the_last_are_here(
    begin: Begin, cache: Served, far: Image, valve: Valve, layout: Layout
) -> None:
    layer = far.layers[0]
    answer = begin(cache, layer.digest)
    assert answer.headers["Content-Length"] == str(SIZE)
    assert answer.headers["Docker-Content-Digest"] == str(layer.digest)
    assert answer.read(1_000_000) == valve.blob[:1_000_000]
    assert layer.digest not in layout.blobs
    valve.opened.set()
    assert answer.read() == valve.blob[1_000_000:]
    layout.blobs.verify(layer.digest)


def test_many_clients_share_a_download(begin: Begin, cache: Served, far: Image, valve: Valve) -> None:
    answers = [begin(cache, far.layers[0].digest) for _ in range(4)]
    assert [answer.read(1000) for answer in answers] == [valve.blob[:1000]] * 4
    valve.opened.set()
    assert [answer.read() for answer in answers] == [valve.blob[1000:]] * 4
    assert valve.asked == 1
    assert cache.ask("GET", f"/v2/app/blobs/{far.layers[0].digest}").body == valve.blob
    assert valve.asked == 1


def test_a_bad_digest_cuts_the_client_off_and_stores_nothing(
    begin: Begin, cache: Served, far: Image, valve: Valve, layout: Layout, capfd: pytest.CaptureFixture[str]
) -> None:
    valve.spoilt = True
    answer = begin(cache, far.layers[0].digest)
    assert answer.read(1000)
    valve.opened.set()
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    said: list[str] = []

    def told() -> bool:
        said.append(capfd.readouterr().err)
        return "expected the bytes of" in "".join(said)

    until(told)
    assert far.layers[0].digest not in layout.blobs
    valve.spoilt = False
    assert cache.ask("GET", f"/v2/app/blobs/{far.layers[0].digest}").body == valve.blob


def test_a_client_that_goes_or_stands_still_does_not_end_the_download(
    cache: Served, far: Image, valve: Valve, layout: Layout
) -> None:
    request = b"GET /v2/app/blobs/%s HTTP/1.1\r\nHost: x\r\n\r\n" % str(far.layers[0].digest).encode()
    gone, still = (socket.create_connection(("127.0.0.1", cache.port)) for _ in range(2))
    for sock in (gone, still):
        sock.sendall(request)
        assert sock.recv(10)
    gone.close()
    valve.opened.set()
    until(lambda: far.layers[0].digest in layout.blobs)
    still.close()


def test_a_download_that_is_taken_up_again_goes_on_for_the_client(
    begin: Begin, cache: Served, far: Image, valve: Valve, registry: Far
) -> None:
    """The far registry hangs up in the middle; our client asks for the rest."""
    dropped = threading.Event()

    def drop(handler: Handler) -> bool:
        if valve.blob and sha256(valve.blob) in handler.path and not dropped.is_set():
            dropped.set()
            handler.send_response(200)
            handler.send_header("Content-Length", str(SIZE))
            handler.end_headers()
            handler.wfile.write(valve.blob[:700_000])
            handler.close_connection = True
            return True
        return False

    registry.hooks.insert(0, drop)
    valve.opened.set()
    assert begin(cache, far.layers[0].digest).read() == valve.blob
    assert valve.asked == 1 and dropped.is_set()


def test_a_part_waits_for_the_whole(cache: Served, far: Image, valve: Valve) -> None:
    valve.opened.set()
    answer = cache.ask("GET", f"/v2/app/blobs/{far.layers[0].digest}", Range="bytes=5-9")
    assert (answer.status, answer.body) == (206, valve.blob[5:10])


def test_head_says_what_get_will(cache: Served, far: Image, valve: Valve) -> None:
    answer = cache.ask("HEAD", f"/v2/app/blobs/{far.layers[0].digest}")
    assert (answer.status, answer.headers["content-length"]) == (200, str(SIZE))


def test_what_the_other_registry_has_no_more_is_404(cache: Served, far: Image, registry: Far) -> None:
    registry.blobs.clear()
    registry.hooks.clear()
    answer = cache.ask("GET", f"/v2/app/blobs/{far.layers[0].digest}")
    assert (answer.status, answer.codes) == (404, ["BLOB_UNKNOWN"])


def test_downloads_are_bounded(
    begin: Begin, cache: Served, far: Image, valve: Valve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "MOST", 1)
    answer = begin(cache, far.layers[0].digest)
    refused = cache.ask("GET", f"/v2/app/blobs/{far.manifest.value.config.digest}")
    assert (refused.status, refused.codes) == (503, ["TOOMANYREQUESTS"])
    valve.opened.set()
    assert answer.read() == valve.blob


def test_the_end_of_the_server_ends_downloads(
    begin: Begin, layout: Layout, upstream: Upstream, far: Image, valve: Valve
) -> None:
    with served(layout, upstream=upstream) as registry:
        registry.ask("GET", "/v2/app/manifests/v1")
        object.__setattr__(registry.server._options, "grace", 0.1)
        answer = begin(registry, far.layers[0].digest)
        answer.read(1000)
        began = time.monotonic()
    assert time.monotonic() - began < 50
    assert far.layers[0].digest not in layout.blobs
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        answer.read()


@pytest.fixture
def sparse(layout: Layout, far: Image, registry: Far) -> str:
    """The same image in our store as app:v1, without its layer; its repository's path."""
    layout.blobs.put(MANIFEST, far.manifest.content)
    config = far.manifest.value.config
    layout.blobs.put(config.media_type, registry.blobs["app", str(config.digest)])
    with layout.editing() as names:
        names.set("docker.io/library/app:v1", far.descriptor)
    return "app"


def test_a_layer_of_a_sparse_image_comes_from_where_it_is(
    begin: Begin, layout: Layout, upstream: Upstream, far: Image, valve: Valve, sparse: str
) -> None:
    with served(layout, origins=Origins(upstream)) as registry:
        answer = begin(registry, far.layers[0].digest)
        assert answer.read(1000) == valve.blob[:1000]
        valve.opened.set()
        assert answer.read() == valve.blob[1000:]
        assert far.layers[0].digest in layout.blobs
        assert registry.ask("GET", f"/v2/other/blobs/{far.layers[0].digest}").status == 404


def test_a_layer_that_is_nowhere(layout: Layout, upstream: Upstream, far: Image, sparse: str) -> None:
    for origins in (None, Origins(upstream, found=())):
        with served(layout, origins=origins) as registry:
            answer = registry.ask("GET", f"/v2/app/blobs/{far.layers[0].digest}")
            assert (answer.status, answer.codes) == (404, ["BLOB_UNKNOWN"])
            assert str(far.layers[0].digest) in answer.json["errors"][0]["message"]
            assert registry.ask("GET", "/v2/app/blobs/sha256:" + "0" * 64).status == 404


def test_a_layer_that_is_gone_where_it_was(
    layout: Layout, upstream: Upstream, far: Image, sparse: str, registry: Far
) -> None:
    registry.blobs.clear()
    registry.hooks.clear()
    with served(layout, origins=Origins(upstream)) as server:
        answer = server.ask("GET", f"/v2/app/blobs/{far.layers[0].digest}")
        message = answer.json["errors"][0]["message"]
        assert answer.status == 404 and str(far.layers[0].digest) in message
        assert f"{registry.address}/app" in message


def test_an_origin_out_of_reach(layout: Layout, upstream: Upstream, far: Image, sparse: str) -> None:
    with served(layout, origins=Origins(upstream, found=("127.0.0.1:1/app",))) as registry:
        answer = registry.ask("GET", f"/v2/app/blobs/{far.layers[0].digest}")
        message = answer.json["errors"][0]["message"]
        assert answer.status == 502 and "127.0.0.1:1/app" in message and str(far.layers[0].digest) in message


def test_the_second_place_is_asked_when_the_first_fails(
    begin: Begin, layout: Layout, upstream: Upstream, far: Image, valve: Valve, sparse: str
) -> None:
    valve.opened.set()
    with served(layout, origins=Origins(upstream, found=("127.0.0.1:1/app", "app"))) as registry:
        assert begin(registry, far.layers[0].digest).read() == valve.blob


def test_nobody_is_asked_for_its_own_blobs(
    layout: Layout, upstream: Upstream, far: Image, sparse: str
) -> None:
    """An image that came from this very registry, whose layers were lost."""
    origins = Origins(upstream)
    with served(layout, origins=origins) as registry:
        origins.found = (f"127.0.0.1:{registry.port}/app", f"localhost:{registry.port}/app")
        answer = registry.ask("GET", f"/v2/app/blobs/{far.layers[0].digest}")
        assert (answer.status, answer.codes) == (404, ["BLOB_UNKNOWN"])


def test_a_push_on_top_of_a_sparse_image_waits_for_what_it_was_promised(
    layout: Layout, upstream: Upstream, far: Image, valve: Valve, sparse: str
) -> None:
    with served(layout, origins=Origins(upstream)) as registry:
        assert registry.ask("HEAD", f"/v2/app/blobs/{far.layers[0].digest}").status == 200
        value = json.loads(far.manifest.content)
        value["layers"][0]["mediaType"] = LAYER
        value["annotations"] = {"new": "one"}
        threading.Timer(0.2, valve.opened.set).start()
        answer = registry.ask("PUT", "/v2/app/manifests/2", json.dumps(value).encode(), Content_Type=MANIFEST)
        assert answer.status == 201
