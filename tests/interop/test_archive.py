"""skopeo, podman and umoci judge our archives and layouts, and we read theirs."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from oci import platforms
from oci.archive import Named, read_archive, write_archive
from oci.compress import codec
from oci.image import Image, copy, index_of
from oci.layer import LayerSink
from oci.layout import Layout
from oci.model import History, Platform, RunConfig
from oci.reference import Reference
from oci.tar import Entry, Kind, TarWriter
from oci.validate import validate

pytestmark = pytest.mark.interop

APP, WEB = Reference.parse("app:1"), Reference.parse("host:5000/web:2")
Podman = Callable[..., str]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.create(tmp_path / "layout")


@pytest.fixture
def image(layout: Layout) -> Image:
    made = an_image(layout, platforms.host())
    made.write(layout.blobs)
    return made


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Podman]:
    """podman with a storage of its own; its run root may have 50 characters at most."""
    with tempfile.TemporaryDirectory(prefix="podman-", dir="/tmp") as run_root:

        def call(*arguments: str | Path) -> str:
            places = ("--root", tmp_path / "podman", "--runroot", run_root)
            return run("podman", *places, "--storage-driver", "vfs", *arguments)

        yield call


def an_image(layout: Layout, platform: Platform) -> Image:
    image = Image.scratch(platform)
    for name in (b"a", b"b"):
        with LayerSink(codec("gzip"), layout.blobs) as sink:
            tar = TarWriter(sink)
            content = name * 5000 + str(platform).encode()
            tar.add(Entry(name, Kind.FILE, 0o755, size=len(content)), content)
            tar.finish()
            layer = sink.finish()
        image = image.append(layer, History(created="2024-01-01T00:00:00Z", created_by="COPY . /"))
    start = RunConfig(cmd=("/a",), env=("A=b",), labels={"k": "<v>"})
    return image.with_config(replace(image.config.value, config=start, created="2024-01-01T00:00:00Z"))


def an_archive(layout: Layout, what: list[Named], path: Path, *, docker: bool = False) -> Path:
    with open(path, "wb") as out:
        write_archive(what, layout.blobs, out, docker=docker)
    return path


def taken(archive: Path, target: Path) -> tuple[Layout, tuple[Named, ...]]:
    layout = Layout.create(target)
    with open(archive, "rb") as stream:
        found = read_archive(stream, layout.blobs)
    for item in found:
        assert validate(layout, item.descriptor) == []
    return layout, found


@pytest.mark.parametrize("docker", [False, True])
def test_skopeo_reads_ours(layout: Layout, image: Image, tmp_path: Path, docker: bool) -> None:
    path = an_archive(layout, [Named(image.descriptor, (APP,))], tmp_path / "out.tar", docker=docker)
    for name in (f"oci-archive:{path}", f"oci-archive:{path}:1"):
        seen = json.loads(run("skopeo", "inspect", name))
        assert seen["Digest"] == str(image.descriptor.digest)
        assert seen["Layers"] == [str(layer.digest) for layer in image.layers]
        assert seen["Labels"] == {"k": "<v>"}
    if docker:
        config = run("skopeo", "inspect", "--config", "--raw", f"docker-archive:{path}:app:1")
        assert config.encode() == image.config.content


def test_through_skopeo_and_back(layout: Layout, image: Image, tmp_path: Path) -> None:
    path = an_archive(layout, [Named(image.descriptor, (APP, WEB))], tmp_path / "out.tar", docker=True)
    theirs = tmp_path / "docker.tar"
    run("skopeo", "copy", f"docker-archive:{path}:host:5000/web:2", f"docker-archive:{theirs}:other/name:3")
    back, found = taken(theirs, tmp_path / "one")
    assert [item.names for item in found] == [(Reference.parse("other/name:3"),)]
    assert Image.load(back.blobs, found[0].descriptor).id == image.id
    theirs = tmp_path / "oci.tar"
    run("skopeo", "copy", f"oci-archive:{path}:1", f"oci-archive:{theirs}:docker.io/library/app:1")
    back, found = taken(theirs, tmp_path / "two")
    assert [(item.names, item.descriptor.digest) for item in found] == [((APP,), image.descriptor.digest)]
    assert Image.load(back.blobs, found[0].descriptor) == image


def test_skopeo_copies_all_platforms(layout: Layout, tmp_path: Path) -> None:
    variants = [an_image(layout, Platform("linux", name)) for name in ("amd64", "arm64")]
    entries = tuple(variant.write(layout.blobs) for variant in variants)
    raw = index_of(entries)
    index = layout.blobs.put(raw.value.media_type, raw.content)
    path = an_archive(layout, [Named(index, (APP,))], tmp_path / "out.tar", docker=True)
    theirs = tmp_path / "theirs.tar"
    run("skopeo", "copy", "--all", f"oci-archive:{path}:1", f"oci-archive:{theirs}:docker.io/library/app:1")
    _, found = taken(theirs, tmp_path / "back")
    assert [item.descriptor.digest for item in found] == [index.digest]
    seen = json.loads(run("skopeo", "inspect", "--override-arch", "arm64", f"oci-archive:{path}:1"))
    assert seen["Architecture"] == "arm64"


def test_podman_loads_ours_and_saves_for_us(
    layout: Layout, image: Image, tmp_path: Path, podman: Podman
) -> None:
    both = an_archive(layout, [Named(image.descriptor, (APP, WEB))], tmp_path / "both.tar", docker=True)
    one = an_archive(layout, [Named(image.descriptor, (WEB,))], tmp_path / "one.tar")
    assert "web:2" in podman("load", "-i", one)
    assert "app:1" in podman("load", "-i", both)
    listed = podman("images", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}").split("\n")
    assert f"{image.id} host:5000/web:2" in listed
    for form in ("docker-archive", "oci-archive"):
        saved = tmp_path / f"{form}.tar"
        podman("save", "--format", form, "-o", saved, "host:5000/web:2")
        back, found = taken(saved, tmp_path / form)
        assert [item.names for item in found] == [(WEB,)]
        theirs = Image.load(back.blobs, found[0].descriptor)
        assert theirs.config.value.diff_ids == image.config.value.diff_ids
        # podman keeps what it loaded last, docker's form; for the other it writes the config anew.
        assert theirs.id == image.id or form == "oci-archive"


def test_umoci_unpacks_our_layout(layout: Layout, image: Image, tmp_path: Path) -> None:
    target = Layout.create(tmp_path / "exported", private=False)
    copy(layout.blobs, image.descriptor, target.blobs)
    with target.editing() as names:
        names.set(str(APP), image.descriptor, ref_name="1")
    target.blobs.clean()
    assert sorted(path.name for path in (tmp_path / "exported").iterdir()) == [
        "blobs",
        "index.json",
        "oci-layout",
    ]
    assert run("umoci", "ls", "--layout", tmp_path / "exported") == "1\n"
    run("umoci", "unpack", "--image", f"{tmp_path / 'exported'}:1", tmp_path / "bundle")
    assert (tmp_path / "bundle" / "rootfs" / "a").read_bytes().startswith(b"a" * 5000)
    run("umoci", "config", "--image", f"{tmp_path / 'exported'}:1", "--config.user", "me")
    [entry] = Layout.open(tmp_path / "exported").descriptors()
    assert Image.load(target.blobs, entry).config.value.config.user == "me"
    assert validate(target, entry) == []


def test_tools_read_the_store_by_name(layout: Layout, image: Image) -> None:
    with layout.editing() as names:
        names.set(str(APP), image.descriptor)
        names.set(str(WEB), image.descriptor)
    seen = json.loads(run("skopeo", "inspect", f"oci:{layout.root}:{WEB}"))
    assert seen["Digest"] == str(image.descriptor.digest)
