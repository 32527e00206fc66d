"""What the index remembers of images, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from specimens import noise

from builder import origins
from builder.images import Images
from builder.origins import ORIGIN, PUSHED, RESOLVED, Origin, facts
from builder.state import StateDir
from oci import media_types
from oci.image import index_of
from oci.model import Platform
from oci.reference import Reference

ARM = Platform("linux", "arm64")


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    with StateDir(str(tmp_path / "store")) as state, state.lease():
        yield Images(state)


def ref(text: str) -> Reference:
    return Reference.parse(text)


def test_the_form() -> None:
    for text in ("docker.io/library/a", "3*reg.example:5000/a/b", f"reg.example/a@sha256:{'0' * 64}"):
        origin = Origin.parse(text)
        assert origin is not None and str(origin) == text
    for text in ("", "*", "3*", "-1*a", "A B", "x*docker.io/library/a"):
        assert Origin.parse(text) is None, text


def test_facts_belong_to_the_image_and_stay_in_the_index(images: Images) -> None:
    image = noise(images.layout.blobs, 100)
    images.pulled(ref("r.example/a:1"), image.descriptor, facts(Origin(ref("r.example/a"))))
    entry = images.resolve("r.example/a:1")
    assert not entry.descriptor.annotations and not images.entries()[0].descriptor.annotations
    images.tag(ref("other"), entry.descriptor)
    images.remove("r.example/a:1")
    images.note(entry.descriptor.digest, facts(Origin(ref("r.example/b")), kind=PUSHED) | {RESOLVED: "now"})
    assert origins.remembered(images.layout, entry.descriptor.digest) == {
        ORIGIN: "r.example/a",
        PUSHED: "r.example/b",
        RESOLVED: "now",
    }
    images.tag(ref("other"), noise(images.layout.blobs, 7).descriptor)  # and unnamed as well
    assert origins.origins(images.layout, entry.descriptor.digest) == (Origin(ref("r.example/a")),)


def test_a_name_with_a_digest_means_what_was_chosen_of_the_index(images: Images) -> None:
    image = noise(images.layout.blobs, 100)
    pinned = ref("r.example/a:1").with_digest(image.layers[0].digest)
    images.pulled(pinned, image.descriptor, {})
    found = images.find(pinned)
    assert found and found.digest == image.descriptor.digest
    assert images.find(ref("r.example/b").with_digest(image.layers[0].digest)) is None
    (entry,) = images.entries()
    assert [name.tag for name in entry.names] == [""]
    assert images.remove(f"r.example/a@{image.layers[0].digest}").untagged and not images.entries()


def test_places(images: Images) -> None:
    base = noise(images.layout.blobs, 100, 200)
    top = noise(images.layout.blobs, 100, 200, 300)
    images.pulled(ref("r.example/base"), base.descriptor, facts(Origin(ref("r.example/base"))))
    known = origins.origins(images.layout, base.descriptor.digest)
    images.tag(ref("top"), top.descriptor, facts(*origins.of_base(known, 2)))
    images.note(top.descriptor.digest, facts(Origin(ref("s.example/top")), kind=PUSHED))
    low, _, high = (layer.digest for layer in top.layers)
    found = origins.places(images.layout, {low, high})
    assert found == {low: (ref("r.example/base"), ref("s.example/top")), high: (ref("s.example/top"),)}
    assert origins.origins(images.layout, top.descriptor.digest) == (Origin(ref("r.example/base"), 2),)


def test_places_of_an_index(images: Images) -> None:
    blobs = images.layout.blobs
    one, other = noise(blobs, 100), noise(blobs, 200, platform=ARM)
    index = blobs.put(media_types.OCI_INDEX, index_of((one.descriptor, other.descriptor)).content)
    apart = (
        Origin(ref("r.example/one").with_digest(one.descriptor.digest)),
        Origin(ref("r.example/other").with_digest(other.descriptor.digest)),
    )
    images.tag(ref("both"), index, facts(*apart))
    blobs.delete(other.descriptor.digest)  # as after the pull of one platform
    wanted = {one.layers[0].digest, other.layers[0].digest}
    assert origins.places(images.layout, wanted) == {one.layers[0].digest: (ref("r.example/one"),)}
    assert origins.origins(images.layout, one.descriptor.digest) == apart[:1]
