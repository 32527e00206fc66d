"""The local store's names: tagging, finding, removing; and which blobs go with an image."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from builder.errors import NotFound, UsageError
from builder.images import Images, reachable
from builder.state import StateDir
from oci import media_types
from oci.digest import Digest
from oci.errors import BlobNotFound
from oci.image import Image, index_of
from oci.layout import CONTAINERD_NAME
from oci.model import Descriptor, ImageConfig, Platform
from oci.reference import Reference


def make(
    images: Images, *layers: str, created: str = "2024-01-01T00:00:00Z", arch: str = "amd64"
) -> Descriptor:
    """An image whose layers are the (uncompressed) texts."""
    blobs = images.layout.blobs
    pointers = tuple(blobs.put(media_types.OCI_LAYER, text.encode()) for text in layers)
    config = ImageConfig(
        Platform("linux", arch), diff_ids=tuple(each.digest for each in pointers), created=created
    )
    return Image.of(config, pointers).write(blobs)


def ref(text: str) -> Reference:
    return Reference.parse(text)


def id_of(images: Images, descriptor: Descriptor) -> Digest:
    return images.for_platform(descriptor).id


def test_a_tagged_image_is_found_by_every_form_of_its_name(images: Images) -> None:
    made = make(images, "one")
    images.tag(ref("app"), made)
    identity = id_of(images, made)
    forms = ["app", "app:latest", "docker.io/library/app", f"app@{made.digest}", f"app:x@{made.digest}"]
    forms += [identity.hex, str(identity), identity.short, identity.hex[:4], f"sha256:{identity.hex[:9]}"]
    for text in forms:
        assert images.resolve(text).id == identity, text
    assert [name.familiar() for name in images.resolve("app").names] == ["app:latest"]


@pytest.mark.parametrize("text", ["app:1.0", "other", "abc", "UPPER", "", "app@sha256:" + "0" * 64, "0" * 64])
def test_what_is_not_there_is_not_found(images: Images, text: str) -> None:
    images.tag(ref("app"), make(images, "one"))
    with pytest.raises(NotFound) as caught:
        images.resolve(text)
    assert caught.value.hint


def test_a_near_miss_is_named(images: Images) -> None:
    images.tag(ref("myapp:1.0"), make(images, "one"))
    for text in ("myap:1.0", "myapp:1.1", "myapp"):
        with pytest.raises(NotFound) as caught:
            images.resolve(text)
        assert caught.value.hint == "did you mean myapp:1.0?"


def test_an_ambiguous_id_lists_the_ids(images: Images) -> None:
    by_start: dict[str, list[Digest]] = {}
    number = 0
    while not any(len(each) > 1 for each in by_start.values()):
        made = make(images, f"layer {number}")
        images.keep(made)
        identity = id_of(images, made)
        by_start.setdefault(identity.hex[:1], []).append(identity)
        number += 1
    # Four digits rarely collide: the rule is the same for any length, so look at one of one digit.
    import builder.images as module

    start, ids = next((start, ids) for start, ids in by_start.items() if len(ids) > 1)
    before = module._HEX_ID
    module._HEX_ID = module.re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
    try:
        with pytest.raises(UsageError) as caught:
            images.resolve(start)
        assert all(each.short in str(caught.value) for each in ids)
        with pytest.raises(UsageError):
            images.remove(start)
    finally:
        module._HEX_ID = before


def test_a_name_is_stronger_than_an_id(images: Images) -> None:
    one, two = make(images, "one"), make(images, "two")
    images.keep(one)
    name = id_of(images, one).hex[:6]
    images.tag(ref(name), two)
    assert images.resolve(name).id == id_of(images, two)


def test_a_name_that_moves_leaves_its_image_unnamed(images: Images) -> None:
    one, two = make(images, "one"), make(images, "two", created="2025-01-01T00:00:00Z")
    images.tag(ref("app"), one)
    images.tag(ref("app"), two)
    assert [(each.descriptor.digest, len(each.names)) for each in images.entries()] == [
        (two.digest, 1),
        (one.digest, 0),
    ]
    images.tag(ref("app"), one)
    assert [len(each.names) for each in images.entries()] == [0, 1]


def test_tagging_again_changes_nothing(images: Images) -> None:
    made = make(images, "one")
    images.tag(ref("app"), made)
    before = images.layout.descriptors()
    images.tag(ref("app"), made)
    images.keep(made)
    assert images.layout.descriptors() == before


def test_a_tag_needs_a_name_and_a_blob(images: Images) -> None:
    made = make(images, "one")
    with pytest.raises(UsageError):
        images.tag(ref(f"app@{made.digest}"), made)
    with pytest.raises(BlobNotFound):
        images.tag(ref("app"), Descriptor.of(media_types.OCI_MANIFEST, b"not stored"))
    assert images.entries() == []


def test_removing_one_of_two_names_only_untags(images: Images) -> None:
    made = make(images, "one")
    images.tag(ref("app:1"), made)
    images.tag(ref("app:2"), made)
    removal = images.remove("app:1")
    assert (removal.untagged, removal.deleted, removal.freed) == (("app:1",), (), 0)
    assert images.resolve("app:2").id == id_of(images, made)


def test_removing_the_last_name_removes_the_image_and_what_only_it_used(images: Images) -> None:
    one, two = make(images, "shared", "mine"), make(images, "shared", "yours")
    images.tag(ref("one"), one)
    images.tag(ref("two"), two)
    identity = id_of(images, one)
    removal = images.remove("one")
    assert removal.untagged == ("one:latest",)
    assert removal.deleted == (identity, Digest.of(b"mine"))
    assert set(images.layout.blobs) == reachable(images.layout.blobs, [two])
    assert removal.freed > len("mine")
    images.remove("two")
    assert list(images.layout.blobs) == [] and images.entries() == []


def test_removing_by_id_takes_all_names_of_one_repository(images: Images) -> None:
    made = make(images, "one")
    images.tag(ref("app:1"), made)
    images.tag(ref("app:2"), made)
    removal = images.remove(id_of(images, made).short)
    assert set(removal.untagged) == {"app:1", "app:2"} and removal.deleted


def test_removing_by_id_across_repositories_needs_force(images: Images) -> None:
    made = make(images, "one")
    images.tag(ref("one"), made)
    images.tag(ref("two"), made)
    short = id_of(images, made).short
    with pytest.raises(UsageError, match="one:latest, two:latest"):
        images.remove(short)
    assert len(images.entries()[0].names) == 2
    assert images.remove(short, force=True).deleted
    assert images.entries() == []


def test_layers_of_the_build_cache_stay(state: StateDir, images: Images) -> None:
    images.tag(ref("app"), make(images, "cached", "not cached"))
    state.steps().put("key", json.dumps({"layer": {"digest": str(Digest.of(b"cached"))}}))
    images.remove("app")
    assert list(images.layout.blobs) == [Digest.of(b"cached")]
    state.steps().delete(["key"])
    assert images.collect() == len("cached")
    assert list(images.layout.blobs) == []


def test_a_living_build_keeps_its_blobs(state: StateDir, images: Images) -> None:
    """SECURITY.md R08."""
    base = make(images, "base")
    images.tag(ref("base"), base)
    with state.lease() as lease:
        lease.add(reachable(images.layout.blobs, [base]))
        new = images.layout.blobs.write(b"half a build")
        assert images.remove("base").deleted == ()
        images.collect()
        assert new in images.layout.blobs and base.digest in images.layout.blobs
    images.collect()
    assert list(images.layout.blobs) == []


def test_untag_leaves_the_image(images: Images) -> None:
    made = make(images, "one")
    images.tag(ref("app"), made)
    images.untag(ref("app"))
    (entry,) = images.entries()
    assert (entry.descriptor.digest, entry.names) == (made.digest, ())
    with pytest.raises(NotFound):
        images.untag(ref("app"))


def test_an_index_shows_this_machines_platform_and_goes_whole(images: Images) -> None:
    arch = "arm64" if os.uname().machine == "aarch64" else "amd64"
    other = "s390x"
    pair = tuple(make(images, name, arch=name) for name in (other, arch))
    index = index_of(pair)
    pointer = images.layout.blobs.put(media_types.OCI_INDEX, index.content)
    images.tag(ref("multi"), pointer)
    entry = images.resolve("multi")
    assert entry.image.platform.architecture == arch
    assert entry.descriptor.digest == pointer.digest
    images.remove("multi")
    assert list(images.layout.blobs) == []


def test_a_damaged_image_hides_nothing_and_can_be_removed(images: Images) -> None:
    good, bad = make(images, "good"), make(images, "bad")
    images.tag(ref("good"), good)
    images.tag(ref("bad"), bad)
    os.unlink(images.layout.blobs.path(bad.digest))
    told = []
    entries = images.entries(lambda descriptor, error: told.append((descriptor.digest, str(error))))
    assert [each.descriptor.digest for each in entries] == [good.digest]
    assert told[0][0] == bad.digest and "is not in" in told[0][1]
    with pytest.raises(BlobNotFound):
        images.entries()
    assert images.remove("bad").untagged == ("bad:latest",)
    assert images.resolve("good")


def test_missing_platforms_of_an_index_do_not_cost_the_others(images: Images) -> None:
    arch = "arm64" if os.uname().machine == "aarch64" else "amd64"
    gone, here = make(images, "gone", arch="s390x"), make(images, "here", arch=arch)
    pointer = images.layout.blobs.put(media_types.OCI_INDEX, index_of((gone, here)).content)
    os.unlink(images.layout.blobs.path(gone.digest))
    images.tag(ref("multi"), pointer)
    images.tag(ref("other"), make(images, "here", "more", arch=arch))
    images.remove("other")
    assert Digest.of(b"here") in images.layout.blobs
    assert images.resolve("multi").image.layers


def test_names_other_tools_wrote_are_read(images: Images) -> None:
    made = make(images, "one")
    path = Path(images.layout.root, "index.json")
    document = json.loads(path.read_text())
    document["manifests"] = [
        {
            "mediaType": made.media_type,
            "digest": str(made.digest),
            "size": made.size,
            "annotations": {"org.opencontainers.image.ref.name": "latest and/or greatest"},
        },
        {
            "mediaType": made.media_type,
            "digest": str(made.digest),
            "size": made.size,
            "annotations": {CONTAINERD_NAME: "docker.io/library/app:latest"},
        },
    ]
    path.write_text(json.dumps(document))
    (entry,) = images.entries()
    assert [name.familiar() for name in entry.names] == ["app:latest"]
