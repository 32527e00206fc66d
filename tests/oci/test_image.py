"""Images are values: changing one makes another, and what was read keeps its bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from oci import media_types
from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import BlobNotFound, DigestMismatch, InvalidDocument
from oci.image import ATTESTATION, Image, copy, images, index_of, select, walk
from oci.layer import Layer
from oci.model import Descriptor, History, ImageConfig, Index, Manifest, Platform

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
Make = Callable[..., Image]


def a_layer(content: bytes = b"layer") -> Layer:
    return Layer(media_types.OCI_LAYER_GZIP, Digest.of(content), len(content), Digest.of(content + b"!"), 10)


def test_append_keeps_documents_consistent() -> None:
    image = Image.scratch(AMD64)
    grown = image.append(a_layer(), History(created_by="COPY")).append(None, History(created_by="CMD"))
    assert image.layers == ()
    assert [layer.digest for layer in grown.layers] == [a_layer().digest]
    assert grown.config.value.diff_ids == (a_layer().diff_id,)
    assert [item.empty_layer for item in grown.config.value.history] == [False, True]
    assert grown.id == grown.config.digest == grown.manifest.value.config.digest
    assert Manifest.from_json(grown.manifest.content) == grown.manifest.value
    assert grown.descriptor.platform == AMD64


def test_load_and_write_keep_bytes(store: BlobStore) -> None:
    config = b'{ "rootfs" : {"type":"layers","diff_ids":[]}, "os":"linux", "architecture":"arm64", "odd": 1 }'
    pointer = store.put(media_types.OCI_CONFIG, config)
    manifest = json.dumps(json.loads(Manifest(pointer, ()).to_json()), indent=3).encode()
    descriptor = store.put(media_types.OCI_MANIFEST, manifest)
    image = Image.load(store, descriptor)
    assert image.write(store).digest == descriptor.digest
    assert image.with_config(image.config.value) is image
    assert image.annotated({}) is image
    assert image.converted("oci") is image
    labelled = image.annotated({"a": "b"})
    assert labelled.config.content == config
    assert labelled.id == image.id
    changed = image.with_config(replace(image.config.value, author="me"))
    assert json.loads(changed.config.content)["odd"] == 1


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_conversion_goes_both_ways(kind: str) -> None:
    image = Image.scratch(AMD64).append(a_layer(), History())
    there = image.converted("docker")
    assert there.kind == "docker"
    assert there.manifest.value.config.media_type == media_types.DOCKER_CONFIG
    assert there.layers[0].media_type == media_types.DOCKER_LAYER_GZIP
    assert there.id == image.id
    assert there.converted("oci") == image
    assert there.append(a_layer(), History()).kind == "docker"


def test_load_refuses(store: BlobStore, make_image: Make) -> None:
    image = make_image(store)
    index = store.put(media_types.OCI_INDEX, index_of((image.descriptor,)).content)
    with pytest.raises(InvalidDocument, match="is an index"):
        Image.load(store, index)
    artifact = Manifest(store.put(media_types.OCI_EMPTY, b"{}"), ())
    with pytest.raises(InvalidDocument, match="an artifact, not an image"):
        Image.load(store, store.put(media_types.OCI_MANIFEST, artifact.to_json()))
    short = replace(image.manifest.value, layers=image.layers[:1])
    with pytest.raises(InvalidDocument, match="2, but the manifest has 1 layers"):
        Image.load(store, store.put(media_types.OCI_MANIFEST, short.to_json()))
    with pytest.raises(DigestMismatch, match="promises"):
        Image.load(store, replace(image.descriptor, size=1))
    with pytest.raises(InvalidDocument, match="what points here says"):
        Image.load(store, replace(image.descriptor, media_type=media_types.DOCKER_MANIFEST))
    store.delete(image.id)
    with pytest.raises(BlobNotFound):
        Image.load(store, image.descriptor)


def test_of_refuses_layers_without_diff_ids() -> None:
    with pytest.raises(InvalidDocument, match="0, but the manifest has 1 layers"):
        Image.of(ImageConfig(AMD64), (Descriptor("a/b", Digest.of(b""), 0),))


def an_index(store: BlobStore, *entries: Descriptor) -> Descriptor:
    return store.put(media_types.OCI_INDEX, index_of(entries).content)


def test_walk_and_select(store: BlobStore, make_image: Make) -> None:
    amd64, arm64 = make_image(store, platform=AMD64), make_image(store, platform=ARM64)
    statement = replace(amd64.descriptor, annotations={ATTESTATION: "attestation-manifest"})
    unknown = replace(amd64.descriptor, platform=Platform("unknown", "unknown"))
    inner = an_index(store, replace(arm64.descriptor, platform=None))
    outer = an_index(store, unknown, statement, amd64.descriptor, inner)
    assert [item.platform for item in images(store, outer)] == [AMD64, ARM64]
    found = select(store, outer, ARM64)
    assert found is not None
    assert found.digest == arm64.descriptor.digest
    assert select(store, outer, Platform("windows", "amd64")) is None
    assert select(store, amd64.descriptor, ARM64) == amd64.descriptor
    reached = {item.digest for item in walk(store, outer)}
    assert reached == {
        *(outer.digest, inner.digest, amd64.descriptor.digest, arm64.descriptor.digest, amd64.id, arm64.id),
        *(layer.digest for layer in (*amd64.layers, *arm64.layers)),
    }


def test_other_platforms_may_be_absent(store: BlobStore, make_image: Make) -> None:
    amd64, arm64 = make_image(store, platform=AMD64), make_image(store, platform=ARM64)
    index = an_index(store, amd64.descriptor, arm64.descriptor)
    store.delete(arm64.descriptor.digest)
    assert select(store, index, AMD64) == amd64.descriptor
    with pytest.raises(BlobNotFound):
        list(walk(store, index))
    assert arm64.descriptor not in list(walk(store, index, sparse=True))


def test_depth_is_limited(store: BlobStore, make_image: Make) -> None:
    """SECURITY.md S80."""
    pointer = make_image(store, platform=AMD64).descriptor
    for _ in range(9):
        pointer = an_index(store, pointer)
    assert len(images(store, pointer)) == 1
    list(walk(store, pointer))
    pointer = an_index(store, pointer)
    with pytest.raises(InvalidDocument, match="nested more than 8 deep"):
        images(store, pointer)
    with pytest.raises(InvalidDocument, match="nested more than 8 deep"):
        list(walk(store, pointer))


def test_wide_indexes_are_walked_once(store: BlobStore) -> None:
    """Eight levels of a hundred pointers to one and the same index are not 100 ** 8 visits."""
    pointer = store.put(media_types.OCI_INDEX, Index(()).to_json())
    for _ in range(8):
        pointer = an_index(store, *[pointer] * 100)
    assert len(list(walk(store, pointer))) == 9
    assert images(store, pointer) == ()


def test_copy(store: BlobStore, make_image: Make, tmp_path: Path) -> None:
    image = make_image(store)
    index = an_index(store, image.descriptor)
    target = BlobStore(tmp_path / "target")
    copy(store, index, target)
    assert sorted(target) == sorted(store)
    assert Image.load(target, image.descriptor) == image
