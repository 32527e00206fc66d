"""Builds whose bases are in a registry: what is asked of it, when, and what comes out.

The registry is one in memory that remembers every request; tests/interop has the real ones.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import signal
import subprocess
import sys
import sysconfig
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from small_registry import Handler, Registry, serving

from builder import BuildRequest, Built, build, origins
from builder.cli import main
from builder.errors import BuildCancelled, NotFound, RegistryFailed, UsageError
from builder.events import Event, Exported, StepLog, Transfer, Warning_
from builder.export.base import OutputSpec
from builder.images import Images
from builder.registries import Access, Registries
from builder.state import StateDir
from oci import media_types
from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import DigestMismatch
from oci.image import Image, index_of
from oci.layout import Layout
from oci.model import Descriptor, History, ImageConfig, Platform
from oci.platforms import host
from oci.reference import Reference
from oci.registry.client import Client

pytestmark = pytest.mark.root

PYBUILD = os.path.join(sysconfig.get_path("scripts"), "pybuild")
ARM = Platform("linux", "arm64")


def packed(files: dict[str, bytes], *, busybox: bool = False) -> tuple[bytes, Digest]:
    """A layer's blob and its diffID."""
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        if busybox:
            tar.add("/bin/busybox", "bin/busybox")
            for name in ("sh", "cat", "ls", "echo", "true"):
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, BytesIO(content))
    return gzip.compress(out.getvalue(), 1, mtime=0), Digest.of(out.getvalue())


def image_of(store: BlobStore, layers: list[tuple[bytes, Digest]], platform: Platform | None = None) -> Image:
    pointers = tuple(store.put(media_types.OCI_LAYER_GZIP, content) for content, _ in layers)
    history = tuple(History(created_by=f"layer {n}") for n in range(len(layers)))
    config = ImageConfig(
        platform or host(), diff_ids=tuple(diff_id for _, diff_id in layers), history=history
    )
    image = Image.of(config, pointers)
    image.write(store)
    return image


class Shop:
    """A registry, a store that knows nothing of it, a context, and a way to build."""

    def __init__(self, top: str, registry: Registry) -> None:
        self.registry = registry
        self.top = top
        self.root = f"{top}/store"
        self.context = Path(top, "context")
        self.context.mkdir()
        self.events: list[Event] = []
        self.elsewhere = Layout.create(f"{top}/elsewhere").blobs

    def name(self, rest: str) -> str:
        return f"{self.registry.address}/{rest}"

    def publish(self, name: str, count: int = 3, **more: Any) -> Image:
        """An image of busybox and `count` layers with a file each, in the registry."""
        files = [packed({f"file{n}": f"{name} {n}\n".encode() * 200}) for n in range(count)]
        image = image_of(self.elsewhere, [packed({}, busybox=True), *files], **more)
        self.push(name, image.descriptor)
        return image

    def push(self, name: str, descriptor: Descriptor) -> None:
        with Client() as client:
            client.push(self.elsewhere, descriptor, [Reference.parse(self.name(name))])
        self.forget()

    def forget(self) -> None:
        self.registry.seen.clear()

    def build(self, dockerfile: str, **more: Any) -> Built:
        (self.context / "Dockerfile").write_text(dockerfile.replace("REG", self.registry.address))
        self.events.clear()
        request = BuildRequest(context=str(self.context), root=self.root, network="none")
        return build(replace(request, **more), self.events.append)

    def asked(self, image: Image) -> list[str]:
        """Layers of an image that were fetched, each as often as it was asked for."""
        own = [str(layer.digest) for layer in image.layers]
        paths = [seen.path for seen in self.registry.seen if seen.method == "GET"]
        return [digest for path in paths for digest in own if path.endswith(f"/blobs/{digest}")]

    def here(self, image: Image) -> list[bool]:
        blobs = Layout.open(self.root).blobs
        return [layer.digest in blobs for layer in image.layers]

    def snapshots(self) -> list[str]:
        return [name for name in os.listdir(f"{self.root}/snapshots") if name.startswith("chain-")]

    def output(self) -> str:
        return b"".join(event.data for event in self.events if isinstance(event, StepLog)).decode()

    def command(self, *args: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        line = [*before, PYBUILD, "--root", self.root, *args]
        env = {"PATH": os.environ["PATH"], "HOME": self.top}
        return subprocess.run(line, capture_output=True, text=True, env=env, timeout=60)


@pytest.fixture
def shop(top: str) -> Iterator[Shop]:
    with serving(Registry()) as registry:
        yield Shop(top, registry)


PUSH = (OutputSpec("registry"),)


def all_of(image: Image) -> list[str]:
    return [str(layer.digest) for layer in image.layers]


# ---- what is fetched ----


def test_a_base_that_is_only_referenced_is_never_downloaded(shop: Shop) -> None:
    base = shop.publish("base:1")
    built = shop.build("FROM REG/base:1\nENV A=1\n", tags=(shop.name("app:1"),), outputs=PUSH)
    assert shop.asked(base) == [] and shop.here(base) == [False] * 4
    assert shop.registry.count("POST", "mount=") == 4 and shop.registry.received() < 3000
    assert built.descriptor and str(built.descriptor.digest) == shop.registry.tags[("app", "1")]
    mounted = [e.what for e in shop.events if isinstance(e, Transfer) and "(mounted)" in e.what]
    assert len(mounted) == 4
    assert [e.message for e in shop.events if isinstance(e, Exported)] == [
        f"pushed {shop.name('app:1')}@{built.descriptor.digest}",
        f"naming to {shop.name('app:1')}",
    ]


def test_between_registries_layers_are_streamed_and_not_kept(shop: Shop) -> None:
    base = shop.publish("base:1")
    with serving(Registry()) as other:
        tag = f"{other.address}/app:1"
        shop.build("FROM REG/base:1\nLABEL a=b\n", tags=(tag,), outputs=PUSH)
        assert sorted(shop.asked(base)) == sorted(all_of(base)) and shop.here(base) == [False] * 4
        assert {digest for _, digest in other.blobs} >= set(all_of(base))
        # Now the other registry is known to have them: the next repository there mounts them.
        shop.forget()
        shop.build("FROM REG/base:1\nLABEL a=c\n", tags=(f"{other.address}/app2:1",), outputs=PUSH)
        assert shop.registry.seen == [] and other.count("POST", "mount=.*from=") == 4


def test_a_run_fetches_each_layer_once(shop: Shop) -> None:
    base = shop.publish("base:1")
    shop.build(
        "FROM REG/base:1 AS a\nRUN cat file0 > /a\n"
        "FROM REG/base:1 AS b\nRUN cat file1 > /b\n"
        "FROM REG/base:1\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=REG/base:1 /file2 /c\n"
        "RUN cat /a /b /c | ls -l /a\n".replace("REG", shop.registry.address)
    )
    assert sorted(shop.asked(base)) == sorted(all_of(base))
    assert shop.registry.count("GET", "/manifests/") == 1
    moved = [event for event in shop.events if isinstance(event, Transfer) and event.id.startswith("pulling")]
    done = {event.id: event for event in moved if event.done}
    assert sorted(event.total for event in done.values()) == sorted(layer.size for layer in base.layers)
    assert all(event.current == event.total for event in done.values())


def test_a_linked_copy_needs_no_base(shop: Shop) -> None:
    base = shop.publish("base:1")
    (shop.context / "x").write_text("x")
    shop.build("FROM REG/base:1\nCOPY --link x /x\n", tags=(shop.name("app:1"),), outputs=PUSH)
    assert shop.asked(base) == []


def test_without_a_push_the_base_is_made_whole(shop: Shop) -> None:
    base = shop.publish("base:1")
    shop.build("FROM REG/base:1\nENV A=1\n", tags=("app",))
    assert shop.here(base) == [True] * 4
    shop.forget()
    assert shop.command("validate", "app").returncode == 0 and not shop.registry.seen


@pytest.mark.parametrize("kind", ["oci", "docker", "tar"])
def test_outputs_have_all_of_it(shop: Shop, kind: str) -> None:
    base = shop.publish("base:1")
    out = f"{shop.top}/out.tar"
    shop.build("FROM REG/base:1\nENV A=1\n", outputs=(OutputSpec(kind, out),))
    with tarfile.open(out) as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
    assert (
        ("file2" in names)
        if kind == "tar"
        else all(f"blobs/sha256/{layer.digest.hex}" in names for layer in base.layers)
    )


def test_who_needs_the_layers_of_a_sparse_image_fetches_them(shop: Shop) -> None:
    base = shop.publish("base:1", 1)
    tag = shop.name("app:1")

    def sparse() -> None:
        subprocess.run(["rm", "-rf", shop.root], check=True)
        shop.build("FROM REG/base:1\nENV A=1\n", tags=(tag,), outputs=PUSH)
        assert shop.here(base) == [False] * 2
        shop.forget()

    for args in (
        ("run", "--network", "none", tag, "cat", "/file0"),
        ("save", "-o", f"{shop.top}/saved.tar", tag),
        ("export", "-o", f"{shop.top}/root.tar", tag),
        ("validate", tag),
        ("copy", f"store:{tag}", f"oci:{shop.top}/layout:1"),
    ):
        sparse()
        done = shop.command(*args)
        assert done.returncode == 0, (args, done.stderr)
        assert sorted(shop.asked(base)) == sorted(all_of(base)), args
    sparse()
    shop.build(f"FROM {tag}\nRUN cat /file0\n")
    assert sorted(shop.asked(base)) == sorted(all_of(base)) and "base:1 0" in shop.output()


def test_a_sparse_image_without_its_origin_says_so(shop: Shop) -> None:
    shop.publish("base:1", 0)
    tag = shop.name("app:1")
    shop.build("FROM REG/base:1\nENV A=1\n", tags=(tag,), outputs=PUSH)
    shop.registry.blobs.clear()
    done = shop.command("save", "-o", f"{shop.top}/x.tar", tag)
    assert done.returncode == 3 and "BLOB_UNKNOWN" in done.stderr and not os.path.exists(f"{shop.top}/x.tar")


# ---- how it is fetched ----


def together(count: int, seconds: float = 10.0) -> Callable[[Handler], bool]:
    """A hook that lets blobs go only when `count` are asked for at the same time."""
    gate = threading.Barrier(count, timeout=seconds)

    def hook(handler: Handler) -> bool:
        if "/blobs/sha256" in handler.path and handler.command == "GET":
            gate.wait()
        return False

    return hook


def test_layers_arrive_in_parallel(shop: Shop) -> None:
    shop.publish("base:1", 3)
    shop.build("FROM REG/base:1\nENV A=1\n", outputs=(OutputSpec("cacheonly"),))  # the config is no layer
    shop.registry.hooks.append(together(4))
    shop.build("FROM REG/base:1\nRUN cat file2\n")
    assert "base:1 2" in shop.output()


def test_a_layer_is_unpacked_while_those_above_arrive(shop: Shop) -> None:
    base = shop.publish("base:1", 1)
    shop.build("FROM REG/base:1\nENV A=1\n", outputs=(OutputSpec("cacheonly"),))
    first = f"chain-{base.config.value.diff_ids[0].hex}"

    def hook(handler: Handler) -> bool:
        if handler.path.endswith(str(base.layers[1].digest)):
            deadline = time.monotonic() + 60
            while not os.path.isdir(f"{shop.root}/snapshots/{first}"):
                assert time.monotonic() < deadline, "the layer below waits for this one"
                time.sleep(0.01)
        return False

    shop.registry.hooks.append(hook)
    shop.build("FROM REG/base:1\nRUN cat file0\n")


def test_pull_may_unpack(shop: Shop) -> None:
    """A RUN after it finds the layers' directories and fetches nothing; a layer that lies leaves none."""
    image = shop.publish("base:1")
    assert shop.command("pull", "--unpack", shop.name("base:1")).returncode == 0
    unpacked = {name: os.stat(f"{shop.root}/snapshots/{name}/fs").st_ino for name in shop.snapshots()}
    assert len(unpacked) == len(image.layers)
    shop.forget()
    shop.build("FROM REG/base:1\nRUN cat file2\n")
    assert "base:1 2" in shop.output() and not shop.asked(image)
    after = {name: os.stat(f"{shop.root}/snapshots/{name}/fs").st_ino for name in shop.snapshots()}
    assert unpacked.items() <= after.items()
    done = shop.command("pull", "--unpack", "--all-platforms", shop.name("base:1"))
    assert done.returncode == 2 and "one platform" in done.stderr


def test_an_output_may_unpack(shop: Shop) -> None:
    """With `unpack=true` also what is pushed, whose base was not needed here; a RUN on it unpacks nothing."""
    image = shop.publish("base:1", 1)
    name = shop.name("app:1")
    for text, count in (
        (f"type=image,name={name}", 0),
        (f"type=registry,name={name},unpack=true", 0),
        (f"type=image,name={name},push=true,unpack=true", len(image.layers) + 1),
    ):
        shop.build(
            "FROM REG/base:1\nCOPY --link Dockerfile /made\nENV A=1\n", outputs=(OutputSpec.parse(text),)
        )
        assert len(shop.snapshots()) == count, text
    unpacked = set(shop.snapshots())
    shop.build("FROM REG/app:1\nRUN cat made file0\n")
    assert "base:1 0" in shop.output() and set(shop.snapshots()) == unpacked


def test_forty_layers(shop: Shop) -> None:
    base = shop.publish("base:1", 39)
    shop.build("FROM REG/base:1\nRUN cat file0 file38\n")
    assert "base:1 38" in shop.output() and sorted(shop.asked(base)) == sorted(all_of(base))


def test_a_failure_names_the_line_and_the_next_build_goes_on(shop: Shop) -> None:
    base = shop.publish("base:1", 3)
    bad = str(base.layers[2].digest)

    def refuse(handler: Handler) -> bool:
        if handler.path.endswith(bad):
            handler.refuse(403, "DENIED", "not this one")
            return True
        return False

    shop.registry.hooks.append(refuse)
    with pytest.raises(RegistryFailed, match="not this one") as caught:
        shop.build("FROM REG/base:1\nRUN cat file2\n")
    assert caught.value.exit_code == 4 and str(caught.value.at) == "Dockerfile:2"
    shop.registry.hooks.clear()
    shop.forget()
    shop.build("FROM REG/base:1\nRUN cat file2\n")
    assert bad in shop.asked(base) and all_of(base)[0] not in shop.asked(base)


def test_a_config_that_lies_about_its_layers_poisons_nothing(shop: Shop) -> None:
    """S70. S83: unpacked layers are known by diffIDs, so a stranger's must be true."""
    honest = shop.publish("base:1", 1)
    evil = [packed({}, busybox=True), (packed({"file0": b"evil\n"})[0], honest.config.value.diff_ids[1])]
    shop.push("evil:1", image_of(shop.elsewhere, evil).descriptor)
    for run in (
        lambda: shop.build("FROM REG/evil:1\nRUN cat file0\n"),
        lambda: shop.command("run", "--network", "none", shop.name("evil:1"), "cat", "/file0"),
    ):
        try:
            done = run()
            assert done.returncode == 125 and "its image's config says" in done.stderr
        except DigestMismatch:
            pass
    shop.build("FROM REG/base:1\nRUN cat file0\n")
    assert "base:1 0" in shop.output() and "evil" not in shop.output()


def stall(moments: list[float]) -> Callable[[Handler], bool]:
    """A hook that begins to send a blob and then nothing more."""

    def hook(handler: Handler) -> bool:
        name, _, digest = handler.path.removeprefix("/v2/").partition("/blobs/")
        if not digest or handler.command != "GET":
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(handler.registry.blobs[(name, digest)])))
        handler.end_headers()
        handler.wfile.write(b"x")
        handler.wfile.flush()
        moments.append(time.monotonic())
        with suppress(OSError):  # until the other side is gone
            handler.connection.settimeout(200)
            handler.connection.recv(1)
        return True

    return hook


def test_ctrl_c_ends_a_download(shop: Shop) -> None:
    shop.publish("base:1", 1)
    shop.build("FROM REG/base:1\nENV A=1\n", outputs=(OutputSpec("cacheonly"),))
    moments: list[float] = []
    shop.registry.hooks.append(stall(moments))
    (shop.context / "Dockerfile").write_text(f"FROM {shop.name('base:1')}\nRUN cat file0\n")
    process = subprocess.Popen(
        [PYBUILD, "--root", shop.root, str(shop.context)], stderr=subprocess.PIPE, text=True
    )
    while not moments:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and time.monotonic() - began < 60, err


def test_a_failing_step_ends_the_downloads_of_others(shop: Shop) -> None:
    shop.publish("small:1", 0)
    shop.publish("slow:1", 1)
    shop.build("FROM REG/small:1\nRUN true\n")
    shop.build("FROM REG/slow:1\nENV A=1\n", outputs=(OutputSpec("cacheonly"),))
    moments: list[float] = []
    shop.registry.hooks.append(stall(moments))
    began = time.monotonic()
    with pytest.raises(Exception, match="exited with 1"):
        shop.build(
            "FROM REG/slow:1 AS a\nRUN cat file0\nFROM REG/small:1\nRUN ls /no\nCOPY --from=a /file0 /\n"
        )
    assert moments and time.monotonic() - began < 60


def test_cancelled_registries_ask_no_more(shop: Shop) -> None:
    shop.publish("base:1", 0)
    with StateDir(shop.root) as state, Registries(Access(), Images(state), shop.events.append) as registries:
        registries.cancel()
        with pytest.raises(BuildCancelled):
            registries.image(Reference.parse(shop.name("base:1")), host())
    assert not shop.registry.seen


# ---- when it is asked ----


def test_a_cached_build_asks_nobody(shop: Shop) -> None:
    shop.publish("base:1")
    dockerfile = "FROM REG/base:1\nRUN cat file0 > /x\nENV A=1\n"
    first = shop.build(dockerfile, tags=("app",))
    shop.forget()
    assert shop.build(dockerfile, tags=("app",)).image_id == first.image_id
    assert shop.build(dockerfile, access=Access(offline=True)).image_id == first.image_id
    assert not shop.registry.seen
    # Where there is no network at all, not even a loopback that is up.
    done = shop.command(
        "--config",
        "/dev/null",
        "build",
        "-q",
        "--network",
        "none",
        str(shop.context),
        before=("unshare", "-n"),
    )
    assert done.stdout.strip() == str(first.image_id), done.stderr
    assert shop.command(
        "build", "-q", "--offline", "--network", "none", str(shop.context)
    ).stdout.strip() == str(first.image_id)


def test_a_cached_build_loads_nothing_of_the_network(shop: Shop) -> None:
    shop.publish("base:1")
    shop.build("FROM REG/base:1\nRUN cat file0 > /x\n", tags=("app",))
    code = (
        "import sys\nfrom builder.cli import main\n"
        f"code = main.run(['--root', {shop.root!r}, 'build', '-q', '-t', 'app', {str(shop.context)!r}])\n"
        "sys.stderr.write(chr(10).join(sys.modules))\nsys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded = set(done.stderr.split("\n"))
    assert done.returncode == 0
    assert (
        not {"requests", "urllib3", "ssl", "http.client", "oci.registry.client", "oci.registry.auth"} & loaded
    )


def test_offline_names_what_is_missing(shop: Shop) -> None:
    base = shop.publish("base:1")
    offline = Access(offline=True)
    with pytest.raises(NotFound, match=r"base:1.* is not in the store") as caught:
        shop.build("FROM REG/base:1\nENV A=1\n", access=offline)
    assert "--offline" in caught.value.hint and str(caught.value.at) == "Dockerfile:1"
    shop.build("FROM REG/base:1\nENV A=1\n", tags=(shop.name("app:1"),), outputs=PUSH)
    shop.forget()
    for dockerfile in ("FROM REG/base:1\nENV A=1\n", "FROM REG/base:1\nRUN cat file0\n"):
        with pytest.raises(NotFound, match=str(base.layers[0].digest)):
            shop.build(dockerfile, tags=("app",), access=offline)
    with pytest.raises(NotFound, match="is not asked for"):
        shop.build("FROM scratch\nENV A=1\n", tags=(shop.name("x:1"),), outputs=PUSH, access=offline)
    assert not shop.registry.seen
    done = shop.command("build", "--offline", str(shop.context), before=("unshare", "-n"))
    assert done.returncode == 0 and not shop.registry.seen, done.stderr


def test_a_name_is_asked_for_once_and_anew_with_pull(shop: Shop) -> None:
    shop.publish("base:1", 1)
    shop.build("FROM REG/base:1\nRUN cat file0\n")
    newer = image_of(shop.elsewhere, [packed({}, busybox=True), packed({"file0": b"newer\n"})])
    shop.push("base:1", newer.descriptor)
    shop.build("FROM REG/base:1\nRUN cat file0 && true\n")
    assert not shop.registry.seen and "base:1 0" in shop.output()
    shop.build("FROM REG/base:1\nRUN cat file0\n", pull=True)
    assert "newer" in shop.output() and shop.asked(newer) == all_of(newer)[1:]


def test_a_base_by_the_digest_of_its_index(shop: Shop) -> None:
    own = image_of(shop.elsewhere, [packed({}, busybox=True), packed({"who": b"host\n"})])
    other = image_of(shop.elsewhere, [packed({"who": b"arm\n"})], ARM)
    index = index_of((other.descriptor, own.descriptor))
    pointer = shop.elsewhere.put(media_types.OCI_INDEX, index.content)
    shop.push("multi:1", pointer)
    shop.build(f"FROM REG/multi:9@{pointer.digest}\nRUN cat who\n")
    assert "host" in shop.output()
    shop.forget()
    shop.build(f"FROM REG/multi@{pointer.digest}\nRUN cat who && true\n", access=Access(offline=True))
    assert "host" in shop.output() and not shop.registry.seen


def test_another_platform_is_another_question(shop: Shop) -> None:
    own = image_of(shop.elsewhere, [packed({}, busybox=True), packed({"who": b"host\n"})])
    other = image_of(shop.elsewhere, [packed({"who": b"arm\n"})], ARM)
    pointer = shop.elsewhere.put(media_types.OCI_INDEX, index_of((other.descriptor, own.descriptor)).content)
    shop.push("multi:1", pointer)
    outputs = (OutputSpec("tar", f"{shop.top}/root.tar"),)
    for platform, said in (("linux/arm64", b"arm\n"), ("", b"host\n")):
        shop.build("FROM REG/multi:1\nENV A=1\n", platforms=(platform,), outputs=outputs)
        with tarfile.open(f"{shop.top}/root.tar") as tar:
            found = tar.extractfile("who")
            assert found is not None and found.read() == said
    # What was made here is taken as it is, and nobody is asked.
    shop.build("FROM REG/multi:1\nENV A=1\n", platforms=("linux/arm64",), tags=("own",))
    shop.forget()
    shop.build("FROM own\nENV B=1\n")
    assert not shop.registry.seen


def test_two_platforms_of_a_base_are_both_kept(shop: Shop) -> None:
    own = image_of(shop.elsewhere, [packed({}, busybox=True), packed({"who": b"host\n"})])
    other = image_of(shop.elsewhere, [packed({"who": b"arm\n"})], ARM)
    third = image_of(shop.elsewhere, [packed({"who": b"s390\n"})], Platform("linux", "s390x"))
    content = index_of((third.descriptor, other.descriptor, own.descriptor)).content
    pointer = shop.elsewhere.put(media_types.OCI_INDEX, content)
    shop.push("multi:1", pointer)
    text, both = "FROM REG/multi:1\nENV A=1\n", ("linux/arm64", str(host()))
    built = shop.build(text, platforms=both, tags=("app:1",))
    assert built.is_index
    shop.forget()
    assert shop.build(text, platforms=both).image_id == built.image_id
    assert not shop.registry.seen, "the name means both now"
    with StateDir(shop.root) as state:
        images = Images(state)
        names = {str(each): entry for entry in images.entries() for each in entry.names}
        base = names[shop.name("multi:1")]
        assert base.descriptor.digest == pointer.digest and [each.platform for each in base.others] == [ARM]
        assert len(images.entries()) == 2, "nothing lies around without a name"
        assert images.absent(base.descriptor) == (Platform("linux", "s390x"),)
        for image in (base.image, *base.others):  # what strangers wrote is known as theirs
            assert origins.origins(images.layout, image.manifest.digest)
    shop.build(text, platforms=("linux/s390x",))
    shop.forget()
    for platform in (*both, "linux/s390x"):
        shop.build(text, platforms=(platform,), access=Access(offline=True))
    shop.forget()
    shop.build("FROM --platform=$BUILDPLATFORM REG/multi:1\nENV A=1\n", platforms=both, pull=True)
    asked = [each.path for each in shop.registry.seen if each.path.endswith("/manifests/1")]
    assert len(asked) == 1, "a build asks once what a name means for a platform"
    newer = index_of((image_of(shop.elsewhere, [packed({"who": b"new\n"})], ARM).descriptor, own.descriptor))
    shop.push("multi:1", shop.elsewhere.put(media_types.OCI_INDEX, newer.content))
    shop.build(text, platforms=both, pull=True)
    with StateDir(shop.root) as state:
        images = Images(state)
        found = images.find(Reference.parse(shop.name("multi:1")))
        assert found is not None and found.digest == newer.digest


def test_pulls_of_two_platforms_leave_the_index(shop: Shop) -> None:
    own = image_of(shop.elsewhere, [packed({}, busybox=True), packed({"who": b"host\n"})])
    other = image_of(shop.elsewhere, [packed({}, busybox=True), packed({"who": b"arm\n"})], ARM)
    content = index_of((other.descriptor, own.descriptor)).content
    pointer = shop.elsewhere.put(media_types.OCI_INDEX, content)
    shop.push("multi:1", pointer)
    name = shop.name("multi:1")
    assert shop.command("pull", name).returncode == 0
    done = shop.command("run", "--network=none", "--platform", "linux/arm64", name, "cat", "/who")
    assert done.stdout == "arm\n", "a program of this machine: only the image's platform is another"
    done = shop.command("run", "--network=none", name, "cat", "/who")
    assert done.stdout == "host\n" and not done.stderr
    with StateDir(shop.root) as state:
        (entry,) = Images(state).entries()
        assert entry.descriptor.digest == pointer.digest
    assert "up to date" in shop.command("pull", name).stderr


def test_what_is_nowhere(shop: Shop) -> None:
    shop.publish("base:1")
    with pytest.raises(RegistryFailed, match="MANIFEST_UNKNOWN") as caught:
        shop.build("FROM REG/base:2\n")
    assert caught.value.exit_code == 3 and "pybuild tags" in caught.value.hint
    shop.build("FROM REG/base:1\nENV A=1\n", tags=(shop.name("bane:1"),))
    with pytest.raises(RegistryFailed) as caught:
        shop.build("FROM REG/bane:2\n")
    assert f"did you mean {shop.name('bane:1')}" in caught.value.hint
    with pytest.raises(RegistryFailed, match="/bade: ") as caught:
        shop.build("FROM REG/base:1 AS build\nFROM REG/base:1\nCOPY --from=REG/bade:1 /a /\n")
    assert str(caught.value.at) == "Dockerfile:3"
    shop.registry.basic = "me:secret"
    with pytest.raises(RegistryFailed) as caught:
        shop.build("FROM REG/other:2\n")
    assert caught.value.exit_code == 4 and f"pybuild login {shop.registry.address}" in caught.value.hint


def test_mirrors_and_their_configuration(shop: Shop) -> None:
    shop.publish("hub/library/tool:1", 0)
    config = Path(shop.top, "config.toml")
    config.write_text(
        f'[registry."docker.io"]\nmirrors = ["{shop.registry.address}/hub"]\nfallback = false\n'
    )
    shop.build("FROM tool:1\nENV A=1\n", tags=("app",), access=Access(config=str(config)))
    told = [event.message for event in shop.events if isinstance(event, Warning_)]
    assert len(told) == 1 and "according to the mirror" in told[0]
    done = shop.command("--config", str(config), "pull", "tool:2")
    assert done.returncode == 3 and "mirror of docker.io" in done.stderr


# ---- what is pushed ----


def test_outputs_that_push(shop: Shop) -> None:
    for text, repository, tags in (
        ("type=registry,name=REG/a:1", "a", {"1"}),
        ("type=image,push=true,name=REG/b", "b", {"latest"}),
        ("type=image,name=REG/c,push-by-digest=true,name-canonical=true", "c", set()),
        ('type=image,push=true,"name=REG/d:1,REG/d:2"', "d", {"1", "2"}),
        ("type=image,name=REG/e:1", "", set()),
    ):
        spec = OutputSpec.parse(text.replace("REG", shop.registry.address))
        built = shop.build(f"FROM scratch\nENV A={repository}\n", outputs=(spec,))
        assert built.descriptor is not None
        named = {name.removeprefix(f"{shop.registry.address}/{repository or 'e'}") for name in built.names}
        assert named == ({f":{tag}" for tag in tags} or {"" if repository else ":1"}), text
        found = {tag for name, tag in shop.registry.tags if name == repository}
        assert found == tags, text
        assert ((repository, str(built.descriptor.digest)) in shop.registry.manifests) == bool(repository)
    with StateDir(shop.root) as state:
        known = {name.familiar().rpartition("/")[2] for e in Images(state).entries() for name in e.names}
    assert known >= {"b:latest", "d:1", "d:2", "e:1"} and "a:1" not in known
    assert any(name.startswith("c@sha256:") for name in known)


def test_a_push_in_another_compression(shop: Shop) -> None:
    base = shop.publish("base:1", 1)
    (shop.context / "x").write_text("x" * 5000)
    spec = OutputSpec("registry", options={"compression": "zstd"})
    built = shop.build("FROM REG/base:1\nCOPY --link x /\n", tags=(shop.name("app:1"),), outputs=(spec,))
    assert built.descriptor and str(built.descriptor.digest) == shop.registry.tags[("app", "1")]
    content = shop.registry.manifests[("app", shop.registry.tags[("app", "1")])][1].decode()
    assert content.count("tar+gzip") == 2 and content.count("tar+zstd") == 1 and shop.asked(base) == []
    forced = replace(spec, options={"compression": "zstd", "force-compression": "true"})
    shop.build("FROM REG/base:1\nCOPY --link x /\n", tags=(shop.name("app:2"),), outputs=(forced,))
    content = shop.registry.manifests[("app", shop.registry.tags[("app", "2")])][1].decode()
    assert content.count("tar+zstd") == 3


def test_the_push_option(shop: Shop) -> None:
    (shop.context / "Dockerfile").write_text("FROM scratch\nENV A=1\n")
    done = shop.command("build", "--push", "-t", shop.name("a:1"), str(shop.context))
    assert done.returncode == 0 and ("a", "1") in shop.registry.tags
    image = f"type=image,name={shop.name('b:1')}"
    done = shop.command("build", "--push", "-o", image, str(shop.context))
    assert done.returncode == 0 and ("b", "1") in shop.registry.tags, done.stderr
    done = shop.command("build", "--pull", "--offline", str(shop.context))
    assert done.returncode == 2 and "cannot both be" in done.stderr
    shop.registry.basic = "me:secret"
    done = shop.command("build", "--push", "-t", shop.name("a:2"), str(shop.context))
    assert done.returncode == 4 and "pybuild login" in done.stderr


def test_nothing_is_named_when_the_push_fails(shop: Shop) -> None:
    shop.registry.hooks.append(lambda handler: handler.command == "PUT" and not handler.refuse(403, "DENIED"))
    with pytest.raises(RegistryFailed, match="DENIED"):
        shop.build("FROM scratch\nENV A=1\n", tags=(shop.name("a:1"),), outputs=PUSH)
    with StateDir(shop.root) as state:
        assert not Images(state).entries()


def test_an_output_without_a_name_is_refused_first(shop: Shop) -> None:
    with pytest.raises(UsageError, match="no name to push to"):
        shop.build("FROM REG/base:1\n", outputs=PUSH)
    assert not shop.registry.seen


# ---- killed ----


def test_killed_while_its_base_arrives(shop: Shop) -> None:
    """The next build takes up what is there; the store is sound, and nothing partial is visible."""
    layers = [packed({}, busybox=True)]
    for n in range(3):
        content = hashlib.shake_256(bytes([n])).digest(3_000_000)
        layers.append(packed({f"file{n}": content}))
    base = image_of(shop.elsewhere, layers)
    shop.push("base:1", base.descriptor)

    def slow(handler: Handler) -> bool:
        digest = handler.path.rpartition("/")[2]
        data = shop.registry.blobs.get(("base", digest))
        if handler.command != "GET" or data is None or len(data) < 100_000:
            return False
        start = int(handler.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(data) - start))
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        for at in range(start, len(data), 100_000):
            handler.wfile.write(data[at : at + 100_000])
            time.sleep(0.002)
        return True

    shop.registry.hooks.append(slow)
    (shop.context / "Dockerfile").write_text(f"FROM {shop.name('base:1')}\nRUN ls -l /file0 /file1 /file2\n")
    for wait in (0.25, 0.4, 0.5, 0.6):
        process = subprocess.Popen(
            [PYBUILD, "--root", shop.root, "build", "-q", str(shop.context)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(wait)
        process.kill()
        process.wait()
    shop.registry.hooks.clear()
    shop.build(f"FROM {shop.name('base:1')}\nRUN ls -l /file0 /file1 /file2\n", tags=("app",))
    assert shop.output().count("3000000") == 3
    blobs = Layout.open(shop.root).blobs
    for digest in blobs:
        blobs.verify(digest)
    assert main.run(["--root", shop.root, "validate", "-q", "app"]) == 0
