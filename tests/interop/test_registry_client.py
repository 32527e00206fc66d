"""Our client and Debian's docker-registry: plain, with TLS, with a password; and skopeo as the witness."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from ports import free_port
from specimens import everything, noise, visible

from oci import media_types, platforms
from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import ManifestUnknown, RegistryError, Unauthorized
from oci.image import Image, index_of, walk
from oci.layout import Layout
from oci.model import ImageConfig, Manifest, Platform
from oci.reference import Reference
from oci.registry.auth import Credential, CredentialStore
from oci.registry.client import Client
from oci.registry.config import HostConfig, RegistryConfig

pytestmark = pytest.mark.interop
HOST = platforms.host()


@contextmanager
def docker_registry(directory: Path, **http: object) -> Iterator[str]:
    """docker-registry on a free port, its data below `directory`; its address."""
    directory.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    auth = http.pop("auth", None)
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
        "http": {"addr": address, "secret": "test", **http},
        **({"auth": auth} if auth else {}),
    }
    (directory / "config.yml").write_text(json.dumps(config))
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", str(directory / "config.yml")], stdout=log, stderr=log
        )
    try:
        _until_listening(address, process, directory / "log")
        yield address
    finally:
        process.terminate()
        process.wait(60)


def _until_listening(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    host, _, port = address.partition(":")
    for _ in range(3000):
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"docker-registry does not listen: {log.read_text()}")


@pytest.fixture(scope="module")
def directory(memory_dir: str) -> Path:
    path = Path(memory_dir) / "registry-client"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def plain(directory: Path) -> Iterator[str]:
    with docker_registry(directory / "plain") as address:
        yield address


@pytest.fixture(scope="module")
def certificates(directory: Path) -> Path:
    """An authority and a certificate of its making for 127.0.0.1."""
    where = directory / "certificates"
    where.mkdir()
    (where / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for line in (
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=127.0.0.1",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -extfile names",
    ):
        subprocess.run(["openssl", *line.split()], cwd=where, check=True, capture_output=True)
    return where


@pytest.fixture(scope="module")
def secure(directory: Path, certificates: Path) -> Iterator[str]:
    """With TLS and a password, me:secret."""
    hashed = (
        subprocess.run(
            ["htpasswd", "-Bbn", "me", "secret"], check=True, capture_output=True, text=True
        ).stdout
        if shutil.which("htpasswd")
        else _bcrypt()
    )
    (directory / "htpasswd").write_text(hashed)
    tls = {"certificate": str(certificates / "server.pem"), "key": str(certificates / "server.key")}
    auth = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    with docker_registry(directory / "secure", tls=tls, auth=auth) as address:
        yield address


def _bcrypt() -> str:
    """`me:secret`, hashed by the C library."""
    code = "import crypt; print('me:' + crypt.crypt('secret', '$2b$05$abcdefghijklmnopqrstuu'))"
    done = subprocess.run(["python3", "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return Layout.create(tmp_path / "one").blobs


@pytest.fixture
def other(tmp_path: Path) -> BlobStore:
    return Layout.create(tmp_path / "other").blobs


def named(address: str, rest: str) -> Reference:
    return Reference.parse(f"{address}/{rest}")


def skopeo(*args: str) -> str:
    return subprocess.run(["skopeo", *args], check=True, capture_output=True, text=True).stdout


def test_there_and_back(plain: str, store: BlobStore, other: BlobStore) -> None:
    image = noise(store, 3_000_000, 1000, 1)
    name = named(plain, "there/and/back:v1")
    with Client() as client:
        client.push(store, image.descriptor, [name, name.with_tag("v2")])
        assert client.resolve(name, HOST).digest == image.descriptor.digest
        assert client.resolve(name) == replace(image.descriptor, platform=None)
        assert client.fetch_manifest(name)[1] == image.manifest.content
        assert client.pull(name, other, HOST).digest == image.descriptor.digest
        assert sorted(client.tags(name)) == ["v1", "v2"]
    assert visible(other) == everything(image)
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert raw.encode() == image.manifest.content


def test_what_skopeo_pushed_and_skopeo_takes_what_we_pushed(
    plain: str, tmp_path: Path, other: BlobStore
) -> None:
    layout = Layout.create(tmp_path / "mine")
    image = noise(layout.blobs, 100_000, 5)
    with layout.editing() as names:
        names.set("v1", image.descriptor)
    skopeo(
        "copy",
        "--preserve-digests",
        "--dest-tls-verify=false",
        f"oci:{layout.root}:v1",
        f"docker://{plain}/skopeo/one:v1",
    )
    with Client() as client:
        found = client.pull(named(plain, "skopeo/one:v1"), other, HOST)
        Image.load(other, found)
        client.push(layout.blobs, image.descriptor, [named(plain, "skopeo/two:v1")])
    skopeo(
        "copy",
        "--preserve-digests",
        "--src-tls-verify=false",
        f"docker://{plain}/skopeo/two:v1",
        f"oci:{tmp_path}/theirs:v1",
    )
    theirs = Layout.open(tmp_path / "theirs")
    assert visible(theirs.blobs) >= everything(image)


def test_an_index(plain: str, store: BlobStore, other: BlobStore, tmp_path: Path) -> None:
    arm = Platform("linux", "arm64")
    images = [noise(store, 50_000, 10), noise(store, 60_000, 10, platform=arm, seed=2)]
    raw = index_of(tuple(image.descriptor for image in images))
    whole = store.put(raw.value.media_type, raw.content)
    name = named(plain, "index:v1")
    with Client() as client:
        assert client.push(store, whole, [name]).digest == whole.digest
        assert client.pull(name, other, arm).digest == images[1].descriptor.digest
        assert visible(other) == everything(images[1])
        with pytest.raises(ManifestUnknown, match=f"no image for linux/s390x; there is {HOST}, linux/arm64"):
            client.resolve(name, Platform("linux", "s390x"))
        everywhere = Layout.create(tmp_path / "all").blobs
        assert client.pull(name, everywhere).digest == whole.digest
    assert visible(everywhere) == {str(whole.digest)} | everything(images[0]) | everything(images[1])


def test_zstd_layers_and_artifacts(plain: str, store: BlobStore, other: BlobStore) -> None:
    import zstandard

    content = zstandard.compress(b"x" * 100_000)
    layer = store.put(media_types.OCI_LAYER_ZSTD, content)
    empty = store.put(media_types.OCI_EMPTY, b"{}")
    subject = noise(store, 10)
    artifact = Manifest(
        empty, (layer,), annotations={"a": "b"}, artifact_type="application/x.sbom",
        subject=replace(subject.descriptor, platform=None),
    )  # fmt: skip
    pointer = store.put(artifact.media_type, artifact.to_json())
    name = named(plain, "artifacts:subject")
    with Client() as client:
        client.push(store, subject.descriptor, [name])
        client.push(store, pointer, [named(plain, "artifacts")])
        (found,) = client.referrers(name, "application/x.sbom")
        assert found.digest == pointer.digest and found.annotations == {"a": "b"}
        assert client.referrers(name, "application/x.other") == ()
        assert f"sha256-{subject.descriptor.digest.hex}" in client.tags(name)
        client.pull(name.with_digest(pointer.digest), other)
        assert other.read(layer.digest) == content
        client.delete(name.with_digest(pointer.digest))
        assert client.referrers(name) == ()


@pytest.fixture(scope="module", params=["plain", "password", "tls", "tls and password"])
def reached(
    request: pytest.FixtureRequest, directory: Path, certificates: Path, secure: str
) -> Iterator[tuple[str, Client]]:
    """docker-registry with and without TLS and a password, and a client that may enter."""
    http: dict[str, object] = {}
    if "password" in request.param:
        http["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    if "tls" in request.param:
        files = {"certificate": "server.pem", "key": "server.key"}
        http["tls"] = {key: str(certificates / name) for key, name in files.items()}
    with docker_registry(directory / request.param.replace(" ", "-"), **http) as address:
        host = HostConfig(ca=(str(certificates / "ca.pem"),)) if "tls" in http else HostConfig()
        credentials = CredentialStore(
            (), given={address: Credential("me", "secret")} if "auth" in http else {}
        )
        with Client(RegistryConfig({address: host}), credentials) as client:
            yield address, client


def test_every_kind_of_content_on_every_kind_of_registry(
    reached: tuple[str, Client], store: BlobStore, tmp_path: Path
) -> None:
    """Image, index, zstd layers and an artifact with a subject: there, and the same bytes back."""
    import zstandard

    address, client = reached
    arm = Platform("linux", "arm64")
    packed = store.put(media_types.OCI_LAYER_ZSTD, zstandard.compress(b"y" * 70_000))
    diff_id = Digest.of(b"y" * 70_000)
    zstd = Image.of(ImageConfig(HOST, diff_ids=(diff_id,)), (packed,)).write(store)
    one, two = noise(store, 40_000, 10, seed=5), noise(store, 30_000, platform=arm, seed=6)
    raw = index_of((one.descriptor, two.descriptor))
    index = store.put(raw.value.media_type, raw.content)
    artifact = Manifest(
        store.put(media_types.OCI_EMPTY, b"{}"), (packed,), artifact_type="application/x.thing",
        subject=replace(one.descriptor, platform=None),
    )  # fmt: skip
    pointer = store.put(artifact.media_type, artifact.to_json())
    for number, what in enumerate((one.descriptor, index, zstd, pointer)):
        name = named(address, f"kinds/of{number}:v1")
        client.push(store, what, [name])
        back = Layout.create(tmp_path / f"back{number}").blobs
        assert client.pull(name, back).digest == what.digest
        wanted = {str(each.digest) for each in walk(store, what)}
        assert visible(back) == wanted
    name = named(address, "kinds/of0:v1")
    client.push(store, pointer, [named(address, "kinds/of0")])
    assert [each.digest for each in client.referrers(name)] == [pointer.digest]


def test_an_upload_that_breaks_goes_on(plain: str, store: BlobStore, other: BlobStore) -> None:
    import chaos

    image = noise(store, 3_000_000)
    with chaos.chaos(plain) as proxy, Client(sleep=lambda seconds, stop: stop.sleep(0.01)) as client:
        proxy.spoil("PUT", "/uploads/", chaos.cut_request(1_000_000))
        proxy.spoil("PATCH", "/uploads/", chaos.cut_request(500_000))
        proxy.spoil("GET", "/blobs/sha", chaos.truncate(700_000), times=2)
        name = named(proxy.address, "broken:v1")
        client.push(store, image.descriptor, [name])
        client.pull(name, other, HOST)
    assert visible(other) == everything(image)


@pytest.mark.parametrize("chunk", [100_000, 1 << 20])
def test_chunks(chunk: int, plain: str, store: BlobStore, other: BlobStore) -> None:
    image = noise(store, 1_500_000, seed=chunk)
    name = named(plain, "chunks:v1")
    with Client() as client:
        client.push(store, image.descriptor, [name], chunk=chunk)
        client.pull(name, other, HOST)
    assert visible(other) == everything(image)


def test_base_layers_are_mounted_not_moved(plain: str, store: BlobStore, other: BlobStore) -> None:
    base = noise(store, 500_000, 20_000)
    with Client() as client:
        source = named(plain, "base:v1")
        client.push(store, base.descriptor, [source])
        mine = client.pull_documents(source, other, HOST)
        assert visible(other) == {str(base.id), str(base.descriptor.digest)}
        config = replace(mine.config.value, author="me")
        child = mine.with_config(config)
        pointer = child.write(other)
        states: dict[Digest, str] = {}
        client.push(
            other,
            pointer,
            [named(plain, "child:v1")],
            lambda moving: states.update({moving.descriptor.digest: moving.state}),
            mount_from={layer.digest: [source] for layer in child.layers},
        )
        assert [states[layer.digest] for layer in child.layers] == ["mounted", "mounted"]
        client.fetch_blob(source, base.layers[1], other)
        assert base.layers[1].digest in other and base.layers[0].digest not in other


def test_copies(
    plain: str, secure: str, certificates: Path, tmp_path: Path, store: BlobStore, other: BlobStore
) -> None:
    image = noise(store, 2_000_000, 3)
    config = RegistryConfig({secure: HostConfig(ca=(str(certificates / "ca.pem"),))})
    credentials = CredentialStore((str(tmp_path / "auth.json"),))
    credentials.put(secure, Credential("me", "secret"))
    with Client(config, credentials) as client:
        client.push(store, image.descriptor, [named(plain, "copy/a:v1")])
        client.copy(named(plain, "copy/a:v1"), named(plain, "copy/b:v1"))
        client.copy(named(plain, "copy/b:v1"), named(secure, "copy/c:v1"))
        client.pull(named(secure, "copy/c:v1"), other, HOST)
    assert visible(other) == everything(image)


def test_deletion(plain: str, store: BlobStore) -> None:
    image = noise(store, 100)
    name = named(plain, "gone:v1")
    with Client() as client:
        client.push(store, image.descriptor, [name])
        client.delete(name.with_digest(image.descriptor.digest))
        with pytest.raises(ManifestUnknown):
            client.resolve(name)
        with pytest.raises(RegistryError):
            client.delete(name)


def test_tls_and_password(
    secure: str, certificates: Path, tmp_path: Path, store: BlobStore, other: BlobStore
) -> None:
    """S87."""
    image = noise(store, 2_000_000, 50)
    name = named(secure, "private:v1")
    trusted = RegistryConfig({secure: HostConfig(ca=(str(certificates / "ca.pem"),))})
    credentials = CredentialStore((str(tmp_path / "auth.json"),))

    with Client(RegistryConfig({secure: HostConfig(http=False)})) as client:
        with pytest.raises(RegistryError, match=r"certificate is not trusted: .*--tls-verify=false"):
            client.ping(secure)
    with Client(trusted, credentials) as client:
        with pytest.raises(Unauthorized, match="log in with"):
            client.push(store, image.descriptor, [name])
        with pytest.raises(Unauthorized):
            client.authenticate(secure, Credential("me", "wrong"))
        client.authenticate(secure, Credential("me", "secret"))
    credentials.put(secure, Credential("me", "secret"))
    with Client(trusted, credentials) as client:
        client.push(store, image.descriptor, [name])
        client.push(BlobStore(store.root), image.descriptor, [name.with_tag("v2")])
        client.pull(name, other, HOST)
    assert visible(other) == everything(image)
    warned: list[str] = []
    with Client(RegistryConfig(), credentials, tls_verify=False, warn=warned.append) as client:
        assert sorted(client.tags(name)) == ["v1", "v2"]
    assert warned == [f"{secure}: its certificate is not verified (insecure)"]
    (tmp_path / "auth.json").write_text("{}")
    skopeo_says = skopeo("inspect", "--tls-verify=false", "--creds", "me:secret", f"docker://{name}")
    assert json.loads(skopeo_says)["Digest"] == str(image.descriptor.digest)


def test_tls_is_found_out_on_loopback(secure: str, tmp_path: Path) -> None:
    with Client() as client, pytest.raises(RegistryError, match="certificate is not trusted"):
        client.ping(secure)


def test_a_mirror_is_asked_first_and_the_registry_if_it_fails(
    plain: str, directory: Path, store: BlobStore, other: BlobStore
) -> None:
    image = noise(store, 1000, seed=9)
    with docker_registry(directory / "mirror") as mirror:
        warned: list[str] = []
        config = RegistryConfig({plain: HostConfig(mirrors=(f"{mirror}/cache",))})
        with Client(config, warn=warned.append) as client:
            client.push(store, image.descriptor, [named(plain, "mirrored:v1")])
            client.pull(named(plain, "mirrored:v1"), other, HOST)
            assert any("asking elsewhere" in text for text in warned)
            client.push(store, image.descriptor, [named(mirror, "cache/mirrored:v1")])
            client.delete(named(plain, "mirrored").with_digest(image.descriptor.digest))
            warned.clear()
            assert client.resolve(named(plain, "mirrored:v1")).digest == image.descriptor.digest
            assert any("according to the mirror" in text for text in warned)


KILLED = """
import sys
from oci import platforms
from oci.blobs import BlobStore
from oci.model import Descriptor
from oci.digest import Digest
from oci.reference import Reference
from oci.registry.client import Client
verb, root, name, media_type, digest, size = sys.argv[1:]
store, name = BlobStore(root), Reference.parse(name)
with Client(parallel=2) as client:
    print("go", flush=True)
    if verb == "push":
        client.push(store, Descriptor(media_type, Digest.parse(digest), int(size)), [name])
    else:
        client.pull(name, store, platforms.host())
"""


def test_killed_at_any_time(plain: str, store: BlobStore, other: BlobStore) -> None:
    """After kill -9 at random points nothing partial is visible, and the next run completes."""
    chance = random.Random(7)
    image = noise(store, *([4_000_000] * 6), seed=11)
    name = named(plain, "killed:v1")
    pointer = (image.descriptor.media_type, str(image.descriptor.digest), str(image.descriptor.size))
    survived = 0
    for verb, place in (("push", store), ("pull", other)):
        for _ in range(8):
            process = subprocess.Popen(
                [sys.executable, "-c", KILLED, verb, place.root, str(name), *pointer],
                cwd=_ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            with process:
                assert process.stdout and process.stdout.readline() == b"go\n"
                time.sleep(chance.uniform(0.0, 0.2))
                process.kill()
            survived += process.returncode == 0
            if str(image.descriptor.digest) in visible(other):
                assert visible(other) == everything(image)
        with Client() as client:
            if verb == "push":
                client.push(store, image.descriptor, [name])
            else:
                client.pull(name, other, HOST)
    assert visible(other) == everything(image)
    assert survived < 16, "nobody was killed: the delays are too long"


def test_memory_stays_small(plain: str, directory: Path) -> None:
    """Pushing and pulling 300 MB leaves the process below 200 MB."""
    code = f"""
import os, sys
from oci import platforms
from oci.layout import Layout
sys.path.insert(0, {os.path.dirname(os.path.abspath(noise.__code__.co_filename))!r})
from oci.image import Image
from oci import media_types
from oci.model import ImageConfig
from oci.reference import Reference
from oci.registry.client import Client
store = Layout.create({str(directory / "big")!r}).blobs
layers = []
for number in range(3):
    with store.writer() as writer:
        for _ in range(100):
            writer.write(os.urandom(1 << 20))
        layers.append((writer.commit(), 100 << 20))
from oci.model import Descriptor
layers = tuple(Descriptor(media_types.OCI_LAYER, digest, size) for digest, size in layers)
image = Image.of(ImageConfig(platforms.host(), diff_ids=tuple(layer.digest for layer in layers)), layers)
pointer = image.write(store)
name = Reference.parse({plain!r} + "/big:v1")
with Client(parallel=8) as client:
    client.push(store, pointer, [name])
    client.pull(name, Layout.create({str(directory / "big-back")!r}).blobs, platforms.host())
# Not ru_maxrss: a child inherits its parent's peak.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=_ROOT)
    shutil.rmtree(directory / "big", ignore_errors=True)
    shutil.rmtree(directory / "big-back", ignore_errors=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200 * 1024


_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
