"""docker, podman, buildah and skopeo push to our registry and pull from it: plain and TLS, with passwords or
without.

The registry is `pybuild registry serve` as people run it, in a process of its own.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

import pytest
from judges.bases import BUSYBOX
from judges.dockerd import Docker
from judges.pybuild import Pybuild

from oci import media_types, platforms
from oci.compress import codec
from oci.image import Image, index_of
from oci.layer import LayerSink
from oci.layout import Layout
from oci.model import History, Index, Platform, RunConfig
from oci.tar import Entry, Kind, TarWriter
from oci.validate import validate

pytestmark = pytest.mark.interop

USER, PASSWORD = "ship", "pass:word"
MODES = ("plain", "plain-auth", "tls", "tls-auth")


def run(*command: str, check: bool = True, **more: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **more}, timeout=120)
    assert not check or done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@dataclass(frozen=True, slots=True)
class Served:
    """A running registry."""

    mode: str
    address: str
    store: Pybuild
    authfile: str
    certificates: str

    @property
    def tls(self) -> bool:
        return self.mode.startswith("tls")

    def trust(self, prefix: str = "") -> list[str]:
        """How the tools of containers/image are told to believe it."""
        return [f"--{prefix}cert-dir={self.certificates}"] if self.tls else [f"--{prefix}tls-verify=false"]

    def name(self, path: str) -> str:
        return f"{self.address}/{path}"

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        if self.tls:
            context = ssl.create_default_context(cafile=os.path.join(self.certificates, "ca.crt"))
            made: http.client.HTTPConnection = http.client.HTTPSConnection(self.address, context=context)
        else:
            made = http.client.HTTPConnection(self.address)
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(made) as connection:
            connection.request(method, path, body, {"Authorization": f"Basic {token}", **sent})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def digest(self, path: str, reference: str) -> str:
        status, headers, _ = self.ask("HEAD", f"/v2/{path}/manifests/{reference}")
        assert status == 200, (path, reference)
        return headers["docker-content-digest"]


@pytest.fixture(scope="module")
def secrets(memory_dir: str) -> str:
    """A directory with a certificate, its key, and an htpasswd file."""
    directory = os.path.join(memory_dir, "registry-secrets")
    os.mkdir(directory)
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", "2", "-keyout", f"{directory}/server.key", "-out", f"{directory}/ca.crt",
        "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")  # fmt: skip
    hashed = run("openssl", "passwd", "-apr1", PASSWORD).strip()
    with open(f"{directory}/htpasswd", "w") as file:
        file.write(f"{USER}:{hashed}\n")
    # Where the tools look for certificates a key without its own certificate is an error.
    os.mkdir(f"{directory}/trusted")
    shutil.copy(f"{directory}/ca.crt", f"{directory}/trusted/ca.crt")
    return directory


@contextmanager
def serving(root: str, secrets: str, mode: str, *more: str) -> Iterator[Served]:
    command = [os.path.join(sysconfig.get_path("scripts"), "pybuild"), "--root", root, "registry", "serve",
               "--addr", "127.0.0.1:0", "--no-access-log", *more]  # fmt: skip
    if "tls" in mode:
        command += ["--tls-cert", f"{secrets}/ca.crt", "--tls-key", f"{secrets}/server.key"]
    if "auth" in mode:
        command += ["--htpasswd", f"{secrets}/htpasswd"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        match = re.fullmatch(r"serving https?://(.*)\n", said)
        assert match, said
        authfile = f"{root}.auth.json"
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        with open(authfile, "w") as file:
            json.dump({"auths": {match[1]: {"auth": token}}}, file)
        yield Served(mode, match[1], Pybuild(root), authfile, f"{secrets}/trusted")
    finally:
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=120)
    assert (process.returncode, rest) == (0, "stopping: running requests may finish\n")


@pytest.fixture(scope="module", params=MODES)
def registry(request: pytest.FixtureRequest, memory_dir: str, secrets: str) -> Iterator[Served]:
    root = os.path.join(memory_dir, f"registry-{request.param}")
    with serving(root, secrets, request.param) as served:
        yield served


@pytest.fixture(scope="module")
def plain(memory_dir: str, secrets: str) -> Iterator[Served]:
    with serving(os.path.join(memory_dir, "registry-more"), secrets, "plain") as served:
        yield served


@pytest.fixture(scope="module")
def containers(memory_dir: str) -> Iterator[tuple[str, ...]]:
    """Storage flags of podman and buildah; a run root may have 50 characters at most."""
    with tempfile.TemporaryDirectory(prefix="reg-", dir="/tmp") as run_root:
        storage = os.path.join(memory_dir, "containers")
        yield ("--root", storage, "--runroot", run_root, "--storage-driver", "vfs")


@pytest.fixture(scope="module")
def image_id(busybox_archive: str) -> str:
    """The config digest of the busybox image: what all tools call its id."""
    with tarfile.open(busybox_archive) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        config: str = json.load(manifest)[0]["Config"]
    return config.removesuffix(".json")


def log_in(docker: Docker, registry: Served) -> None:
    shutil.copy(registry.authfile, os.path.join(docker.config, "config.json"))


def test_docker(registry: Served, docker: Docker, busybox_archive: str, image_id: str) -> None:
    log_in(docker, registry)
    name = registry.name("docker/busybox:1")
    docker.run("load", "--input", busybox_archive)
    docker.run("tag", BUSYBOX, name)
    docker.run("push", name)
    assert "already exists" in docker.run("push", name).stdout.decode()
    docker.run("rmi", "--force", name, BUSYBOX)
    docker.run("pull", name)
    assert docker.run("inspect", "--format", "{{.Id}}", name).stdout.decode().strip() == f"sha256:{image_id}"
    other = registry.name("docker/other:1")
    docker.run("tag", name, other)
    assert "Mounted from docker/busybox" in docker.run("push", other).stdout.decode()
    docker.run("rmi", "--force", name, other)


def test_skopeo(registry: Served, busybox_archive: str, image_id: str, memory_dir: str) -> None:
    name = f"docker://{registry.name('skopeo/busybox:1')}"
    auth = f"--authfile={registry.authfile}"
    run("skopeo", "copy", auth, *registry.trust("dest-"), f"docker-archive:{busybox_archive}", name)
    listed = json.loads(run("skopeo", "list-tags", auth, *registry.trust(), name.rpartition(":")[0]))
    assert listed["Tags"] == ["1"]
    target = tempfile.mkdtemp(dir=memory_dir)
    run("skopeo", "copy", auth, *registry.trust("src-"), name, f"dir:{target}")
    with open(f"{target}/manifest.json") as file:
        assert json.load(file)["config"]["digest"] == f"sha256:{image_id}"
    run("skopeo", "delete", auth, *registry.trust(), name)
    assert registry.ask("GET", "/v2/skopeo/busybox/manifests/1")[0] == 404


@pytest.mark.parametrize("tool", ["podman", "buildah"])
def test_podman_and_buildah(
    registry: Served, tool: str, containers: tuple[str, ...], busybox_archive: str, image_id: str
) -> None:
    name = registry.name(f"{tool}/busybox:1")
    auth = f"--authfile={registry.authfile}"
    run("podman", *containers, "load", "--input", busybox_archive)
    run(tool, *containers, "push", auth, *registry.trust(), f"localhost/{BUSYBOX}", name)
    run(tool, *containers, "rmi", "--all", "--force")
    run(tool, *containers, "pull", auth, *registry.trust(), name)
    listed = run(
        "podman", *containers, "images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"
    )
    assert listed.split() == [f"sha256:{image_id}", name]
    run(tool, *containers, "rmi", "--all", "--force")


def test_a_wrong_password_gets_nothing(registry: Served, memory_dir: str) -> None:
    if "auth" not in registry.mode:
        assert (
            run("skopeo", "list-tags", *registry.trust(), f"docker://{registry.name('none')}", check=False)
            == ""
        )
        return
    command = ["skopeo", "list-tags", *registry.trust(), "--creds", f"{USER}:wrong"]
    done = subprocess.run(
        [*command, f"docker://{registry.name('skopeo/busybox')}"], capture_output=True, text=True
    )
    assert done.returncode != 0 and "password" in done.stderr.lower()


def test_what_was_loaded_is_pulled_by_all(
    registry: Served, docker: Docker, containers: tuple[str, ...], busybox_archive: str, image_id: str
) -> None:
    """No push is needed: the store of builds is the registry's."""
    log_in(docker, registry)
    registry.store.run("load", "--input", busybox_archive)
    name = registry.name("busybox-test:latest")
    docker.run("pull", name)
    assert docker.run("inspect", "--format", "{{.Id}}", name).stdout.decode().strip() == f"sha256:{image_id}"
    docker.run("rmi", "--force", name)
    run("podman", *containers, "pull", f"--authfile={registry.authfile}", *registry.trust(), name)
    run("podman", *containers, "rmi", "--all", "--force")


def test_pushes_are_images_of_the_store_and_sound(registry: Served, docker: Docker, image_id: str) -> None:
    """Runs after the pushes above, on the same store."""
    listed = registry.store.run("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout.decode()
    for tool in ("docker", "podman", "buildah"):
        assert f"{registry.name(tool)}/busybox:1 {image_id[:12]}" in listed
    layout = Layout.open(registry.store.root)
    assert [finding for entry in layout.descriptors() for finding in validate(layout, entry)] == []


def two_platforms(root: str, packed: str) -> Layout:
    """A layout with an index of two platforms, this machine's first, named `two`."""
    made = Layout.create(root)
    parts = []
    for platform in (platforms.host(), Platform("linux", "s390x")):
        with LayerSink(codec(packed), made.blobs) as sink:
            tar = TarWriter(sink)
            content = b"for " + str(platform).encode() * 1000
            tar.add(Entry(b"file", Kind.FILE, 0o755, size=len(content)), content)
            tar.finish()
            image = Image.scratch(platform).append(sink.finish(), History(created_by="COPY file /"))
        start = replace(image.config.value, config=RunConfig(cmd=("/file",)))
        parts.append(image.with_config(start).write(made.blobs))
    pointer = made.blobs.put(media_types.OCI_INDEX, index_of(tuple(parts)).content)
    with made.editing() as names:
        names.set("two", pointer)
    return made


@pytest.fixture(scope="module")
def layout(memory_dir: str) -> Layout:
    return two_platforms(os.path.join(memory_dir, "two"), "zstd")


def test_an_index_with_zstd_layers(
    registry: Served, layout: Layout, containers: tuple[str, ...], memory_dir: str
) -> None:
    root = layout.descriptors()[0].digest
    name = f"docker://{registry.name('many/two:1')}"
    auth = f"--authfile={registry.authfile}"
    run("skopeo", "copy", "--all", auth, *registry.trust("dest-"), f"oci:{layout.root}:two", name)
    assert registry.digest("many/two", "1") == str(root)
    target = tempfile.mkdtemp(dir=memory_dir)
    run("skopeo", "copy", "--all", auth, *registry.trust("src-"), name, f"oci:{target}/all:two")
    assert set(Layout.open(f"{target}/all").blobs) == set(layout.blobs)
    for tool in ("podman", "buildah"):
        run(tool, *containers, "pull", auth, *registry.trust(), registry.name("many/two:1"))
        run(tool, *containers, "rmi", "--all", "--force")


@pytest.mark.parametrize("tool", ["podman", "buildah"])
def test_zstd_layers_that_others_make(
    registry: Served, tool: str, containers: tuple[str, ...], layout: Layout
) -> None:
    name, auth = registry.name(f"{tool}/zstd:1"), f"--authfile={registry.authfile}"
    image = run("podman", *containers, "pull", "--quiet", f"oci:{layout.root}:two").strip()
    packed = ("--format=oci", "--compression-format=zstd")
    run(tool, *containers, "push", auth, *registry.trust(), *packed, image, name)
    run(tool, *containers, "rmi", "--all", "--force")
    _, _, body = registry.ask("GET", f"/v2/{tool}/zstd/manifests/1")
    assert {each["mediaType"] for each in json.loads(body)["layers"]} == {media_types.OCI_LAYER_ZSTD}
    run(tool, *containers, "pull", auth, *registry.trust(), name)
    run(tool, *containers, "rmi", "--all", "--force")


@pytest.mark.parametrize("tool", ["podman", "buildah"])
def test_an_index_that_others_make(
    registry: Served, layout: Layout, tool: str, containers: tuple[str, ...]
) -> None:
    made = f"list-of-{tool}:1"
    target, auth = f"docker://{registry.name(tool)}:1", f"--authfile={registry.authfile}"
    run(tool, *containers, "manifest", "create", made)
    run(tool, *containers, "manifest", "add", "--all", made, f"oci:{layout.root}:two")
    run(tool, *containers, "manifest", "push", "--all", auth, *registry.trust(), made, target)
    _, headers, body = registry.ask("GET", f"/v2/{tool}/manifests/1")
    assert headers["content-type"] in media_types.INDEXES
    for entry in json.loads(body)["manifests"]:
        assert registry.ask("GET", f"/v2/{tool}/manifests/{entry['digest']}")[0] == 200
    run(tool, *containers, "rmi", "--all", "--force")


def test_docker_pulls_its_platform_of_an_index(registry: Served, memory_dir: str, docker: Docker) -> None:
    log_in(docker, registry)
    packed = two_platforms(os.path.join(memory_dir, "two-gzip"), "gzip")
    name, auth = registry.name("docker/two:1"), f"--authfile={registry.authfile}"
    run(
        "skopeo",
        "copy",
        "--all",
        auth,
        *registry.trust("dest-"),
        f"oci:{packed.root}:two",
        f"docker://{name}",
    )
    index = Index.from_json(packed.blobs.read(packed.descriptors()[0].digest))
    for part in index.manifests:
        docker.run("pull", f"--platform={part.platform}", name)
        shown = docker.run("inspect", "--format", "{{.Id}}", name).stdout.decode().strip()
        assert shown == str(Image.load(packed.blobs, part).id)
        docker.run("rmi", "--force", name)


def test_artifacts_and_what_refers_to_an_image(registry: Served) -> None:
    """As signing and SBOM tools push them: by hand, for none of these tools is at hand."""
    subject, thing = b'{"subject":true}', b"an SBOM"
    path = "/v2/artifacts/app"
    parts = []
    for content, kind in ((b"{}", media_types.OCI_EMPTY), (thing, "text/spdx")):
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert registry.ask("POST", f"{path}/blobs/uploads/?digest={digest}", content)[0] == 201
        parts.append({"mediaType": kind, "digest": digest, "size": len(content)})
    about = {"mediaType": media_types.OCI_MANIFEST, "digest": f"sha256:{hashlib.sha256(subject).hexdigest()}",
             "size": len(subject)}  # fmt: skip
    manifest = json.dumps({
        "schemaVersion": 2, "mediaType": media_types.OCI_MANIFEST, "artifactType": "text/spdx",
        "config": parts[0], "layers": parts[1:], "subject": about, "annotations": {"tool": "none"},
    }).encode()  # fmt: skip
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    status, headers, _ = registry.ask(
        "PUT", f"{path}/manifests/{digest}", manifest, Content_Type=media_types.OCI_MANIFEST
    )
    assert (status, headers["oci-subject"]) == (201, about["digest"])
    _, headers, body = registry.ask("GET", f"{path}/referrers/{about['digest']}?artifactType=text/spdx")
    assert headers["oci-filters-applied"] == "artifactType"
    (found,) = json.loads(body)["manifests"]
    assert (found["digest"], found["artifactType"], found["annotations"]) == (
        digest,
        "text/spdx",
        {"tool": "none"},
    )
    assert registry.ask("GET", f"{path}/manifests/{digest}")[2] == manifest
    assert registry.ask("GET", f"{path}/blobs/{parts[1]['digest']}")[2] == thing


def test_a_cache_in_front_of_another_registry(
    plain: Served, secrets: str, memory_dir: str, docker: Docker, busybox_archive: str, image_id: str
) -> None:
    run("skopeo", "copy", *plain.trust("dest-"), f"docker-archive:{busybox_archive}",
        f"docker://{plain.name('cached/busybox:1')}")  # fmt: skip
    root = os.path.join(memory_dir, "registry-cache")
    with serving(root, secrets, "plain", "--proxy", f"http://{plain.address}") as cache:
        name = cache.name("cached/busybox:1")
        docker.run("pull", name)
        assert (
            docker.run("inspect", "--format", "{{.Id}}", name).stdout.decode().strip() == f"sha256:{image_id}"
        )
        docker.run("rmi", "--force", name)
        assert b'"1"' in cache.ask("GET", "/v2/cached/busybox/tags/list")[2]


def test_gc_frees_what_was_deleted(plain: Served, busybox_archive: str) -> None:
    name = f"docker://{plain.name('gone/busybox:1')}"
    content = os.urandom(200_000)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    run("skopeo", "copy", *plain.trust("dest-"), f"docker-archive:{busybox_archive}", name)
    assert plain.ask("POST", f"/v2/gone/busybox/blobs/uploads/?digest={digest}", content)[0] == 201
    done = plain.store.run("registry", "gc", "--older-than", "0", "--dry-run")
    assert f"blob gone/busybox@{digest}\n" in done.stdout.decode() and not done.stderr
    done = plain.store.run("registry", "gc", "--older-than", "0", "--untagged")
    assert int(re.fullmatch(r"freed (\d+) bytes\n", done.stderr.decode())[1]) >= 200_000  # type: ignore[index]
    assert plain.ask("HEAD", f"/v2/gone/busybox/blobs/{digest}")[0] == 404
    run("skopeo", "inspect", *plain.trust(), name)
