"""Indexes of our builds before skopeo, podman, docker and docker-registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from judges.dockerd import Docker
from judges.dockerregistry import DockerRegistry, docker_registry
from judges.pybuild import Pybuild

from oci import platforms

pytestmark = [pytest.mark.interop, pytest.mark.root]

HERE = str(platforms.host())
OTHERS = [each for each in ("linux/amd64", "linux/arm64", "linux/arm/v7") if each != HERE]
ALL = [HERE, *OTHERS]


@pytest.fixture(scope="module")
def registry(memory_dir: str) -> Iterator[DockerRegistry]:
    with docker_registry(f"{memory_dir}/platforms-registry") as made:
        yield made


@pytest.fixture(scope="module")
def built(memory_dir: str) -> Iterator[Pybuild]:
    """A store with the index `app:1`, which `built.tar`, `layout` and `index.oci` beside it hold too."""
    top = f"{memory_dir}/platforms"
    os.makedirs(f"{top}/context")
    Path(top, "context/Dockerfile").write_text(
        'FROM scratch\nARG TARGETPLATFORM\nCOPY a /a\nLABEL for=$TARGETPLATFORM\nCMD ["/a"]\n'
    )
    Path(top, "context/a").write_text("a")
    command = Pybuild(f"{top}/store")
    outputs = ("-o", f"type=oci,dest={top}/index.oci", "-o", f"type=oci,tar=false,dest={top}/layout")
    command.run("--platform", ",".join(ALL), "-t", "app:1", *outputs, f"{top}/context")
    yield command
    shutil.rmtree(top)


def beside(built: Pybuild, name: str) -> str:
    return os.path.join(os.path.dirname(built.root), name)


def skopeo(*args: str) -> str:
    done = subprocess.run(["skopeo", *args], capture_output=True, text=True)
    assert done.returncode == 0, (args, done.stderr)
    return done.stdout


def chosen(place: str, platform: str, *args: str) -> str:
    """The platform of the image that skopeo takes for one, by the image's own label."""
    _, architecture, *variant = platform.split("/")
    options = [f"--override-arch={architecture}", *(f"--override-variant={each}" for each in variant)]
    return str(json.loads(skopeo(*options, "inspect", *args, place))["Labels"]["for"])


@pytest.mark.parametrize("place", ["oci-archive:{}/index.oci", "oci:{}/layout:1"])
def test_skopeo_takes_each_image_of_an_output(built: Pybuild, place: str) -> None:
    where = place.format(os.path.dirname(built.root))
    raw = json.loads(skopeo("inspect", "--raw", where))
    assert [each["platform"]["architecture"] for each in raw["manifests"]] == [
        each.split("/")[1] for each in ALL
    ]
    for platform in ALL:
        assert chosen(where, platform) == platform


def test_skopeo_reads_the_index_in_the_store(built: Pybuild) -> None:
    for platform in ALL:
        assert chosen(f"oci:{built.root}:docker.io/library/app:1", platform) == platform


def test_a_pushed_index_is_whole(built: Pybuild, registry: DockerRegistry) -> None:
    name = registry.name("app:1")
    built.run("tag", "app:1", name)
    built.run("push", name)
    for platform in ALL:
        assert chosen(f"docker://{name}", platform, "--tls-verify=false") == platform
    built.run("push", "--platform", OTHERS[0], name)
    raw = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}"))
    assert "manifests" not in raw and "layers" in raw


def test_a_build_pushes_its_index(built: Pybuild, registry: DockerRegistry) -> None:
    name = registry.name("direct:1")
    context = beside(built, "context")
    metadata = beside(built, "metadata.json")
    built.run("--platform", ",".join(ALL), "-t", name, "--push", "--metadata-file", metadata, context)
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}")
    assert len(json.loads(raw)["manifests"]) == len(ALL)
    with open(metadata, encoding="utf-8") as file:
        digest = json.load(file)["containerimage.digest"]
    pinned = f"docker://{name.rpartition(':')[0]}@{digest}"
    assert skopeo("inspect", "--raw", "--tls-verify=false", pinned) == raw


def test_docker_loads_what_save_writes(built: Pybuild, docker: Docker) -> None:
    saved = beside(built, "saved.tar")
    for args, platform in (((), HERE), (("--platform", OTHERS[0]), OTHERS[0])):
        built.run("save", *args, "-o", saved, "app:1")
        docker.run("load", "--input", saved)
        shown = docker.run("image", "inspect", "app:1").stdout
        (image,) = json.loads(shown)
        assert image["Config"]["Labels"]["for"] == platform
        assert image["Architecture"] == platform.split("/")[1]


def test_podman_takes_its_own_image_of_a_saved_index(built: Pybuild, tmp_path: Path) -> None:
    saved = beside(built, "podman.tar")
    built.run("save", "-o", saved, "app:1")
    with tempfile.TemporaryDirectory(prefix="podman-", dir="/tmp") as run_root:  # podman bounds its length
        places = ("--root", f"{tmp_path}/podman", "--runroot", run_root, "--storage-driver", "vfs")
        subprocess.run(["podman", *places, "load", "-i", saved], check=True, capture_output=True)
        line = ["podman", *places, "image", "inspect", "app:1"]
        shown = subprocess.run(line, check=True, capture_output=True).stdout
    assert json.loads(shown)[0]["Config"]["Labels"]["for"] == HERE
