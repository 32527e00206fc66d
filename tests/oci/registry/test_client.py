"""What the client offers, on an honest registry in memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import chaos
import pytest
from chaos import Proxy
from small_registry import Handler, Registry, serving
from specimens import MakeClient, everything, named, noise, visible

from oci import media_types, platforms
from oci.blobs import PARTIAL, BlobStore
from oci.digest import Digest
from oci.errors import BlobNotFound, InvalidDocument, ManifestUnknown, RegistryError, Unauthorized
from oci.image import Image, index_of
from oci.layout import Layout
from oci.model import Descriptor, Manifest, Platform
from oci.reference import Reference
from oci.registry.auth import Credential, CredentialStore
from oci.registry.client import Client
from oci.registry.config import HostConfig, RegistryConfig
from oci.registry.moving import Moving, together
from oci.registry.patience import Patience, Stop, Stopped
from oci.registry.upload import SINGLE

HOST = platforms.host()
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))


def test_offline_asks_nobody_and_loads_nothing(tmp_path: Path) -> None:
    code = """
import sys
from oci.blobs import BlobStore
from oci.errors import RegistryError
from oci.reference import Reference
from oci.registry.client import Client
with Client(offline=True) as client:
    for ask in (client.resolve, client.tags, lambda name: client.pull(name, BlobStore("/nowhere"))):
        try:
            ask(Reference.parse("127.0.0.1:1/x"))
        except RegistryError as error:
            assert str(error) == "127.0.0.1:1: not asked, because of --offline", error
        else:
            raise AssertionError
loaded = {"requests", "urllib3", "ssl", "http.client", "concurrent.futures"} & set(sys.modules)
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_progress_is_told_blob_by_blob(
    client: Client, registry: Registry, store: BlobStore, image: Image, other: BlobStore
) -> None:
    told: list[Moving] = []
    name = named(registry.address)
    client.push(store, image.descriptor, [name], told.append)
    client.pull(name, other, HOST, told.append)
    client.push(store, image.descriptor, [name], told.append)
    blobs = (*image.layers, image.manifest.value.config)
    for blob in blobs:
        states = [moving.state for moving in told if moving.descriptor.digest == blob.digest]
        assert [state for state in states if state != "moving"] == ["done", "done", "present"]
        assert {moving.done for moving in told if moving.state == "done"} == {blob.size for blob in blobs}


def test_one_repository_is_pushed_to_once(
    client: Client, registry: Registry, store: BlobStore, image: Image
) -> None:
    names = [named(registry.address, text) for text in ("a:1", "a:2", "b:1")]
    client.push(store, image.descriptor, names)
    assert sorted(registry.tags) == [("a", "1"), ("a", "2"), ("b", "1")]
    assert registry.count("HEAD", "/a/blobs/") == 4


def test_push_by_digest(client: Client, registry: Registry, store: BlobStore, image: Image) -> None:
    found = client.push(store, image.descriptor, [named(registry.address, "app")])
    assert not registry.tags and ("app", str(found.digest)) in registry.manifests


def test_what_is_nowhere_is_not_begun(
    client: Client, registry: Registry, store: BlobStore, image: Image
) -> None:
    store.delete(image.layers[1].digest)
    with pytest.raises(BlobNotFound, match=str(image.layers[1].digest)):
        client.push(store, image.descriptor, [named(registry.address)])
    assert not registry.seen


def test_documents_first_and_layers_when_needed(
    client: Client, registry: Registry, store: BlobStore, image: Image, other: BlobStore
) -> None:
    name = named(registry.address)
    client.push(store, image.descriptor, [name])
    found = client.pull_documents(name, other, HOST)
    assert found == image
    assert visible(other) == {str(image.id), str(image.descriptor.digest)}
    client.fetch_blobs(name, image.layers[:2], other)
    client.fetch_blob(name, image.layers[2], other)
    assert visible(other) == everything(image)


@pytest.mark.parametrize("mounts", [True, False])
def test_layers_that_were_never_here(
    mounts: bool, client: Client, registry: Registry, store: BlobStore, image: Image, other: BlobStore
) -> None:
    """The ENV-only rebase: mounted, or where the registry declines, streamed; never stored."""
    base = named(registry.address, "base:v1")
    client.push(store, image.descriptor, [base])
    registry.mounts = mounts
    found = client.pull_documents(base, other, HOST)
    child = found.with_config(replace(found.config.value, author="me"))
    child.write(other)
    sources = {layer.digest: [base] for layer in child.layers}
    before = len(registry.seen)
    client.push(other, child.descriptor, [named(registry.address, "child:v1")], mount_from=sources)
    assert not [layer for layer in child.layers if layer.digest in other]
    assert registry.blobs[("child", str(image.layers[0].digest))] == store.read(image.layers[0].digest)
    fetched = [seen for seen in registry.seen[before:] if seen.method == "GET" and "/blobs/sha" in seen.path]
    assert bool(fetched) is not mounts


@pytest.mark.parametrize("anywhere", ["", "found", "refused"])
def test_a_registry_may_know_a_blob_from_elsewhere(
    anywhere: str, client: Client, registry: Registry, store: BlobStore, image: Image, other: BlobStore
) -> None:
    """A mount without `from` costs no request; a registry that refuses it is asked once, and never again."""
    client.push(store, image.descriptor, [named(registry.address, "one:v1")])
    registry.anywhere = anywhere
    before = len(registry.seen)
    states: dict[str, str] = {}

    def watch(moving: Moving) -> None:
        states[str(moving.descriptor.digest)] = moving.state

    client.push(store, image.descriptor, [named(registry.address, "two:v1")], watch)
    posts = [seen for seen in registry.seen[before:] if seen.method == "POST"]
    large = [layer for layer in image.layers if layer.size > SINGLE]
    expected = "mounted" if anywhere == "found" else "done"
    assert large and {states[str(layer.digest)] for layer in large} == {expected}
    refused = sum("mount=" in seen.path for seen in posts)
    assert len(posts) == len(image.layers) + 1 + (refused if anywhere == "refused" else 0)
    client.pull(named(registry.address, "two:v1"), other, HOST)
    assert visible(other) == everything(image)
    if anywhere == "refused":
        before = len(registry.seen)
        client.push(store, image.descriptor, [named(registry.address, "three:v1")])
        assert not any("mount=" in seen.path for seen in registry.seen[before:])


@pytest.mark.parametrize("end", ["chunks", "close"])
def test_bodies_without_a_length(
    end: str, client: Client, registry: Registry, store: BlobStore, image: Image, other: BlobStore
) -> None:
    client.push(store, image.descriptor, [named(registry.address)])

    def send(handler: Handler) -> bool:
        digest = handler.path.rpartition("/")[2]
        data = registry.blobs.get(("app", digest))
        if handler.command != "GET" or data is None:
            return False
        handler.close_connection = True
        kind = b"Transfer-Encoding: chunked" if end == "chunks" else b"Connection: close"
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + kind + b"\r\n\r\n")
        for start in range(0, len(data), 30_000):
            piece = data[start : start + 30_000]
            framed = b"%x\r\n%b\r\n" % (len(piece), piece) if end == "chunks" else piece
            handler.wfile.write(framed)
        handler.wfile.write(b"0\r\n\r\n" if end == "chunks" else b"")
        return True

    registry.hooks.append(send)
    client.pull(named(registry.address), other, HOST)
    assert visible(other) == everything(image)


def test_skip(client: Client, registry: Registry, store: BlobStore, image: Image) -> None:
    client.push(store, image.descriptor, [named(registry.address)])
    before = len(registry.seen)
    skip = frozenset(layer.digest for layer in image.layers)
    client.push(store, image.descriptor, [named(registry.address)], skip=skip)
    assert [seen.method for seen in registry.seen[before:]] == ["HEAD", "PUT"]


def test_copies_within_and_between_registries(
    client: Client, registry: Registry, store: BlobStore, image: Image, other: BlobStore
) -> None:
    arm = noise(store, 1000, platform=Platform("linux", "arm64"), seed=7)
    raw = index_of((image.descriptor, arm.descriptor))
    whole = store.put(raw.value.media_type, raw.content)
    client.push(store, whole, [named(registry.address)])
    client.copy(named(registry.address), named(registry.address, "mounted:v1"))
    with serving(Registry()) as second, chaos.chaos(registry.address) as proxy:
        digest = str(image.layers[0].digest)
        proxy.spoil("GET", digest, chaos.truncate(100_000), times=2)
        found = client.copy(named(proxy.address), named(second.address, "streamed:v1"))
        assert found.digest == whole.digest
        client.pull(named(second.address, "streamed:v1"), other)
        assert visible(other) == {str(whole.digest)} | everything(image) | everything(arm)
        one = client.copy(named(registry.address), named(second.address, "one:v1"), arm.platform)
        assert one.digest == arm.descriptor.digest
        proxy.spoil("GET", digest, chaos.corrupt, times=99)
        with pytest.raises(RegistryError, match="expected the bytes of"):
            client.copy(named(proxy.address), named(second.address, "bad:v1"))
        assert ("bad", "v1") not in second.tags and ("bad", digest) not in second.blobs


def test_a_copy_whose_target_breaks_goes_on(
    client: Client, registry: Registry, store: BlobStore, image: Image, other: BlobStore
) -> None:
    client.push(store, image.descriptor, [named(registry.address)])
    with serving(Registry()) as second, chaos.chaos(second.address) as proxy:
        proxy.spoil("PUT", "/uploads/", chaos.cut_request(50_000), times=2)
        client.copy(named(registry.address), named(proxy.address))
        client.pull(named(second.address), other, HOST)
    assert visible(other) == everything(image)


def test_the_same_blob_twice_at_once(
    make_client: MakeClient, registry: Registry, store: BlobStore, image: Image, other: BlobStore
) -> None:
    """SECURITY.md R07."""
    name = named(registry.address)
    make_client().push(store, image.descriptor, [name])
    errors: list[BaseException] = []

    def pull() -> None:
        try:
            make_client().pull(name, BlobStore(other.root), HOST)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and visible(other) == everything(image)
    assert registry.count("GET", str(image.layers[0].digest)) == 1
    assert not os.path.exists(other.temporary) or not os.listdir(other.temporary)


def test_a_staging_keeps_partial_blobs_outside(
    client: Client, proxy: Proxy, registry: Registry, store: BlobStore, image: Image, other: BlobStore
) -> None:
    client.push(store, image.descriptor, [named(registry.address)])
    digest = str(image.layers[0].digest)
    proxy.spoil("GET", digest, chaos.truncate(150_000))
    proxy.spoil("GET", digest, chaos.status(404), times=9)
    with pytest.raises(ManifestUnknown), other.staging() as staging:
        client.pull(named(proxy.address), staging, HOST)
    proxy.rules.clear()
    with other.staging() as staging:
        client.pull(named(proxy.address), staging, HOST)
        assert staging.publish() == 5
    assert visible(other) == everything(image)
    assert "range" in [seen for seen in registry.seen if digest in seen.path][-1].headers


def test_tags_come_page_by_page(client: Client, registry: Registry, store: BlobStore, image: Image) -> None:
    registry.page = 2
    tags = [f"t{number}" for number in range(7)]
    client.push(store, image.descriptor, [named(registry.address, f"app:{tag}") for tag in tags])
    assert client.tags(named(registry.address)) == tags
    with pytest.raises(ManifestUnknown):
        client.tags(named(registry.address, "nothing"))


@pytest.mark.parametrize("api", [True, False])
def test_referrers(api: bool, client: Client, registry: Registry, store: BlobStore, image: Image) -> None:
    registry.referrers_api = api
    client.push(store, image.descriptor, [named(registry.address)])
    empty = store.put(media_types.OCI_EMPTY, b"{}")
    made: list[Descriptor] = []
    for kind in ("application/x.sbom", "application/x.signature"):
        subject = replace(image.descriptor, platform=None)
        manifest = Manifest(empty, (empty,), subject=subject, artifact_type=kind)
        made.append(store.put(manifest.media_type, manifest.to_json()))
        client.push(store, made[-1], [named(registry.address, "app")])
        client.push(store, made[-1], [named(registry.address, "app")])
    found = client.referrers(named(registry.address))
    assert {item.digest for item in found} == {item.digest for item in made}
    (one,) = client.referrers(named(registry.address), "application/x.sbom")
    assert (one.digest, one.artifact_type) == (made[0].digest, "application/x.sbom")
    assert (("app", f"sha256-{image.descriptor.digest.hex}") in registry.tags) is not api
    client.delete(named(registry.address).with_digest(made[0].digest))
    assert [item.digest for item in client.referrers(named(registry.address))] == [made[1].digest]


def test_sha512(client: Client, registry: Registry, store: BlobStore, other: BlobStore) -> None:
    content = b"long digest" * 1000
    digest = Digest.of(content, "sha512")
    with store.writer(algorithm="sha512") as writer:
        writer.write(content)
        writer.commit(digest)
    layer = Descriptor(media_types.OCI_LAYER, digest, len(content))
    config = store.put(media_types.OCI_EMPTY, b"{}")
    manifest = Manifest(config, (layer,), artifact_type="application/x")
    pointer = store.put(manifest.media_type, manifest.to_json())
    client.push(store, pointer, [named(registry.address)])
    client.pull(named(registry.address), other)
    assert other.read(digest) == content


def test_an_artifact_is_no_image(
    client: Client, registry: Registry, store: BlobStore, other: BlobStore
) -> None:
    config = store.put(media_types.OCI_EMPTY, b"{}")
    manifest = Manifest(config, (config,), artifact_type="application/x")
    pointer = store.put(manifest.media_type, manifest.to_json())
    client.push(store, pointer, [named(registry.address)])
    with pytest.raises(InvalidDocument, match="an artifact, not an image"):
        client.pull_documents(named(registry.address), other, HOST)


def test_an_index_whose_entries_name_no_platform(
    client: Client, registry: Registry, store: BlobStore, image: Image
) -> None:
    arm = noise(store, 10, platform=Platform("linux", "arm64"))
    entries = tuple(replace(item.descriptor, platform=None) for item in (arm, image))
    raw = index_of((Descriptor.of(media_types.OCI_INDEX, index_of(entries).content),))
    store.write(index_of(entries).content)
    client.push(store, store.put(media_types.OCI_INDEX, raw.content), [named(registry.address)])
    assert client.resolve(named(registry.address), HOST).digest == image.descriptor.digest
    assert client.resolve(named(registry.address), arm.platform).platform == arm.platform


def test_put_manifest(client: Client, registry: Registry, store: BlobStore, image: Image) -> None:
    client.push(store, image.descriptor, [named(registry.address)])
    raw = index_of((image.descriptor,))
    made = client.put_manifest(named(registry.address, "app:list"), raw.content, raw.value.media_type)
    assert registry.tags[("app", "list")] == str(made.digest)


def test_login(make_client: MakeClient, registry: Registry, tmp_path: Path) -> None:
    registry.basic = "me:right"
    client = make_client(None, CredentialStore((str(tmp_path / "x"),)))
    with pytest.raises(Unauthorized) as caught:
        client.ping(registry.address)
    assert caught.value.exit_code == 4
    with pytest.raises(Unauthorized):
        client.authenticate(registry.address, Credential("me", "wrong"))
    client.authenticate(registry.address, Credential("me", "right"))
    client.ping(registry.address)


@pytest.mark.parametrize("identity", [True, False])
def test_tokens(
    identity: bool,
    make_client: MakeClient,
    registry: Registry,
    store: BlobStore,
    image: Image,
    tmp_path: Path,
) -> None:
    asked: list[tuple[str, str, bytes]] = []

    def token_server(handler: object) -> bool:
        if not handler.path.startswith("/token"):  # type: ignore[attr-defined]
            return False
        asked.append((handler.command, handler.headers.get("Authorization", ""), handler.body()))  # type: ignore[attr-defined]
        handler.send(200, b'{"access_token":"good"}')  # type: ignore[attr-defined]
        return True

    registry.hooks.append(token_server)
    registry.tokens, registry.realm = {"good": ""}, f"http://{registry.address}/token"
    credentials = CredentialStore((str(tmp_path / "auth.json"),))
    secret = Credential(identity_token="refresh") if identity else Credential("me", "pw")
    credentials.put(registry.address, secret)
    make_client(None, credentials).push(store, image.descriptor, [named(registry.address)])
    method, authorization, body = asked[0]
    if identity:
        assert (method, authorization) == ("POST", "")
        assert b"grant_type=refresh_token" in body and b"refresh_token=refresh" in body
        assert b"scope=repository%3Aapp%3Apull%2Cpush" in body
    else:
        assert (method, body) == ("GET", b"") and authorization.startswith("Basic ")


def test_proxies_of_the_environment(
    make_client: MakeClient,
    registry: Registry,
    store: BlobStore,
    image: Image,
    other: BlobStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def as_proxy(handler: Handler) -> bool:
        assert handler.path.startswith("http://registry.test/v2/"), handler.path
        handler.path = handler.path.removeprefix("http://registry.test")
        return False

    for name in ("HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://{registry.address}")
    config = RegistryConfig({"registry.test": HostConfig(http=True)})
    client = make_client(config)
    registry.hooks.append(as_proxy)
    client.push(store, image.descriptor, [named("registry.test")])
    client.pull(named("registry.test"), other, HOST)
    assert visible(other) == everything(image)
    registry.hooks.clear()
    make_client().tags(named(registry.address))  # loopback never goes through a proxy
    monkeypatch.setenv("no_proxy", "registry.test")
    with pytest.raises(RegistryError, match=r"no such host|cannot be resolved"):
        make_client(config).tags(named("registry.test"))


def test_a_token_server_is_verified_even_when_the_registry_is_not() -> None:
    """--tls-verify=false is about the registry that was named (S87)."""
    from oci.registry.calls import Calls

    calls = Calls(RegistryConfig({"c.example": HostConfig(insecure=True)}, tls_verify=False), None)
    calls._schemes["a.example"] = "https"
    assert calls._host("a.example").insecure
    assert not calls._host("auth.a.example").insecure
    assert calls._host("c.example").insecure


def test_nobody_there(client: Client, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"refused: nothing listens at 127\.0\.0\.1:1") as caught:
        client.tags(Reference.parse("127.0.0.1:1/x"))
    assert caught.value.exit_code == 3


def partial(store: BlobStore) -> list[str]:
    """The files of blobs that have arrived in part."""
    folder = store.temporary
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in names if name.startswith(PARTIAL)]


def test_an_interrupted_pull_ends_at_once_and_is_taken_up(
    proxy: Proxy, registry: Registry, store: BlobStore, other: BlobStore, client: Client
) -> None:
    image = noise(store, 3_000_000, 2_000_000)
    client.push(store, image.descriptor, [named(registry.address)])
    proxy.spoil("GET", "/blobs/", chaos.hang(1_000_000), times=99)
    code = f"""
import sys
from oci import platforms
from oci.blobs import BlobStore
from oci.reference import Reference
from oci.registry.client import Client
name = Reference.parse({str(named(proxy.address))!r})
with Client() as client:
    print("go", flush=True)
    try:
        client.pull(name, BlobStore({other.root!r}), platforms.host())
    except KeyboardInterrupt:
        sys.exit(130)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"go\n"
    deadline = time.monotonic() + 60
    while proxy.hanging < 2 or not any(os.stat(path).st_size for path in partial(other)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    process.stdout.close()
    assert proxy.spoilt == 3, "what hung was waited for, and asked for again"
    assert visible(other) <= {str(image.id)}
    proxy.rules.clear()
    client.pull(named(proxy.address), other, HOST)
    assert visible(other) == everything(image)
    ranges = [seen.headers.get("range", "") for seen in registry.seen if seen.method == "GET"]
    assert [text for text in ranges if text.startswith("bytes=")]


def test_what_hangs_in_a_connection_s_last_answer_is_interrupted_too(
    make_client: MakeClient, proxy: Proxy, registry: Registry, store: BlobStore, other: BlobStore
) -> None:
    """The connection has let go of its socket by then; only the answer has it."""
    image = noise(store, 300_000, 200_000)
    client = make_client(patience=Patience(answer=3600.0))
    client.push(store, image.descriptor, [named(registry.address)])
    proxy.spoil("GET", "/blobs/", chaos.hang(100_000, last=True), times=99)
    failed: list[BaseException] = []

    def pull() -> None:
        try:
            client.pull(named(proxy.address), other, HOST)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=pull, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while proxy.hanging < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    client.interrupt()
    thread.join(60)
    assert [type(error) for error in failed] == [Stopped]


def test_who_interrupts_before_all_has_begun_waits_for_nothing() -> None:
    """What runs already would wait for ever: nobody told it to end."""
    stop = Stop()
    ended = threading.Event()
    stop.on_stop(ended.set)

    class Tasks(list[Callable[[], object]]):
        def __iter__(self) -> Iterator[Callable[[], object]]:
            yield from (lambda: ended.wait(600), lambda: ended.wait(600))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        together(Tasks([lambda: None] * 3), 3, stop)
    assert ended.is_set()


def test_a_failure_stops_the_others(
    make_client: MakeClient,
    proxy: Proxy,
    registry: Registry,
    store: BlobStore,
    image: Image,
    other: BlobStore,
) -> None:
    client = make_client()
    client.push(store, image.descriptor, [named(registry.address)])
    proxy.spoil("GET", str(image.layers[0].digest), chaos.hang(1000))
    proxy.spoil("GET", str(image.layers[1].digest), chaos.status(403), times=9)
    from oci.registry.patience import Patience

    slow = make_client(patience=Patience())
    begin = time.monotonic()
    with pytest.raises(Unauthorized, match="403"):
        slow.pull(named(proxy.address), other, HOST)
    assert time.monotonic() - begin < 30


def test_the_layout_is_a_layout(
    client: Client, registry: Registry, store: BlobStore, image: Image, tmp_path: Path
) -> None:
    client.push(store, image.descriptor, [named(registry.address)])
    layout = Layout.create(tmp_path / "new")
    client.pull(named(registry.address), layout.blobs, HOST)
    assert sorted(os.listdir(layout.root)) in (
        ["blobs", "index.json", "oci-layout"],
        ["blobs", "index.json", "oci-layout", "tmp"],
    )
    assert json.loads((tmp_path / "new" / "index.json").read_text())["manifests"] == []
