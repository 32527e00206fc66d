"""The commands about images, from outside: what people type and what they read."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

Pybuild = Any
"""The fixture of conftest.py: runs a command line in a store of its own."""


@pytest.fixture
def image(pybuild: Pybuild, rootfs: str) -> str:
    """An image `app:1`; its id."""
    made: str = pybuild.ok("import", "-c", 'CMD ["/bin/sh"]', "-c", "LABEL tier=front", rootfs, "app:1")
    return made.strip()


def test_an_empty_store(pybuild: Pybuild) -> None:
    assert pybuild.ok("images") == "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n"
    assert pybuild.ok("images", "-q") == ""
    assert pybuild.ok("images", "--format", "json") == ""


def test_images(pybuild: Pybuild, image: str) -> None:
    pybuild.ok("tag", "app:1", "localhost:5000/team/app")
    heading, *rows = pybuild.ok("images").splitlines()
    assert heading.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert [row.split()[:3] for row in rows] == [
        ["app", "1", image[7:19]],
        ["localhost:5000/team/app", "latest", image[7:19]],
    ]
    assert re.search("seconds? ago|minutes? ago", rows[0]) and rows[0].endswith("B")
    assert pybuild.ok("images", "-q", "--no-trunc") == f"{image}\n{image}\n"
    assert "sha256:" in pybuild.ok("images", "--digests").splitlines()[1]
    assert (
        pybuild.ok("images", "--format", "{{.Repository}}:{{.Tag}}")
        == "app:1\nlocalhost:5000/team/app:latest\n"
    )
    assert json.loads(pybuild.ok("images", "--format", "json").splitlines()[0])["ID"] == image[7:19]
    assert (
        pybuild.ok("images", "--format", r"table {{.Tag}}\t{{.ID}}").splitlines()[0] == "TAG       IMAGE ID"
    )


def test_quiet_and_a_format_together(pybuild: Pybuild, image: str) -> None:
    """A template goes before -q, as docker has it."""
    short = image[7:19]
    assert pybuild.ok("images", "-q", "--format", "table") == f"{short}\n"
    assert pybuild.ok("images", "-q", "--digests") == f"{short}\n"
    assert pybuild.ok("images", "-q", "--format", "{{.Repository}}") == "app\n"
    assert pybuild.ok("images", "-q", "--format", "raw") == f"image_id: {short}\n"
    assert json.loads(pybuild.ok("images", "-q", "--format", "json"))["Tag"] == "1"
    raw = pybuild.ok("images", "--format", "raw", "--digests")
    assert raw.startswith("repository: app\ntag: 1\ndigest: sha256:") and raw.endswith("B\n\n")
    heading = pybuild.ok("images", "-q", "--digests", "--format", "table {{.Tag}}").splitlines()[0]
    assert heading.split() == ["TAG", "DIGEST"]


@pytest.mark.parametrize(
    ("args", "tags"),
    [
        (["app"], ["1", "2"]),
        (["app:2"], ["2"]),
        (["a*"], ["1", "2"]),
        (["--filter", "reference=docker.io/library/app:1"], ["1"]),
        (["--filter", "label=tier"], ["1"]),
        (["--filter", "label=tier=back"], []),
        (["--filter", "dangling=true"], ["<none>"]),
        (["--filter", "dangling=false"], ["1", "2"]),
        (["--filter", "before=app:2"], ["1"]),
        (["--filter", "since=app:1", "--filter", "dangling=false"], ["2"]),
    ],
)
def test_filters(
    pybuild: Pybuild,
    image: str,
    rootfs: str,
    args: list[str],
    tags: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "4000000000")
    pybuild.ok("import", rootfs, "app:2")
    pybuild.ok("import", "-m", "no name", rootfs)
    shown = pybuild.ok("images", "--format", "{{.Tag}}", *args).split()
    assert sorted(shown) == tags


@pytest.mark.parametrize("written", ["nope=1", "dangling", "dangling=perhaps", "before=nothing"])
def test_filters_that_mean_nothing(pybuild: Pybuild, image: str, written: str) -> None:
    ran = pybuild("images", "--filter", written)
    assert ran.code in (1, 2) and ran.err.startswith("error: ") and ran.out == ""


def test_a_damaged_image_is_a_warning(pybuild: Pybuild, image: str, rootfs: str) -> None:
    pybuild.ok("import", "-m", "other", rootfs, "bad")
    bad = json.loads(pybuild.ok("inspect", "bad"))[0]
    os.unlink(os.path.join(pybuild.root, "blobs", "sha256", bad["Id"].removeprefix("sha256:")))
    ran = pybuild("images", "--format", "{{.Repository}}")
    assert (ran.code, ran.out) == (0, "app\n") and "is damaged" in ran.err
    assert pybuild("inspect", "bad").code == 1
    assert "Untagged: bad:latest" in pybuild.ok("rmi", "bad")


def test_rmi(pybuild: Pybuild, image: str) -> None:
    pybuild.ok("tag", "app:1", "app:2")
    assert pybuild.ok("rmi", "app:1") == "Untagged: app:1\n"
    ran = pybuild("rmi", "app:1", "app:2", "app:3")
    assert ran.code == 1 and ran.err.count("error: no image") == 2
    untagged, *deleted = ran.out.splitlines()
    assert untagged == "Untagged: app:2"
    assert deleted[0] == f"Deleted: {image}" and len(deleted) == 2
    assert pybuild.ok("rmi", "--force", "app:1") == ""
    assert os.listdir(os.path.join(pybuild.root, "blobs", "sha256")) == []


def test_tag_errors(pybuild: Pybuild, image: str) -> None:
    assert pybuild("tag", "nothing", "x").code == 1
    for name in ("UPPER", "x:", "x@sha256:" + "0" * 64, image):
        ran = pybuild("tag", "app:1", name)
        assert ran.code == 2 and "Traceback" not in ran.err, name


def test_inspect_has_dockers_shape(pybuild: Pybuild, image: str) -> None:
    (shown,) = json.loads(pybuild.ok("inspect", image[7:15]))
    assert shown["Id"] == image and shown["RepoTags"] == ["app:1"]
    assert shown["RepoDigests"] == [f"app@{shown['Descriptor']['digest']}"]
    assert shown["Config"]["Cmd"] == ["/bin/sh"] and shown["Config"]["Labels"] == {"tier": "front"}
    assert (shown["Os"], shown["RootFS"]["Type"], len(shown["RootFS"]["Layers"])) == ("linux", "layers", 1)
    assert shown["Size"] > 0
    assert pybuild.ok("inspect", "-f", "{{json .Config.Cmd}} {{.Os}}", "app:1") == '["/bin/sh"] linux\n'
    assert pybuild("inspect", "-f", "{{.Nope}}", "app:1").code == 2
    assert pybuild("inspect", "-f", "{{.Config.Nope}}", "app:1").code == 2
    ran = pybuild("inspect", "app:1", "nothing")
    assert (
        ran.code == 1 and len(json.loads(ran.out)) == 1 and "no container and no image 'nothing'" in ran.err
    )


def test_history(pybuild: Pybuild, image: str) -> None:
    heading, row = pybuild.ok("history", "app:1").splitlines()
    assert heading.split() == ["IMAGE", "CREATED", "CREATED", "BY", "SIZE", "COMMENT"]
    assert row.startswith(image[7:19]) and "imported from" in row
    assert pybuild.ok("history", "-q", "--no-trunc", "app:1") == f"{image}\n"
    assert int(pybuild.ok("history", "--no-human", "--format", "{{.Size}}", "app:1")) > 0
    since, at = pybuild.ok(
        "history", "-H=false", "--format", "{{.CreatedSince}} {{.CreatedAt}}", "app:1"
    ).split()
    assert since == at and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", at)
    assert json.loads(pybuild.ok("history", "--format", "json", "app:1"))["Comment"].startswith("imported")


def test_import_keeps_the_bytes_and_repeats_them(
    pybuild: Pybuild, rootfs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    first = pybuild.ok("import", "-m", "x", rootfs, "one")
    packed = tmp_path / "rootfs.tar.gz"
    packed.write_bytes(gzip.compress(Path(rootfs).read_bytes()))
    assert pybuild.ok("import", "-m", "x", str(packed), "two") == first
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(packed.read_bytes())))
    monkeypatch.setattr("os.isatty", lambda fd: False)
    assert pybuild.ok("import", "-m", "x", "-", "three") == first
    (shown,) = json.loads(pybuild.ok("inspect", "one"))
    assert shown["Created"] == "2001-09-09T01:46:40Z"


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "nothing to import"), (b"root:x:0:0\n" * 100, "no tar archive"), (b"\x1f\x8b broken", "")],
)
def test_import_refuses_what_is_no_root(pybuild: Pybuild, tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    ran = pybuild("import", str(path), "x")
    assert ran.code == 2 and said in ran.err and "Traceback" not in ran.err and "internal" not in ran.err
    assert pybuild.ok("images", "-q") == ""
    assert os.listdir(os.path.join(pybuild.root, "blobs", "sha256")) == []


@pytest.mark.parametrize(
    ("change", "said"), [("RUN x", "RUN cannot change"), ("EXPOSE banana", "banana"), ("", "nothing cannot")]
)
def test_import_changes_are_checked(pybuild: Pybuild, rootfs: str, change: str, said: str) -> None:
    ran = pybuild("import", "-c", change, rootfs)
    assert ran.code == 2 and said in ran.err
    assert pybuild("import", "/nonexistent.tar").code == 1
    assert pybuild("import", "http://example.org/x.tar").code == 2


def test_save_and_load(pybuild: Pybuild, image: str, rootfs: str, tmp_path: Path) -> None:
    other = pybuild.ok("import", "-m", "other", rootfs).strip()
    path = str(tmp_path / "images.tar")
    pybuild.ok("save", "-o", path, "app:1", other[7:19])
    assert pybuild.ok("validate", path) == "2 images: nothing found\n"
    pybuild.ok("rmi", "app:1", other[7:19])
    assert pybuild.ok("load", "-i", path) == f"Loaded image: app:1\nLoaded image ID: {other}\n"
    assert pybuild.ok("images", "-q", "--no-trunc").split() == [other, image]
    assert pybuild.ok("load", "-q", "-i", path) == ""
    assert pybuild("save", "-o", path, "app:1", "nothing").code == 1
    assert pybuild("save", "-o", str(tmp_path / "no" / "x"), "app:1").code == 1
    assert pybuild("load", "-i", rootfs).code == 2


def test_validate(pybuild: Pybuild, image: str) -> None:
    assert pybuild.ok("validate", "app:1") == "1 image: nothing found\n"
    assert pybuild.ok("validate", pybuild.root) == "1 image: nothing found\n"
    (shown,) = json.loads(pybuild.ok("inspect", "app:1"))
    (layer,) = [
        path
        for path in Path(pybuild.root, "blobs", "sha256").iterdir()
        if path.read_bytes()[:2] == b"\x1f\x8b"
    ]
    layer.write_bytes(layer.read_bytes()[:-1] + b"x")
    ran = pybuild("validate", "app:1")
    assert ran.code == 1 and layer.name[:12] in ran.out
    assert json.loads(pybuild("validate", "--format", "json", "app:1").out)
    assert pybuild("validate", "-q", "app:1").out == ""
    assert pybuild("validate", "nothing").code == 1
    assert shown


def test_a_store_of_a_newer_version_is_refused(pybuild: Pybuild, image: str) -> None:
    Path(pybuild.root, "schema").write_text("99\n")
    for args in (["images"], ["rmi", "app:1"], ["import", "/x", "y"]):
        ran = pybuild(*args)
        assert ran.code == 70 and "newer pybuild" in ran.err and "--root" in ran.err
