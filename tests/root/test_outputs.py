"""`-o` as people type it: several stages in one output, deletion, annotations, docker's media types."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

Pybuild = Callable[..., bytes]
FILE = "FROM scratch AS one\nCOPY a /\nFROM scratch AS two\nCOPY a /sub/b\n"
SPLIT = {"one/linux_amd64/a", "one/linux_arm64/a", "two/linux_amd64/sub/b", "two/linux_arm64/sub/b"}
BOTH = ("--target", "one,two")
PLATFORMS = ("--platform", "linux/amd64,linux/arm64")


@pytest.fixture
def pybuild(tmp_path: Path) -> Pybuild:
    """Runs a build of FILE in a directory of its own; its standard output."""
    (tmp_path / "Dockerfile").write_text(FILE)
    (tmp_path / "a").write_text("content")

    def run(*args: str) -> bytes:
        command = [sys.executable, "-m", "builder.cli.main", "--root", f"{tmp_path}/store", "build"]
        line = [*command, *args, "."]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run


def files(top: Path) -> set[str]:
    """All but directories below `top`."""
    return {str(path.relative_to(top)) for path in top.rglob("*") if not path.is_dir()}


def test_each_stage_has_its_folder(pybuild: Pybuild, tmp_path: Path) -> None:
    pybuild(*BOTH, "-o", "out", "-o", "type=tar,dest=out.tar")
    assert files(tmp_path / "out") == {"one/a", "two/sub/b"}
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.getnames() == ["one", "one/a", "two", "two/sub", "two/sub/b"]
    pybuild(*BOTH, *PLATFORMS, "-o", "split", "-o", "type=tar,dest=out.tar")
    assert files(tmp_path / "split") == SPLIT
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert {each.name for each in tar if each.isfile()} == SPLIT
        assert len(set(tar.getnames())) == len(tar.getnames())


def test_an_archive_has_the_images_of_all_stages(pybuild: Pybuild, tmp_path: Path) -> None:
    names = ("-t", "one=app:one", "-t", "two=app:two")
    pybuild(
        *names, "-o", "type=docker,dest=d.tar", "-o", "type=oci,dest=o.tar", "-o", "type=oci,dest=l,tar=false"
    )
    with tarfile.open(tmp_path / "d.tar") as tar:
        manifest = json.load(tar.extractfile("manifest.json") or pytest.fail())
    assert [each["RepoTags"] for each in manifest] == [["app:one"], ["app:two"]]
    with tarfile.open(tmp_path / "o.tar") as tar:
        archive = json.load(tar.extractfile("index.json") or pytest.fail())
    for index in (archive, json.loads((tmp_path / "l" / "index.json").read_text())):
        marks = [each["annotations"]["org.opencontainers.image.ref.name"] for each in index["manifests"]]
        assert marks == ["one", "two"]
    assert sorted(os.listdir(tmp_path / "l")) == ["blobs", "index.json", "oci-layout"]
    with pytest.raises(AssertionError, match="both go to standard output"):
        pybuild("-o", "-", "-o", "type=oci,dest=-")


def test_files_that_the_image_has_not_are_deleted(pybuild: Pybuild, tmp_path: Path) -> None:
    (tmp_path / "out" / "sub").mkdir(parents=True)
    for name in ("out/old", "out/sub/old"):
        (tmp_path / name).write_text("x")
    os.symlink(tmp_path, tmp_path / "out" / "link")
    pybuild("-o", "out")
    assert files(tmp_path / "out") >= {"old", "sub/b", "sub/old"}
    pybuild("-o", "type=local,dest=out,mode=delete")
    assert files(tmp_path / "out") == {"sub/b"} and (tmp_path / "a").exists()
    pybuild(*BOTH, *PLATFORMS, "-o", "type=local,dest=out,mode=delete")
    assert files(tmp_path / "out") == SPLIT


def test_docker_without_a_file_is_the_store(pybuild: Pybuild, tmp_path: Path) -> None:
    pybuild("-o", "type=docker", "-t", "here:1")
    assert "library/here:1" in (tmp_path / "store" / "index.json").read_text()


def test_an_archive_without_a_file_is_standard_output(pybuild: Pybuild, tmp_path: Path) -> None:
    (tmp_path / "o.tar").write_bytes(pybuild("-o", "type=oci"))
    with tarfile.open(tmp_path / "o.tar") as tar:
        assert "index.json" in tar.getnames()


def test_annotations_variables_and_media_types(pybuild: Pybuild, tmp_path: Path) -> None:
    output = "type=oci,dest=l,tar=false,annotation.org.Title=t,annotation-manifest-descriptor.d=e"
    pybuild("--env", "A=b=c", "-o", output)
    manifest, config = image(tmp_path / "l")
    assert manifest["annotations"] == {"org.Title": "t"} and config["config"]["Env"][-1] == "A=b=c"
    pybuild("--format", "docker", "-o", "type=oci,dest=d,tar=false")
    manifest, _ = image(tmp_path / "d")
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"


def image(layout: Path) -> tuple[dict[str, object], dict[str, dict[str, list[str]]]]:
    """Manifest and config of a layout's only image."""

    def blob(descriptor: dict[str, str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = json.loads(
            (layout / "blobs" / "sha256" / descriptor["digest"].partition(":")[2]).read_text()
        )
        return found

    (descriptor,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = blob(descriptor)
    return manifest, blob(manifest["config"])  # type: ignore[return-value]
