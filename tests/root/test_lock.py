"""Locks: what is written down, and what a locked build takes and refuses (D22)."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sites import Repository, Site, git_daemon, site
from small_registry import Registry, serving

from builder import BuildRequest, Built, build
from builder.cli import main
from builder.errors import FetchFailed, NotFound, RegistryFailed, UsageError
from builder.events import Event, Note
from builder.export.base import OutputSpec
from builder.images import Images
from builder.lock import Lock
from builder.locking import Locking, lock
from builder.origins import ROOT
from builder.registries import Access
from builder.state import StateDir
from oci import media_types, platforms
from oci.blobs import BlobStore
from oci.image import Image, index_of
from oci.layout import Layout
from oci.model import Descriptor, History, ImageConfig, Platform
from oci.reference import Reference
from oci.registry.client import Client

pytestmark = pytest.mark.root

ARM = Platform("linux", "arm64")


def image_of(store: BlobStore, text: str, platform: Platform) -> Image:
    """An image with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text.encode()))
    layer = store.put(media_types.OCI_LAYER, out.getvalue())
    image = Image.of(ImageConfig(platform, diff_ids=(layer.digest,), history=(History(),)), (layer,))
    image.write(store)
    return image


class Shop:
    """A registry, a web site and a git daemon, a store that knows none of them, and a context."""

    def __init__(self, top: Path, registry: Registry, web: Site, git: str) -> None:
        self.top = top
        self.registry = registry
        self.web = web
        self.git = git
        self.root = str(top / "store")
        self.context = top / "context"
        self.context.mkdir()
        self.repository = Repository(top / "git", "app.git")
        self.elsewhere = Layout.create(str(top / "elsewhere")).blobs

    def name(self, rest: str) -> str:
        return f"{self.registry.address}/{rest}"

    def push(self, name: str, descriptor: Descriptor) -> None:
        with Client() as client:
            client.push(self.elsewhere, descriptor, [Reference.parse(self.name(name))])
        self.registry.seen.clear()

    def publish(self, name: str, seed: int) -> Descriptor:
        """An index of two platforms in the registry."""
        parts = [image_of(self.elsewhere, f"{seed} {each}", each) for each in BOTH]
        content = index_of(tuple(each.descriptor for each in parts)).content
        pointer = self.elsewhere.put(media_types.OCI_INDEX, content)
        self.push(name, pointer)
        return pointer

    def request(self, dockerfile: str, **more: Any) -> BuildRequest:
        text = dockerfile.replace("REG", self.registry.address).replace("WEB", f"http://{self.web.address}")
        (self.context / "Dockerfile").write_text(text.replace("GIT", f"git://{self.git}"))
        return replace(BuildRequest(context=str(self.context), root=self.root, network="none"), **more)

    def lock(self, dockerfile: str, *, update: bool = False, **more: Any) -> Locking:
        found = lock(self.request(dockerfile, **more), update=update)
        found.write()
        return found

    def build(self, dockerfile: str, **more: Any) -> Built:
        return build(self.request(dockerfile, **{"locked": True, **more}))

    @property
    def file(self) -> Path:
        return self.context / "Dockerfile.lock"

    def document(self) -> dict[str, Any]:
        return tomllib.loads(self.file.read_text())

    def image(self, built: Built) -> Image:
        with StateDir(self.root) as state:
            assert built.descriptor is not None
            return Image.load(Images(state).layout.blobs, built.descriptor)


BOTH = (platforms.host(), ARM if platforms.host() != ARM else Platform("linux", "amd64"))
ALL = "FROM REG/base:1\nADD WEB/tool.bin /tool\nADD GIT/app.git#v1 /app\nCOPY --from=REG/other:2 / /other\n"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "git").mkdir()
    with serving(Registry()) as registry, site() as web, git_daemon(tmp_path / "git") as git:
        made = Shop(tmp_path, registry, web, git)
        web.files["tool.bin"] = b"first"
        made.repository.commit({"f": "one"})
        made.repository.git("branch", "v1")
        yield made


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_everything_is_written_down(shop: Shop) -> None:
    base, other = shop.publish("base:1", 1), shop.publish("other:2", 3)
    found = shop.lock(ALL)
    assert found.before is None and found.path == str(shop.file)
    commit = shop.repository.git("rev-parse", "v1")
    assert shop.document() == {
        "version": 1,
        "images": {shop.name("base:1"): str(base.digest), shop.name("other:2"): str(other.digest)},
        "urls": {shop.web.url("tool.bin"): digest(b"first")},
        "git": {f"git://{shop.git}/app.git#v1": commit},
    }, "of an index its own digest: that serves every platform"
    text = shop.file.read_text()
    assert text.startswith("# ") and "pybuild lock --update" in text
    before = shop.file.stat()
    again = shop.lock(ALL)
    assert again.is_current and not list(again.changes()) and shop.file.stat() == before


def test_a_locked_build_takes_what_was_written_down(shop: Shop) -> None:
    shop.publish("base:1", 1), shop.publish("other:2", 3)
    shop.lock(ALL)
    out = shop.top / "root.tar"
    outputs = (OutputSpec("tar", str(out)),)
    first = shop.build(ALL, outputs=outputs, tags=("x",))
    shop.publish("base:1", 10)
    shop.repository.git("checkout", "-q", "v1")
    shop.repository.commit({"f": "two"})
    again = shop.build(ALL, outputs=outputs, pull=True, no_cache=True, tags=("x",))
    assert shop.image(again).config.value.diff_ids[0] == shop.image(first).config.value.diff_ids[0]
    with tarfile.open(out) as tar:
        content = tar.extractfile("app/f")
        assert content is not None and content.read() == b"one"
    free = shop.build(ALL, locked=False, pull=True, tags=("x",))
    assert shop.image(free).config.value.diff_ids[0] != shop.image(first).config.value.diff_ids[0]


def test_a_lock_serves_the_other_platform(shop: Shop) -> None:
    shop.publish("base:1", 1)
    text = "FROM REG/base:1\nENV A=1\n"
    shop.lock(text)
    shop.publish("base:1", 10)
    built = shop.build(text, platforms=tuple(str(each) for each in BOTH), tags=("x",))
    assert built.is_index
    one = build(replace(shop.request(text), platforms=(str(BOTH[1]),), locked=True))
    assert shop.image(one).platform == BOTH[1]


def test_a_locked_build_asks_nobody_what_it_has(shop: Shop) -> None:
    shop.publish("base:1", 1)
    text = "FROM REG/base:1\nADD WEB/tool.bin /\n"
    shop.lock(text)
    shop.build(text)
    shop.registry.seen.clear(), shop.web.seen.clear()
    shop.build(text, access=Access(offline=True))
    assert not shop.registry.seen and not shop.web.seen


def test_steps_are_the_same_with_a_lock_and_without(shop: Shop) -> None:
    shop.publish("base:1", 1)
    text = "FROM REG/base:1\nADD WEB/tool.bin /\nCOPY --from=REG/base:1 / /x\n"
    shop.lock(text)
    free = shop.build(text, locked=False)
    assert shop.build(text).image_id == free.image_id


@pytest.mark.parametrize(
    ("line", "missing", "at"),
    [
        ("FROM REG/base:2", "REG/base:2", 1),
        ("FROM REG/base:1\nCOPY --from=REG/other:9 / /", "REG/other:9", 2),
        ("FROM REG/base:1\nADD WEB/new.bin /", "WEB/new.bin", 2),
        ("FROM REG/base:1\nADD GIT/app.git#v2 /", "GIT/app.git#v2", 2),
    ],
)
def test_what_is_not_in_the_lock(shop: Shop, line: str, missing: str, at: int) -> None:
    shop.publish("base:1", 1)
    shop.lock("FROM REG/base:1\n")
    with pytest.raises(UsageError, match=r"is not in Dockerfile\.lock") as caught:
        shop.build(f"{line}\n")
    name = missing.replace("REG", shop.registry.address).replace("WEB", f"http://{shop.web.address}")
    assert name.replace("GIT", f"git://{shop.git}") in str(caught.value)
    assert str(caught.value.at) == f"Dockerfile:{at}" and "pybuild lock" in caught.value.hint


def test_what_has_changed_is_told_with_both_values(shop: Shop) -> None:
    text = "FROM scratch\nADD WEB/tool.bin /\n"
    shop.lock(text)
    shop.web.files["tool.bin"] = b"second"
    (shop.top / "store").rename(shop.top / "gone")
    with pytest.raises(FetchFailed) as caught:
        shop.build(text)
    assert digest(b"first") in str(caught.value) and digest(b"second") in str(caught.value)
    assert str(caught.value.at) == "Dockerfile:2" and "pybuild lock --update" in caught.value.hint


def test_what_is_gone_is_told_with_the_lock(shop: Shop) -> None:
    pointer = shop.publish("base:1", 1)
    shop.lock("FROM REG/base:1\n")
    (shop.top / "store").rename(shop.top / "gone")
    text = shop.file.read_text().replace(str(pointer.digest), digest(b"nothing"))
    shop.file.write_text(text)
    with pytest.raises(RegistryFailed) as caught:
        shop.build("FROM REG/base:1\n")
    assert (
        digest(b"nothing") in str(caught.value) and "Dockerfile.lock wants exactly this" in caught.value.hint
    )
    assert str(caught.value.at) == "Dockerfile:1"


def test_what_is_kept_added_dropped_and_updated(shop: Shop) -> None:
    old = shop.publish("base:1", 1)
    shop.lock("FROM REG/base:1\nADD WEB/tool.bin /\n")
    shop.web.files["other"] = b"o"
    new = shop.publish("base:1", 10)
    text = "FROM REG/base:1\nADD WEB/other /\n"
    found = shop.lock(text)
    assert shop.document()["images"] == {shop.name("base:1"): str(old.digest)}
    assert list(found.changes()) == [
        (shop.web.url("other"), "", digest(b"o")),
        (shop.web.url("tool.bin"), digest(b"first"), ""),
    ]
    found = shop.lock(text, update=True)
    assert list(found.changes()) == [(shop.name("base:1"), str(old.digest), str(new.digest))]
    assert shop.document()["images"] == {shop.name("base:1"): str(new.digest)}


def test_all_stages_and_platforms_are_locked(shop: Shop) -> None:
    for name in (str(each.architecture) for each in BOTH):
        shop.web.files[name] = name.encode()
    shop.publish("unused:1", 1)
    text = "FROM REG/unused:1 AS test\nFROM scratch\nARG TARGETARCH\nADD WEB/$TARGETARCH /\n"
    shop.lock(text, platforms=tuple(str(each) for each in BOTH))
    document = shop.document()
    assert list(document["images"]) == [shop.name("unused:1")]
    assert sorted(document["urls"].values()) == sorted(digest(each.architecture.encode()) for each in BOTH)


def test_what_the_dockerfile_pins_is_not_locked(shop: Shop) -> None:
    pointer = shop.publish("base:1", 1)
    commit = shop.repository.git("rev-parse", "v1")
    text = (
        f"FROM REG/base:1@{pointer.digest}\nADD --checksum={digest(b'first')} WEB/tool.bin /\n"
        f"ADD GIT/app.git#{commit} /app\n"
    )
    shop.lock(text)
    assert shop.document() == {"version": 1, "images": {}, "urls": {}, "git": {}}
    shop.build(text)


def test_an_image_of_the_store_alone(shop: Shop) -> None:
    (shop.context / "a").write_text("a")
    made = build(shop.request("FROM scratch\nCOPY a /\n", tags=("mine",)))
    assert made.descriptor is not None
    shop.lock("FROM mine\n")
    assert shop.document()["images"] == {"docker.io/library/mine:latest": str(made.descriptor.digest)}
    shop.build("FROM mine\n", access=Access(offline=True))
    build(shop.request("FROM scratch\nCOPY a /b\n", tags=("mine",)))
    shop.build("FROM mine\n", access=Access(offline=True))  # it has no name any more, and is still that
    with StateDir(shop.root) as state:
        Images(state).remove(str(made.image_id))
    with pytest.raises(NotFound, match=str(made.descriptor.digest)):
        shop.build("FROM mine\n", access=Access(offline=True))


def test_an_image_that_was_pushed_is_told_as_no_secret_of_this_store(shop: Shop) -> None:
    (shop.context / "a").write_text("a")
    events: list[Event] = []
    for outputs, notes in (((), 1), ((OutputSpec("registry"),), 0)):
        text = "FROM scratch\nCOPY a /\n"
        made = build(shop.request(text, tags=(shop.name("mine:1"),), outputs=outputs))
        events.clear()
        found = lock(shop.request("FROM REG/mine:1\n"), events.append)
        assert made.descriptor and found.after.images[shop.name("mine:1")] == str(made.descriptor.digest)
        assert len([event for event in events if isinstance(event, Note)]) == notes


def test_offline_only_what_is_known_for_sure(shop: Shop) -> None:
    pointer = shop.publish("base:1", 1)
    text = "FROM REG/base:1\n"
    build(shop.request(text))
    offline = Access(offline=True)
    shop.lock(text, access=offline)
    assert shop.document()["images"][shop.name("base:1")] == str(pointer.digest)
    with StateDir(shop.root) as state:
        images = Images(state)
        with images.layout.editing() as names:  # as versions wrote it that did not remember the index
            names.entries = [
                replace(each, annotations={k: v for k, v in each.annotations.items() if k != ROOT})
                for each in names.entries
            ]
    shop.file.unlink()
    with pytest.raises(UsageError, match="not its index") as caught:
        shop.lock(text, access=offline)
    assert str(caught.value.at) == "Dockerfile:1"


def test_secrets_do_not_get_into_a_lock(shop: Shop) -> None:
    """SECURITY.md S66."""
    text = f"FROM scratch\nADD http://me:hidden@{shop.web.address}/tool.bin?token=canary /\n"
    shop.lock(text)
    assert "hidden" not in shop.file.read_text() and "canary" not in shop.file.read_text()
    shop.build(text)
    with pytest.raises(UsageError, match=r"not in Dockerfile\.lock"):
        shop.build(text.replace("canary", "another"))


def test_there_is_no_lock(shop: Shop) -> None:
    with pytest.raises(UsageError, match=r"there is no .*/Dockerfile\.lock"):
        shop.build("FROM scratch\nADD WEB/tool.bin /\n")
    with pytest.raises(UsageError, match="beside its Dockerfile"):
        build(
            BuildRequest(
                context=str(shop.context),
                root=shop.root,
                locked=True,
                dockerfile="-",
                dockerfile_text=b"FROM scratch\nADD http://127.0.0.1:1/x /\n",
            )
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version = 2\n", "its version is 2"),
        ("images = 3\nversion = 1\n", "images is no table"),
        ("version = 1\n[images]\na = 'sha256:1'\n", "which is not a digest"),
        ("version = 1\n[git]\na = 'main'\n", "which is not a commit"),
        ("version = 1\n[other]\n", "no table 'other'"),
        ("version = \n", "line 1"),
    ],
)
def test_locks_that_cannot_be_understood(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Lock.parse(text, "Dockerfile.lock")


def test_what_is_written_is_read(shop: Shop) -> None:
    made = Lock({'b"\\': digest(b"1"), "a": digest(b"2")}, {"u\u00e9": digest(b"3")}, {"g": "a" * 40})
    assert Lock.parse(made.text(), "x") == made
    assert made.text().index('"a"') < made.text().index('"b')


def test_the_command(shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    shop.publish("base:1", 1)
    shop.request("FROM REG/base:1\n")

    def run(*args: str) -> tuple[int, str]:
        capfd.readouterr()
        code = main.run(["--root", shop.root, "lock", *args, str(shop.context)])
        return code, capfd.readouterr().err

    assert run("--check")[0] == 1 and not shop.file.exists()
    code, said = run()
    assert code == 0 and f"+ {shop.name('base:1')} sha256:" in said and "is written" in said
    assert run("--check", "-q") == (0, "")
    shop.request("FROM scratch\n")
    code, said = run("--check")
    assert code == 1 and f"- {shop.name('base:1')} sha256:" in said and "is out of date" in said
    assert run("--update", "--check")[0] == 2


def test_named_contexts_are_locked(shop: Shop) -> None:
    contexts = {
        "app": f"git://{shop.git}/app.git#v1",
        "tool": shop.web.url("tool.bin"),
        "image": f"docker-image://{shop.name('base:1')}",
    }
    pointer = shop.publish("base:1", 1)
    text = "FROM image\nCOPY --from=app f /f\nCOPY --from=tool tool.bin /tool\n"
    out = shop.top / "root.tar"
    more = {"contexts": contexts, "outputs": (OutputSpec("tar", str(out)),)}
    with pytest.raises(UsageError, match=r"there is no .*Dockerfile\.lock"):
        shop.build(text, **more)
    shop.lock(text, contexts=contexts)
    assert shop.document() == {
        "version": 1,
        "images": {shop.name("base:1"): str(pointer.digest)},
        "urls": {contexts["tool"]: digest(b"first")},
        "git": {contexts["app"]: shop.repository.git("rev-parse", "v1")},
    }
    shop.repository.git("checkout", "-q", "v1")
    shop.repository.commit({"f": "two"})
    shop.build(text, **more)
    with tarfile.open(out) as tar:
        content = tar.extractfile("f")
        assert content is not None and content.read() == b"one"
    shop.web.files["tool.bin"] = b"second"
    (shop.top / "store").rename(shop.top / "gone")
    with pytest.raises(FetchFailed, match=digest(b"first")) as caught:
        shop.build(text, **more)
    assert "pybuild lock --update" in caught.value.hint
    with pytest.raises(UsageError, match=r"app\.git#v2 is not in Dockerfile\.lock"):
        shop.build(text, contexts=contexts | {"app": f"git://{shop.git}/app.git#v2"})
