"""Whole builds whose contexts come from elsewhere, and what a layer of COPY depends on."""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from sites import Repository, git_daemon, site

from builder import BuildRequest, Built, build
from builder.errors import BuildError, UsageError
from builder.events import Event, Note, StepDone, StepStarted, Warning_
from builder.export.base import OutputSpec
from builder.finishing import Annotation, Finish
from builder.images import Images
from builder.solver.cache import at_clock
from builder.state import StateDir
from oci.image import Image

pytestmark = pytest.mark.root


class Shop:
    """A store, and a way to build in it."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.root = str(top / "store")
        self.events: list[Event] = []

    def build(self, context: str, **more: object) -> Built:
        self.events.clear()
        request = BuildRequest(context=context, root=self.root, network="none")
        return build(replace(request, **more), self.events.append)  # type: ignore[arg-type]

    def lines(self, text: str, **more: object) -> Built:
        """A Dockerfile's lines in a directory context."""
        where = self.top / "context"
        where.mkdir(exist_ok=True)
        return self.build(str(where), dockerfile="-", dockerfile_text=text.encode(), **more)

    def ran(self) -> list[str]:
        names = {event.digest: event.name for event in self.events if isinstance(event, StepStarted)}
        done = [event for event in self.events if isinstance(event, StepDone) and not event.cached]
        return [names[each.digest].split("] ", 1)[-1] for each in done]

    def warned(self) -> list[str]:
        return [event.code for event in self.events if isinstance(event, Warning_)]

    def image(self, built: Built) -> Image:
        with StateDir(self.root) as state:
            assert built.descriptor is not None
            return Image.load(Images(state).layout.blobs, built.descriptor)

    def files(self, context: str, **more: object) -> dict[str, tarfile.TarInfo]:
        """What a build comes to."""
        out = str(self.top / "root.tar")
        self.build(context, outputs=(OutputSpec("tar", out),), **more)
        with tarfile.open(out) as tar:
            return {info.name.rstrip("/"): info for info in tar}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def write(top: Path, name: str, text: str = "x") -> None:
    path = top / "context" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def packed(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.uid = len(text), 1000
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def test_an_archive_on_standard_input(shop: Shop) -> None:
    content = packed(
        {"Dockerfile": "FROM scratch\nCOPY . /\n", "d/a": "1", "skip": "", ".dockerignore": "skip"}
    )
    files = shop.files("-", stdin=io.BytesIO(content))
    assert sorted(files) == [".dockerignore", "Dockerfile", "d", "d/a"]
    assert files["d/a"].uid == 0
    shop.build("-", stdin=io.BytesIO(content))
    assert shop.ran() == []


def test_a_repository_is_built_like_its_clone(shop: Shop) -> None:
    repository = Repository(shop.top / "git", "r.git")
    repository.commit({"app/Dockerfile": "FROM scratch\nCOPY . /\n", "app/x": "#!x", "y": ""})
    with git_daemon(shop.top / "git") as daemon:
        files = shop.files(f"git://{daemon}/r.git#main:app")
        assert {name: info.mode for name, info in files.items()} == {"Dockerfile": 0o644, "x": 0o755}
        shop.build(f"git://{daemon}/r.git?branch=main&subdir=app")
        assert shop.ran() == []
        built = shop.build(str(repository.path / "app"))
        assert shop.ran() == []
        assert built.image_id is not None


def test_dockerfiles_and_archives_behind_urls(shop: Shop) -> None:
    write(shop.top, "a")
    with site() as server:
        server.files["c.tar.xz"] = packed({"Dockerfile": "FROM scratch\nCOPY in /\n", "in": "1"})
        server.files["Dockerfile"] = b"FROM scratch\nCOPY a /\n"
        assert list(shop.files(server.url("c.tar.xz"))) == ["in"]
        assert list(shop.files(str(shop.top / "context"), dockerfile=server.url("Dockerfile"))) == ["a"]
        with pytest.raises(BuildError, match="a is not in the context, which is only a Dockerfile"):
            shop.build(server.url("Dockerfile"))


def test_named_contexts_of_every_kind(shop: Shop) -> None:
    repository = Repository(shop.top / "git", "r.git")
    repository.commit({"g": "git"})
    (shop.top / "dir").mkdir()
    (shop.top / "dir/d").write_text("d")
    write(shop.top, "i")
    shop.lines("FROM scratch\nCOPY i /\n", tags=("one",), outputs=())
    layout = str(shop.top / "layout")
    shop.lines("FROM scratch\nCOPY i /l\n", outputs=(OutputSpec.parse(f"type=oci,dest={layout},tar=false"),))
    with git_daemon(shop.top / "git") as daemon, site() as server:
        server.files["t.tgz"], server.files["f"] = packed({"t": "1"}), b"f"
        contexts = {
            "dir": str(shop.top / "dir"),
            "git": f"git://{daemon}/r.git",
            "tar": server.url("t.tgz"),
            "file": server.url("f"),
            "image": "docker-image://alias",
            "alias": "docker-image://one",
            "layout": f"oci-layout://{layout}",
        }
        sources = {"dir": "d", "git": "g", "tar": "t", "file": "f", "image": "i", "layout": "l"}
        lines = [f"COPY --from={name} {path} /{name}" for name, path in sources.items()]
        files = shop.files(
            str(shop.top / "context"),
            dockerfile="-",
            dockerfile_text="\n".join(["FROM scratch", *lines, ""]).encode(),
            contexts=contexts,
        )
        assert sorted(files) == sorted(sources)


def test_named_contexts_that_go_round(shop: Shop) -> None:
    contexts = {"a": "docker-image://b", "b": "docker-image://a"}
    with pytest.raises(UsageError, match="circle"):
        shop.lines("FROM a\n", contexts=contexts)


# ---- --link: what a layer depends on (I25) ----


def test_a_linked_layer_is_used_again_on_another_base(shop: Shop) -> None:
    write(shop.top, "a")
    write(shop.top, "b")
    first = shop.lines("FROM scratch\nCOPY b /base\nCOPY --link a /app/a\n")
    second = shop.lines("FROM scratch\nCOPY b /another\nCOPY --link a /app/a\n")
    assert shop.ran() == ["COPY b /another"]
    assert shop.image(first).layers[-1] == shop.image(second).layers[-1]
    assert shop.image(first).layers[0] != shop.image(second).layers[0]
    write(shop.top, "a", "changed")
    shop.lines("FROM scratch\nCOPY b /another\nCOPY --link a /app/a\n")
    assert shop.ran() == ["COPY --link a /app/a"]


def test_what_follows_a_linked_layer_sees_its_base(shop: Shop) -> None:
    write(shop.top, "a", "1")
    write(shop.top, "b", "2")
    text = "FROM scratch AS s\nCOPY {0} /x\nCOPY --link b /y\nFROM scratch\nCOPY --from=s / /all/\n"
    shop.lines(text.format("a"))
    built = shop.lines(text.format("b"))
    assert shop.ran() == ["COPY b /x", "COPY --from=s / /all/"]
    assert len(shop.image(built).layers) == 1


def test_link_follows_no_symlink_and_makes_real_directories(shop: Shop) -> None:
    (shop.top / "context/links").mkdir(parents=True)
    os.symlink("/srv", shop.top / "context/links/app")
    write(shop.top, "a")
    text = "FROM scratch\nCOPY links /l\nCOPY {0} a /l/app/sub/a\n"
    files = shop.files(
        str(shop.top / "context"), dockerfile="-", dockerfile_text=text.format("--link").encode()
    )
    assert (files["l/app"].type, files["l/app/sub/a"].type) == (tarfile.DIRTYPE, tarfile.REGTYPE)
    assert "srv/sub/a" not in files
    files = shop.files(str(shop.top / "context"), dockerfile="-", dockerfile_text=text.format("").encode())
    assert (files["l/app"].type, files["srv/sub/a"].type) == (tarfile.SYMTYPE, tarfile.REGTYPE)


def test_link_from_a_stage(shop: Shop) -> None:
    write(shop.top, "a")
    text = "FROM scratch AS s\nCOPY a /a\nFROM scratch\n{0}COPY --link --chown=7:8 --from=s /a /b/\n"
    shop.lines(text.format(""))
    built = shop.lines(text.format("COPY a /first\n"))
    assert shop.ran() == ["COPY a /first"]
    assert len(shop.image(built).layers) == 2


def test_an_empty_link_is_no_layer(shop: Shop) -> None:
    write(shop.top, "a")
    text = "FROM scratch\nCOPY a /\nCOPY --link none* /x/\nCOPY a /b\n"
    assert len(shop.image(shop.lines(text)).layers) == 2
    shop.lines(text)
    assert shop.ran() == []


def test_if_exists(shop: Shop) -> None:
    write(shop.top, "a")
    text = "FROM scratch\nCOPY a /\nCOPY --if-exists maybe.txt also* /\n"
    assert len(shop.image(shop.lines(text)).layers) == 1
    assert "CopyMatchesNothing" not in shop.warned()
    write(shop.top, "maybe.txt")
    assert len(shop.image(shop.lines(text)).layers) == 2


# ---- what people are told of what they copy (S55) ----


def test_git_and_likely_secrets_are_told_of_once(shop: Shop) -> None:
    """SECURITY.md S55."""
    for name in (".git/HEAD", "app/.env", "keys/server.pem", ".aws/credentials", "plain", "deep/id_rsa"):
        write(shop.top, name)
    text = "FROM scratch\nCOPY . /a/\nCOPY . /b/\n"
    shop.lines(text)
    assert sorted(shop.warned()) == ["CopiesGit", "CopiesSecret"]
    (said,) = [each for each in shop.events if isinstance(each, Warning_) and each.code == "CopiesSecret"]
    assert said.message == (
        ".aws/, app/.env, deep/id_rsa and 1 more may be secret and are copied into the image; "
        "name them in .dockerignore"
    )
    assert said.at == "Dockerfile:2"
    shop.lines(text)
    assert shop.warned() == []  # nothing was copied
    write(shop.top, ".dockerignore", ".git\n**/.env\n**/*.pem\n.aws\n**/id_rsa\n")
    shop.lines(text)
    assert shop.warned() == []


def test_who_names_a_file_means_it(shop: Shop) -> None:
    write(shop.top, ".env")
    shop.lines("FROM scratch\nCOPY .env /\n")
    assert shop.warned() == []


def test_a_large_context(shop: Shop) -> None:
    """SECURITY.md R19."""
    (shop.top / "context").mkdir()
    with open(shop.top / "context/large", "wb") as file:
        file.truncate(100_000_001)
    shop.lines("FROM scratch\nCOPY . /\n")
    assert shop.warned() == ["LargeContext"]


# ---- what is still changed of a finished image ----


def test_squash_keeps_the_files_and_the_cache(shop: Shop) -> None:
    for name in ("a", "b", "c"):
        write(shop.top, name)
    text = "FROM scratch\nCOPY a /d/\nCOPY b /d/\nCOPY c /d/a\nLABEL x=y\n"
    plain = shop.lines(text)
    built = shop.lines(text, finish=Finish(squash=True))
    assert shop.ran() == []
    image = shop.image(built)
    assert len(image.layers) == 1
    history = image.config.value.history
    assert [each.empty_layer for each in history] == [True, True, True, True, False]
    assert history[-1].created_by == "squash 3 layers"
    assert shop.lines(text, finish=Finish(squash=True)).image_id == built.image_id
    shop.lines(text, tags=("plain",))
    shop.lines(text, tags=("squashed",), finish=Finish(squash=True))
    assert plain.image_id != built.image_id
    same = "FROM {0} AS x\nFROM scratch\nCOPY --from=x / /\n"
    for name in ("plain", "squashed"):
        out = str(shop.top / f"{name}.tar")
        shop.lines(same.format(name), outputs=(OutputSpec("tar", out),))
    listings = []
    for name in ("plain", "squashed"):
        with tarfile.open(shop.top / f"{name}.tar") as tar:
            listings.append([(each.name, each.size, each.mode) for each in tar])
    assert listings[0] == listings[1]


def test_squash_leaves_the_base_alone(shop: Shop) -> None:
    for name in ("a", "b", "c"):
        write(shop.top, name)
    base = shop.image(shop.lines("FROM scratch\nCOPY a /\n", tags=("base",)))
    built = shop.image(shop.lines("FROM base\nCOPY b /\nCOPY c /\n", finish=Finish(squash=True)))
    assert built.layers[:1] == base.layers
    assert len(built.layers) == 2


def test_settings_are_taken_back_and_annotations_given(shop: Shop) -> None:
    text = "FROM scratch\nENV A=1 B=2\nLABEL l=1\nVOLUME /data\nCMD x\n"
    notes = (Annotation("manifest", "k", "v"), Annotation("manifest-descriptor", "d", "w"))
    wanted = Finish(("env.A", "label.l", "volume./data", "cmd", "env.NONE"), False, notes)
    built = shop.lines(text, finish=wanted)
    image = shop.image(built)
    config = image.config.value.config
    assert (config.labels, config.volumes, config.cmd) == ({}, (), None)
    assert [each for each in config.env if not each.startswith("PATH=")] == ["B=2"]
    assert image.manifest.value.annotations == {"k": "v"}
    assert built.descriptor is not None
    assert built.descriptor.annotations == {"d": "w"}
    assert "NothingToUnset" in shop.warned()


CLOCKED = "FROM scratch\nLABEL a=b\n"
MOMENT = {"SOURCE_DATE_EPOCH": "context"}


def created(shop: Shop, context: str, **more: object) -> str:
    return shop.image(shop.build(context, **more)).config.value.created


def test_the_clock_of_a_repository(shop: Shop) -> None:
    repository = Repository(shop.top / "git", "r.git")
    commit = repository.commit({"Dockerfile": CLOCKED})
    moment = int(repository.git("show", "-s", "--format=%ct", commit))
    with git_daemon(shop.top / "git") as daemon:
        url = f"git://{daemon}/r.git"
        assert created(shop, url, build_args=MOMENT) == at_clock(moment)
        assert created(shop, f"{url}#{commit}", build_args=MOMENT) == at_clock(moment)
        assert created(shop, url, build_args=MOMENT, clock=7) == at_clock(7)


def test_the_clock_of_a_url(shop: Shop) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, mtime in (("Dockerfile", 1000), ("newer", 3000), ("old", 10)):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(CLOCKED), mtime
            tar.addfile(info, io.BytesIO(CLOCKED.encode()))
    said = {"Last-Modified": "Thu, 01 Jan 1970 01:00:00 GMT"}
    with site() as web:
        web.files |= {
            "a.tar": archive.getvalue(),
            "b.tar": archive.getvalue(),
            "Dockerfile": CLOCKED.encode(),
        }
        web.headers |= {"a.tar": said, "Dockerfile": said}
        assert created(shop, web.url("a.tar"), build_args=MOMENT) == at_clock(3600)
        assert created(shop, web.url("b.tar"), build_args=MOMENT) == at_clock(3000)
        assert created(shop, web.url("Dockerfile"), build_args=MOMENT) == at_clock(3600)


def test_a_directory_has_no_clock(shop: Shop) -> None:
    write(
        shop.top,
        "Dockerfile",
        "FROM scratch\nCOPY Dockerfile /\nARG SOURCE_DATE_EPOCH\nLABEL t=$SOURCE_DATE_EPOCH.\n",
    )
    image = shop.image(shop.build(str(shop.top / "context"), build_args=MOMENT))
    assert image.config.value.config.labels == {"t": "."} and image.config.value.created > "2020"
    (note,) = [each.message for each in shop.events if isinstance(each, Note)]
    assert note.startswith("SOURCE_DATE_EPOCH=context has no effect: only repositories and URLs have a time")


def test_the_clock_of_the_dockerfile(shop: Shop) -> None:
    text = "ARG SOURCE_DATE_EPOCH=${BASE:-5}\nFROM scratch\nLABEL a=b\n"
    write(shop.top, "Dockerfile", text)
    context = str(shop.top / "context")
    assert created(shop, context) == at_clock(5)
    assert created(shop, context, build_args={"SOURCE_DATE_EPOCH": "6"}) == at_clock(6)
    assert created(shop, context, clock=7) == at_clock(7)
    write(shop.top, "Dockerfile", "FROM scratch\nARG SOURCE_DATE_EPOCH=5\nLABEL a=b\n")
    assert created(shop, context) != at_clock(5)
    write(shop.top, "Dockerfile", "ARG SOURCE_DATE_EPOCH=soon\nFROM scratch\n")
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH 'soon' is no time"):
        shop.build(context)
