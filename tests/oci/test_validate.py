"""The validator finds each kind of lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from oci import media_types
from oci.blobs import BlobStore
from oci.image import ATTESTATION, Image, index_of
from oci.layer import Layer
from oci.layout import Layout
from oci.model import Descriptor, History, Manifest, Platform, Raw
from oci.validate import content_digest, validate

AMD64 = Platform("linux", "amd64")
MakeImage = Callable[..., Image]


def texts(store: BlobStore | Layout, descriptor: Descriptor) -> list[str]:
    return [str(finding) for finding in validate(store, descriptor)]


def test_sound_images(layout: Layout, make_image: MakeImage) -> None:
    store = layout.blobs
    packed = [make_image(store, platform=AMD64, packed=codec) for codec in ("gzip", "zstd", "uncompressed")]
    index = store.put(media_types.OCI_INDEX, index_of(tuple(image.descriptor for image in packed)).content)
    seen: list[int] = []
    assert validate(layout, index, progress=seen.append) == []
    assert sum(seen) > 0
    assert texts(store, packed[0].converted("docker").write(store)) == []


def test_content_digest(store: BlobStore, make_image: MakeImage) -> None:
    image = make_image(store)
    assert content_digest(store, image.layers[0]) == ("gzip", image.config.value.diff_ids[0])


def test_missing_and_damaged_blobs(store: BlobStore, make_image: MakeImage) -> None:
    image = make_image(store)
    gone, torn = (layer.digest for layer in image.layers)
    store.delete(gone)
    with open(store.path(torn), "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    found = texts(store, image.descriptor)
    assert len(found) == 2
    assert f"{gone} is not in" in found[0]
    assert str(torn) in found[1]
    store.delete(image.id)
    assert [f"{image.id} is not in" in text for text in texts(store, image.descriptor)] == [True]


def remade(store: BlobStore, image: Image, manifest: Manifest) -> Descriptor:
    return store.put(manifest.media_type, manifest.to_json())


def test_layers_that_lie(store: BlobStore, make_image: MakeImage) -> None:
    image = make_image(store)
    one, two = image.layers
    swapped = replace(image.manifest.value, layers=(two, one))
    found = texts(store, remade(store, image, swapped))
    assert len(found) == 2
    assert all("the config's diffID says" in text for text in found)
    mistyped = replace(one, media_type=media_types.OCI_LAYER_ZSTD)
    found = texts(store, remade(store, image, replace(swapped, layers=(mistyped, two))))
    assert found == [f"error: {one.digest}: its media type says zstd, its bytes are gzip"]
    odd = replace(one, media_type="application/odd")
    [finding] = validate(store, remade(store, image, replace(swapped, layers=(odd, two))))
    assert (finding.severity, "no layer type" in finding.message) == ("warning", True)
    short = replace(one, size=one.size - 1)
    found = texts(store, remade(store, image, replace(swapped, layers=(short, two))))
    assert found == [f"error: {one.digest}: has {one.size} bytes; its descriptor promises {one.size - 1}"]


def test_documents_that_disagree(store: BlobStore, make_image: MakeImage) -> None:
    image = make_image(store, platform=AMD64)
    config = replace(image.config.value, history=(History(created_by="x"),))
    [finding] = validate(store, image.with_config(config).write(store))
    assert (finding.severity, finding.message) == ("warning", "history tells of 1 layers; there are 2")
    fewer = replace(image.manifest.value, layers=image.layers[:1])
    found = texts(store, remade(store, image, fewer))
    assert "the manifest has 1 layers, the config 2 diffIDs" in found[0]
    elsewhere = replace(image.descriptor, platform=Platform("linux", "arm64"))
    assert "the index says linux/arm64, the config linux/amd64" in texts(store, elsewhere)[0]


def test_schemas_and_types(store: BlobStore, make_image: MakeImage, make_layer: Callable[..., Layer]) -> None:
    image = make_image(store)
    bad = image.config.content.replace(b'"created":"2024-', b'"created":"year 2024-')
    liar = Image.of(Raw(image.config.value, bad), image.layers)
    found = texts(store, liar.write(store))
    assert found
    assert all("config.created" in text or "config.history" in text for text in found)
    wrong = replace(image.descriptor, media_type=media_types.OCI_INDEX)
    assert any("index" in text for text in texts(store, wrong))


def test_depth(store: BlobStore, make_image: MakeImage) -> None:
    pointer = make_image(store).descriptor
    for _ in range(9):
        pointer = store.put(media_types.OCI_INDEX, index_of((pointer,)).content)
    assert any("nested more than 8 deep" in text for text in texts(store, pointer))


def test_artifacts_and_attestations(store: BlobStore) -> None:
    statement = store.put("application/vnd.in-toto+json", b"{}")
    config = store.put(media_types.OCI_CONFIG, b"{}")
    manifest = Manifest(config, (statement,))
    pointer = store.put(media_types.OCI_MANIFEST, manifest.to_json())
    marked = replace(pointer, annotations={ATTESTATION: "attestation-manifest"})
    assert texts(store, marked) == []
    store.delete(statement.digest)
    assert [str(statement.digest) in text for text in texts(store, marked)] == [True]
