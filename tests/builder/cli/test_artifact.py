"""`pybuild artifact` with a registry of our own."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from oci.artifact import EMPTY, TITLE
from oci.blobs import BlobStore
from oci.layout import Layout
from oci.model import Descriptor, Manifest
from oci.reference import Reference
from oci.registry.client import Client
from oci.registry.server import Options, RegistryServer

Pybuild = Any
KIND = "application/vnd.example.parts"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A repository of a registry; the working directory holds `parts.json` and `more/notes`."""
    where = tmp_path / "work"
    (where / "more").mkdir(parents=True)
    (where / "parts.json").write_text("{}\n")
    (where / "more/notes").write_text("notes\n")
    monkeypatch.chdir(where)
    with RegistryServer(Layout.create(tmp_path / "registry"), Options(port=0)) as server:
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.port}/team/app"
        server.stop()
        thread.join()


def test_there_and_back(pybuild: Pybuild, repository: str, tmp_path: Path) -> None:
    files = ("parts.json:text/plain", "./more/notes", str(tmp_path / "work/more/notes") + ":text/plain")
    out = pybuild.ok("artifact", "push", f"{repository}:parts", *files, "--type", KIND, "--annotation", "k=v")
    assert out.startswith("parts: digest: sha256:")
    written = pybuild.ok("artifact", "pull", f"{repository}:parts", "-o", str(tmp_path / "out")).splitlines()
    assert written == [str(tmp_path / "out" / each) for each in ("parts.json", "more/notes", "notes")]
    assert (tmp_path / "out/more/notes").read_text() == "notes\n"
    shown = json.loads(pybuild.ok("manifest", "inspect", f"{repository}:parts"))
    assert shown["artifactType"] == KIND and shown["annotations"] == {"k": "v"}
    kinds = [each["mediaType"] for each in shown["layers"]]
    assert kinds == ["text/plain", "application/octet-stream", "text/plain"]
    assert pybuild.ok("images", "-q") == "" and not any(Path(pybuild.root, "blobs/sha256").iterdir())


def test_directories_and_a_config(pybuild: Pybuild, repository: str, tmp_path: Path) -> None:
    Path("config.json").write_text('{"a": 1}\n')
    line = ("artifact", "push", f"{repository}:dir", "more", "parts.json")
    out = pybuild.ok(*line, "--config", "config.json:application/vnd.example.config+json")
    assert pybuild.ok(*line, "--config", "config.json:application/vnd.example.config+json") == out
    shown = json.loads(pybuild.ok("manifest", "inspect", f"{repository}:dir"))
    assert shown["config"]["mediaType"] == "application/vnd.example.config+json"
    assert shown["config"]["size"] == 9 and "artifactType" not in shown
    assert shown["layers"][0]["annotations"]["io.deis.oras.content.unpack"] == "true"
    written = pybuild.ok("artifact", "pull", f"{repository}:dir", "-o", str(tmp_path / "out")).splitlines()
    assert written == [str(tmp_path / "out" / each) for each in ("more", "parts.json")]
    assert (tmp_path / "out/more/notes").read_text() == "notes\n"
    pybuild.ok(*line, "--config", "config.json", "--type", KIND)
    shown = json.loads(pybuild.ok("manifest", "inspect", f"{repository}:dir"))
    assert shown["config"]["mediaType"] == "application/vnd.unknown.config.v1+json"
    assert shown["artifactType"] == KIND


def test_an_artifact_is_copied_and_kept_like_an_image(
    pybuild: Pybuild, repository: str, tmp_path: Path
) -> None:
    digest = pybuild.ok("artifact", "push", f"{repository}:parts", "parts.json", "--type", KIND).split()[2]
    places = [
        f"docker://{repository}:parts",
        "store:kept:1",
        f"oci:{tmp_path}/layout:1",
        f"docker://{repository}:2",
    ]
    for source, target in pairwise(places):
        assert pybuild.ok("copy", "-q", source, target).strip() == digest
    shown = json.loads(pybuild.ok("manifest", "inspect", "-v", "store:kept:1"))
    assert shown["Descriptor"]["digest"] == digest and shown["Manifest"]["artifactType"] == KIND
    pybuild.ok("copy", "-q", "store:kept:1", f"docker://{repository}:3")
    assert pybuild.ok("artifact", "pull", "-q", f"{repository}:3", "-o", "got") == "got/parts.json\n"
    assert pybuild.ok("images", "-q") == ""
    for line in (("pull", f"{repository}:3"), ("save", "kept:1", "-o", f"{tmp_path}/x.tar")):
        ran = pybuild(*line)
        assert ran.code == 2 and "an artifact, not an image" in ran.err and "pybuild artifact pull" in ran.err
    pybuild.ok("rmi", "kept:1")


def test_what_refers_to_an_image(pybuild: Pybuild, rootfs: str, repository: str) -> None:
    pybuild.ok("import", rootfs, f"{repository}:1")
    digest = pybuild.ok("push", f"{repository}:1").split()[2]
    one = pybuild.ok(
        "artifact", "push", repository, "parts.json", "--type", KIND, "--subject", digest
    ).strip()
    pybuild.ok("artifact", "push", f"{repository}:notes", "more/notes", "--subject", f"{repository}:1")
    assert len(pybuild.ok("artifact", "list", f"{repository}:1").splitlines()) == 2
    only = pybuild.ok("artifact", "list", f"{repository}@{digest}", "--type", KIND)
    assert only == f"{one.partition('@')[2]}  {KIND}\n"
    (listed,) = json.loads(
        pybuild.ok("artifact", "list", f"{repository}:1", "--type", KIND, "--format", "json")
    )
    assert listed["artifactType"] == KIND
    pybuild.ok("artifact", "pull", one, "-o", "got")
    assert os.listdir("got") == ["parts.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("parts.json", "--type", "nonsense"), "no media type"),
        (("parts.json", "parts.json"), "would both be called"),
        (("parts.json", "--subject", "other.example/x:1"), "not in the repository"),
    ],
)
def test_what_cannot_be_pushed(
    pybuild: Pybuild, repository: str, arguments: tuple[str, ...], said: str
) -> None:
    ran = pybuild("artifact", "push", f"{repository}:x", *arguments)
    assert ran.code == 2 and said in ran.err
    assert pybuild("artifact", "push", f"{repository}:x", "missing").code == 1


def test_names_that_lead_elsewhere_end_a_pull(pybuild: Pybuild, repository: str, tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "hostile")
    store.make_directories()
    blob = store.put("text/plain", b"hostile")
    store.write(b"{}")
    layer = Descriptor(blob.media_type, blob.digest, blob.size, {TITLE: "../escaped"})
    content = Manifest(EMPTY, (layer,)).to_json()
    store.write(content)
    with Client() as client:
        client.push(
            store,
            Descriptor.of(Manifest(EMPTY, ()).media_type, content),
            [Reference.parse(f"{repository}:x")],
        )
    ran = pybuild("artifact", "pull", f"{repository}:x", "-o", str(tmp_path / "out"))
    assert ran.code == 2 and "../escaped" in ran.err
    assert not (tmp_path / "escaped").exists() and not (tmp_path / "out").exists()


def test_an_index_is_no_artifact(pybuild: Pybuild, rootfs: str, repository: str) -> None:
    pybuild.ok("import", rootfs, "app")
    pybuild.ok("manifest", "create", f"{repository}:all", "app")
    pybuild.ok("manifest", "push", f"{repository}:all")
    ran = pybuild("artifact", "pull", f"{repository}:all")
    assert ran.code == 2 and "is an index" in ran.err
