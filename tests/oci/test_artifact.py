"""Artifacts: packed as the specification has it; names from strangers stay below the directory (S91)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from oci import media_types
from oci.artifact import EMPTY, TITLE, File, is_media_type, pack, titles, unpack
from oci.blobs import BlobStore
from oci.errors import DigestMismatch, InvalidArchive, InvalidDocument, UnsafePath
from oci.model import Descriptor, Manifest


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    made = BlobStore(tmp_path / "store")
    made.make_directories()
    return made


def manifest_of(store: BlobStore, *named: str) -> Manifest:
    layers = []
    for number, name in enumerate(named):
        blob = store.put("text/plain", b"content %d" % number)
        layers.append(Descriptor(blob.media_type, blob.digest, blob.size, {TITLE: name} if name else {}))
    return Manifest(EMPTY, tuple(layers), artifact_type="text/plain")


def test_what_is_packed(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    subject = Descriptor(media_types.OCI_MANIFEST, EMPTY.digest, 2, {"not": "told"})
    files = [File(str(tmp_path / "a"), "text/plain"), File(str(tmp_path / "a"), title="d/b")]
    found = pack(store, files, "application/vnd.x", subject=subject, annotations={"k": "v"})
    document = json.loads(store.document(found))
    assert document["artifactType"] == "application/vnd.x" and document["annotations"] == {"k": "v"}
    assert document["config"] == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "size": 2,
    }
    assert set(document["subject"]) == {"mediaType", "digest", "size"}
    assert [each["annotations"][TITLE] for each in document["layers"]] == ["a", "d/b"]
    manifest = Manifest.from_json(store.document(found), found.media_type)
    unpack(store, list(titles(manifest)), str(tmp_path / "out"))
    assert (tmp_path / "out/d/b").read_bytes() == (tmp_path / "a").read_bytes()
    assert sorted(os.listdir(tmp_path / "out")) == ["a", "d"] and os.listdir(tmp_path / "out/d") == ["b"]


def test_an_artifact_without_files_has_the_empty_layer(store: BlobStore) -> None:
    found = pack(store, [], "application/vnd.x")
    manifest = Manifest.from_json(store.document(found), found.media_type)
    assert manifest.layers == (EMPTY,) and not list(titles(manifest))
    assert store.read(EMPTY.digest) == b"{}"


def test_only_files_are_packed(store: BlobStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in ("pipe", "."):
        with pytest.raises((InvalidArchive, IsADirectoryError)):
            pack(store, [File(str(tmp_path / path))])


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "a/../../x", "a//b", "a/", ".", "..", "./x", "a\0b", "x/" * 2100 + "x", "\ud800"],
)
def test_names_that_lead_elsewhere(store: BlobStore, name: str) -> None:
    """S91."""
    with pytest.raises(UnsafePath):
        list(titles(manifest_of(store, "good", name)))


def test_two_files_of_one_name(store: BlobStore) -> None:
    with pytest.raises(InvalidDocument, match="two files"):
        list(titles(manifest_of(store, "a", "b", "a")))
    assert [name for _, name in titles(manifest_of(store, "a", "", "b"))] == [b"a", b"b"]


def test_symlinks_are_never_followed_out(store: BlobStore, tmp_path: Path) -> None:
    """S91."""
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (outside / "file").write_text("as it was")
    (out / "link").symlink_to(outside / "file")
    (out / "folder").symlink_to(outside)
    unpack(store, list(titles(manifest_of(store, "link", "folder/file"))), str(out))
    assert (outside / "file").read_text() == "as it was" and os.listdir(outside) == ["file"]
    assert (out / "link").read_text() == "content 0" and not (out / "link").is_symlink()


def test_nothing_damaged_appears(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_text("old")
    files = list(titles(manifest_of(store, "a")))
    Path(store.path(files[0][0].digest)).write_bytes(b"other  0")
    with pytest.raises(DigestMismatch):
        unpack(store, files, str(tmp_path / "out"))
    assert os.listdir(tmp_path / "out") == ["a"] and (tmp_path / "out/a").read_text() == "old"


def test_media_types() -> None:
    assert is_media_type("application/vnd.x+json") and is_media_type("a/b")
    assert not any(map(is_media_type, ["", "a", "a/b/c", "a/", "/b", "a/b c", "a/b;c=d", "-a/b"]))
