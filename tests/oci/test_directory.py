"""Skopeo's plain directories: there and back, damaged, and in the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from holding import descriptors, no_descriptor_more_than
from specimens import everything, noise, visible

from oci import media_types
from oci.blobs import BlobStore
from oci.directory import VERSION, read_directory, write_directory
from oci.errors import BlobNotFound, DigestMismatch, InvalidArchive, InvalidDocument
from oci.image import index_of
from oci.layout import Layout
from oci.model import Platform


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return Layout.create(tmp_path / "one").blobs


@pytest.fixture
def other(tmp_path: Path) -> BlobStore:
    return Layout.create(tmp_path / "other").blobs


def test_there_and_back(tmp_path: Path, store: BlobStore, other: BlobStore) -> None:
    image = noise(store, 3000, 10)
    path = str(tmp_path / "dir")
    write_directory(path, image.descriptor, store)
    names = {image.layers[0].digest.hex, image.layers[1].digest.hex, image.id.hex}
    assert set(os.listdir(path)) == {*names, "manifest.json", "version"}
    assert Path(path, "version").read_bytes() == VERSION
    found = read_directory(path, other)
    assert found.digest == image.descriptor.digest and visible(other) == everything(image)
    write_directory(path, noise(store, 5).descriptor, store)  # in its place


def test_an_index(tmp_path: Path, store: BlobStore, other: BlobStore) -> None:
    images = (noise(store, 30), noise(store, 40, platform=Platform("linux", "s390x")))
    index = store.put(media_types.OCI_INDEX, index_of(tuple(each.descriptor for each in images)).content)
    path = str(tmp_path / "dir")
    write_directory(path, index, store)
    assert read_directory(path, other).digest == index.digest
    assert visible(other) == {str(index.digest), *everything(images[0]), *everything(images[1])}


def test_what_is_not_whole(tmp_path: Path, store: BlobStore, other: BlobStore) -> None:
    image = noise(store, 3000)
    path = str(tmp_path / "dir")
    write_directory(path, image.descriptor, store)
    layer = os.path.join(path, image.layers[0].digest.hex)
    Path(layer).write_bytes(b"x" * 3000)
    with pytest.raises(DigestMismatch):
        read_directory(path, other)
    os.unlink(layer)
    with pytest.raises(BlobNotFound, match=image.layers[0].digest.hex):
        read_directory(path, other)
    os.symlink("/etc/passwd", layer)
    with pytest.raises(InvalidArchive, match="symbolic"):
        read_directory(path, other)
    Path(path, "manifest.json").write_text(json.dumps({"schemaVersion": 2}))
    with pytest.raises(InvalidDocument):
        read_directory(path, other)
    assert visible(other) <= {str(image.id)}


def test_a_directory_for_a_file_is_refused_and_closed(
    tmp_path: Path, store: BlobStore, other: BlobStore
) -> None:
    image = noise(store, 1)
    write_directory(str(tmp_path / "dir"), image.descriptor, store)
    before = descriptors()
    for name in (image.layers[0].digest.hex, "manifest.json"):
        (tmp_path / "dir" / name).unlink()
        (tmp_path / "dir" / name).mkdir()
        with pytest.raises(IsADirectoryError):
            read_directory(str(tmp_path / "dir"), other)
    no_descriptor_more_than(before)


def test_other_things_are_left_alone(tmp_path: Path, store: BlobStore) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "precious").touch()
    with pytest.raises(InvalidArchive, match="not empty"):
        write_directory(str(tmp_path / "dir"), noise(store, 1).descriptor, store)
    assert os.listdir(tmp_path / "dir") == ["precious"]
    with pytest.raises(BlobNotFound):
        read_directory(str(tmp_path / "dir"), store)
