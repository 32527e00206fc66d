"""The store's names and the registry's repositories are the same images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from served import EMPTY, MANIFEST, Registry, descriptor, served

from oci.image import Image, index_of
from oci.layout import Layout, name_of
from oci.model import Descriptor, Platform
from oci.validate import validate

MakeImage = Callable[..., Image]


@pytest.fixture
def registry(layout: Layout) -> Iterator[Registry]:
    with served(layout) as registry:
        yield registry


@pytest.fixture
def build(layout: Layout, make_image: MakeImage) -> Callable[..., Descriptor]:
    """Make an image of the store under names, as a build does."""

    def make(*names: str, text: bytes = b"hello") -> Descriptor:
        image = make_image(layout.blobs, text)
        with layout.editing() as edited:
            for name in names:
                edited.set(name, image.descriptor)
        return image.descriptor

    return make


def means(registry: Registry, name: str, tag: str) -> str | None:
    answer = registry.ask("HEAD", f"/v2/{name}/manifests/{tag}")
    return answer.headers["docker-content-digest"] if answer.status == 200 else None


def pull(registry: Registry, name: str, tag: str) -> None:
    manifest = registry.ask("GET", f"/v2/{name}/manifests/{tag}").json
    for part in (manifest["config"], *manifest["layers"]):
        answer = registry.ask("GET", f"/v2/{name}/blobs/{part['digest']}")
        assert (answer.status, len(answer.body)) == (200, part["size"])


@pytest.mark.parametrize(
    ("name", "repositories"),
    [
        ("docker.io/library/app:1", ["app", "library/app"]),
        ("docker.io/team/app:1", ["team/app"]),
        ("registry.example/team/app:1", ["team/app"]),
        ("localhost:{port}/app:1", ["app"]),
        ("127.0.0.1:{port}/app:1", ["app"]),
    ],
)
def test_what_was_built_is_served_at_once(
    registry: Registry, build: Callable[..., Descriptor], name: str, repositories: list[str]
) -> None:
    assert registry.ask("GET", "/v2/app/tags/list").status == 404
    descriptor = build(name.format(port=registry.port))
    for repository in repositories:
        assert means(registry, repository, "1") == str(descriptor.digest)
        assert registry.tags(repository) == ["1"]
        pull(registry, repository, "1")
        pull(registry, repository, str(descriptor.digest))
    assert registry.ask("GET", "/v2/_catalog").json["repositories"] == [repositories[0]]


def test_what_was_pushed_is_in_the_store(registry: Registry, layout: Layout) -> None:
    digest = registry.manifest("team/app", "1.0")
    (entry,) = layout.descriptors()
    assert name_of(entry) == f"127.0.0.1:{registry.port}/team/app:1.0"
    assert str(entry.digest) == digest


def test_a_registry_with_a_name_of_its_own(layout: Layout) -> None:
    with served(layout, hostname="registry.example:5000") as registry:
        registry.manifest("app", "1")
        assert [name_of(entry) for entry in layout.descriptors()] == ["registry.example:5000/app:1"]


def test_a_name_of_our_own_goes_before_others(registry: Registry, build: Callable[..., Descriptor]) -> None:
    build("docker.io/library/app:1", text=b"built")
    pushed = registry.manifest("app", "1")
    assert means(registry, "app", "1") == pushed


def test_names_that_disagree_are_not_guessed_at(registry: Registry, build: Callable[..., Descriptor]) -> None:
    one = build("a.example/app:1", "b.example/app:2", text=b"one")
    build("b.example/app:1", text=b"two")
    answer = registry.ask("GET", "/v2/app/manifests/1")
    assert answer.status == 404
    message = answer.json["errors"][0]["message"]
    assert "a.example, b.example" in message and f"127.0.0.1:{registry.port}/app:1" in message
    assert registry.tags("app") == ["2"]
    build(f"127.0.0.1:{registry.port}/app:1", text=b"one")
    assert means(registry, "app", "1") == str(one.digest)


def test_names_that_agree_are_one(registry: Registry, build: Callable[..., Descriptor]) -> None:
    descriptor = build("a.example/app:1", "b.example/app:1")
    assert means(registry, "app", "1") == str(descriptor.digest)


def test_an_image_that_was_pulled_by_digest(
    registry: Registry, layout: Layout, make_image: MakeImage
) -> None:
    descriptor = make_image(layout.blobs).descriptor
    with layout.editing() as names:
        names.set(f"registry.example/app@{descriptor.digest}", descriptor)
    pull(registry, "app", str(descriptor.digest))
    assert registry.tags("app") == []


@pytest.mark.parametrize("by_tag", [True, False])
def test_what_refers_to_an_image_of_the_store(
    registry: Registry, layout: Layout, make_image: MakeImage, by_tag: bool
) -> None:
    """Named itself, or listed in an index under the tag that clients of older registries maintain."""
    image = make_image(layout.blobs)
    about = replace(image.manifest.value, subject=image.descriptor, artifact_type="example/sbom")
    referrer = replace(
        layout.blobs.put(image.descriptor.media_type, about.to_json()), artifact_type="example/sbom"
    )
    listed = layout.blobs.put("application/vnd.oci.image.index.v1+json", index_of((referrer,)).content)
    with layout.editing() as names:
        names.set("docker.io/library/app:1", image.descriptor)
        if by_tag:
            names.set(f"docker.io/library/app:sha256-{image.descriptor.digest.hex}", listed)
        else:
            names.set("docker.io/library/app:sbom", referrer)
    found = registry.ask("GET", f"/v2/app/referrers/{image.descriptor.digest}").json["manifests"]
    assert [(entry["digest"], entry["artifactType"]) for entry in found] == [
        (str(referrer.digest), "example/sbom")
    ]


def test_a_layer_that_is_here_need_not_be_pushed(
    registry: Registry, build: Callable[..., Descriptor]
) -> None:
    descriptor = build("docker.io/library/base:1")
    layer = registry.ask("GET", "/v2/base/manifests/1").json["layers"][0]["digest"]
    assert registry.ask("HEAD", f"/v2/app/blobs/{layer}").status == 404
    for query in (f"?mount={layer}&from=base", f"?mount={layer}"):
        assert registry.ask("POST", f"/v2/app/blobs/uploads/{query}").status == 201
    assert registry.ask("HEAD", f"/v2/app/blobs/{layer}").status == 200
    assert descriptor.digest in registry.layout.blobs


def test_deleting_here_takes_nothing_from_the_store(
    registry: Registry, layout: Layout, build: Callable[..., Descriptor]
) -> None:
    descriptor = build("docker.io/library/app:1", "docker.io/library/app:2")
    assert registry.ask("DELETE", "/v2/app/manifests/1").status == 202
    assert means(registry, "app", "1") is None and registry.tags("app") == ["2"]
    assert registry.ask("DELETE", f"/v2/app/manifests/{descriptor.digest}").status == 202
    assert registry.ask("GET", f"/v2/app/manifests/{descriptor.digest}").status == 404
    assert registry.tags("app") == []
    assert {name_of(entry) for entry in layout.descriptors()} == {
        "docker.io/library/app:1",
        "docker.io/library/app:2",
    }
    other = build("docker.io/library/app:1", text=b"built anew")
    assert means(registry, "app", "1") == str(other.digest)


def test_a_blob_of_the_store_can_be_taken_out_of_a_repository(
    registry: Registry, build: Callable[..., Descriptor]
) -> None:
    build("docker.io/library/app:1")
    layer = registry.ask("GET", "/v2/app/manifests/1").json["layers"][0]["digest"]
    assert registry.ask("DELETE", f"/v2/app/blobs/{layer}").status == 202
    assert registry.ask("HEAD", f"/v2/app/blobs/{layer}").status == 404
    assert len(registry.layout.blobs.path(registry.layout.descriptors()[0].digest)) > 0


def test_a_built_image_that_loses_its_name_to_a_push_stays(
    registry: Registry, layout: Layout, build: Callable[..., Descriptor]
) -> None:
    built = build(f"127.0.0.1:{registry.port}/app:1")
    registry.manifest("app", "1")
    assert [entry.digest for entry in layout.descriptors() if not name_of(entry)] == [built.digest]


def test_every_image_of_an_index_of_the_store(
    registry: Registry, layout: Layout, make_image: MakeImage
) -> None:
    parts = [make_image(layout.blobs, b"a", Platform("linux", name)) for name in ("amd64", "arm64")]
    content = index_of(tuple(part.descriptor for part in parts)).content
    pointer = layout.blobs.put("application/vnd.oci.image.index.v1+json", content)
    with layout.editing() as names:
        names.set("docker.io/library/app:1", pointer)
    for part in parts:
        pull(registry, "app", str(part.descriptor.digest))


def test_a_pushed_image_is_sound(
    registry: Registry, layout: Layout, build: Callable[..., Descriptor]
) -> None:
    build("docker.io/library/app:1")
    answer = registry.ask("GET", "/v2/app/manifests/1")
    for part in (answer.json["config"], *answer.json["layers"]):
        registry.blob("copy", registry.ask("GET", f"/v2/app/blobs/{part['digest']}").body)
    kind = answer.headers["content-type"]
    assert registry.ask("PUT", "/v2/copy/manifests/1", answer.body, Content_Type=kind).status == 201
    for entry in layout.descriptors():
        assert validate(layout, entry) == []


def test_an_artifact_says_in_the_index_that_it_is_none_of_the_images(
    registry: Registry, layout: Layout
) -> None:
    registry.blob("app", b"{}")
    value = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(EMPTY, b"{}"), "layers": [],
             "artifactType": "application/vnd.example.sbom"}  # fmt: skip
    registry.ask("PUT", "/v2/app/manifests/sbom", json.dumps(value).encode(), Content_Type=MANIFEST)
    kind = "application/vnd.example.thing+json"
    registry.ask("PUT", "/v2/app/manifests/thing", b"{}", Content_Type=kind)
    registry.manifest("app", "image")
    found = {name_of(entry).rpartition(":")[2]: entry for entry in layout.descriptors()}
    assert found["sbom"].artifact_type == "application/vnd.example.sbom"
    assert found["thing"].media_type == kind
    assert found["image"].artifact_type == ""


def test_the_database_may_be_lost(layout: Layout, build: Callable[..., Descriptor]) -> None:
    with served(layout, hostname="r.example") as registry:
        registry.manifest("app", "1")
    for path in (Path(layout.root) / "registry").glob("links.db*"):
        path.unlink()
    with served(layout, hostname="r.example") as registry:
        pull(registry, "app", "1")


def test_all_is_there_after_a_restart(layout: Layout) -> None:
    with served(layout, hostname="r.example") as registry:
        tagged, untagged = registry.manifest("app", "1"), registry.manifest("app", annotations={"a": "b"})
        blob = registry.blob("app", b"alone")
    with served(Layout.open(layout.root), hostname="r.example") as registry:
        assert means(registry, "app", "1") == tagged
        pull(registry, "app", untagged)
        assert registry.ask("GET", f"/v2/app/blobs/{blob}").body == b"alone"


def test_a_damaged_image_of_the_store_is_not_there_and_hides_nothing(
    registry: Registry, layout: Layout, build: Callable[..., Descriptor]
) -> None:
    descriptor = build("docker.io/library/app:1", text=b"damaged")
    build("docker.io/library/app:2")
    os.unlink(layout.blobs.path(descriptor.digest))
    assert registry.ask("GET", "/v2/app/manifests/1").status == 404
    pull(registry, "app", "2")
