"""fsck without root: blobs, names and the build cache, found and mended (R16, R17)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from builder import healing
from builder.images import Images
from builder.scrub import Fault, Scrub
from builder.state import StateDir
from oci import media_types
from oci.digest import Digest
from oci.errors import DigestMismatch
from oci.image import Image
from oci.model import Descriptor, ImageConfig, Platform
from oci.reference import Reference


def make(images: Images, name: str, text: str = "layer") -> Image:
    blobs = images.layout.blobs
    layer = blobs.put(media_types.OCI_LAYER, text.encode())
    image = Image.of(ImageConfig(Platform("linux", "amd64"), diff_ids=(layer.digest,)), (layer,))
    image.write(blobs)
    images.tag(Reference.parse(name), image.descriptor)
    return image


def damage(images: Images, digest: Digest, how: str = "flip") -> None:
    path = images.layout.blobs.path(digest)
    with open(path, "r+b") as file:
        content = file.read()
        file.seek(0)
        file.truncate(0 if how == "empty" else len(content) - 1 if how == "cut" else len(content))
        if how == "flip":
            file.write(bytes([content[0] ^ 1]) + content[1:])


def scrub(state: StateDir, images: Images, **more: Any) -> tuple[list[Fault], dict[str, int]]:
    made = Scrub(state, images, **more)
    return list(made.run()), made.counts


def test_a_sound_store(state: StateDir, images: Images) -> None:
    make(images, "a")
    make(images, "b", "other")
    found, counts = scrub(state, images)
    assert not found and (counts["blob"], counts["name"]) == (6, 2)


@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
@pytest.mark.parametrize("part", ["layer", "config", "manifest"])
def test_damage_is_found_and_mended(state: StateDir, images: Images, how: str, part: str) -> None:
    make(images, "sound", "other")
    image = make(images, "app")
    pointer: Descriptor = {
        "layer": image.layers[0], "config": image.manifest.value.config, "manifest": image.descriptor
    }[part]  # fmt: skip
    damage(images, pointer.digest, how)
    found, _ = scrub(state, images)
    assert ("blob", str(pointer.digest)) in [(each.kind, each.what) for each in found]
    assert pointer.digest in images.layout.blobs, "looking changes nothing"
    mended, _ = scrub(state, images, repair=True)
    assert pointer.digest not in images.layout.blobs and os.listdir(f"{state.root}/quarantine")
    assert all(each.mended for each in mended if each.kind == "blob")
    after, _ = scrub(state, images)
    names = [entry.names[0].familiar() for entry in images.entries()]
    if part == "layer":
        assert [each.kind for each in after] == ["name"] and str(pointer.digest) in after[0].fault
        assert sorted(names) == ["app:latest", "sound:latest"]
    else:
        assert not after and names == ["sound:latest"]


def test_what_came_from_a_registry_may_be_missing(state: StateDir, images: Images) -> None:
    image = make(images, "r.example/app:1")
    name = Reference.parse("r.example/app:1")
    images.pulled(name, image.descriptor, {"io.pybuild.origin": "r.example/app"})
    images.layout.blobs.delete(image.layers[0].digest)
    assert scrub(state, images)[0] == []


def test_incremental_reads_only_what_is_due(state: StateDir, images: Images) -> None:
    """SECURITY.md R17."""
    image = make(images, "app")
    assert scrub(state, images, incremental=True)[1]["blob"] == 3
    _, counts = scrub(state, images, incremental=True)
    assert (counts["blob"], counts["passed over"]) == (0, 3)
    damage(images, image.layers[0].digest)
    found, counts = scrub(state, images, incremental=True)
    assert (counts["blob"], len(found)) == (1, 1)
    rows = state.content()
    for key, value in list(rows.items()):
        when, *identity = json.loads(value)
        rows.put(key, json.dumps([when - 8 * 86400, *identity]).encode())
    assert scrub(state, images, incremental=True)[1]["blob"] == 3


def test_files_that_are_no_blobs(state: StateDir, images: Images) -> None:
    make(images, "app")
    Path(state.root, "blobs/sha256/strange").write_text("")
    assert [str(each) for each in scrub(state, images)[0]] == ["blob sha256:strange: is no digest"]


def test_a_damaged_cache_is_begun_anew(state: StateDir, images: Images) -> None:
    state.steps().put("key", "x" * 5000)
    state.close()
    path = Path(state.root, "state.db")
    content = bytearray(path.read_bytes())
    content[4096:4300] = bytes(204)
    with StateDir(state.root) as again:
        path.write_bytes(content)
        kinds = [each.kind for each in scrub(again, Images(again))[0]]
        assert kinds in ([], ["cache"])
        scrub(again, Images(again), repair=True)
        assert not scrub(again, Images(again))[0]


def test_only_damaged_blobs_are_put_aside(images: Images) -> None:
    image = make(images, "app")
    digest = image.layers[0].digest
    error = DigestMismatch("x", blob=str(digest))
    assert healing.put_aside(images, error) is None and digest in images.layout.blobs
    assert healing.put_aside(images, ValueError()) is None
    damage(images, digest)
    outer = RuntimeError()
    outer.__cause__ = error
    aside = healing.put_aside(images, outer)
    assert aside is not None and aside.digest == digest and digest not in images.layout.blobs
    assert aside.names == ("docker.io/library/app:latest",) and not aside.places and not aside.forgotten
    assert healing.put_aside(images, outer) is None
