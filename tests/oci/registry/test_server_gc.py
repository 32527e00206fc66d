"""Forgetting what nobody needs, beside a server that runs (R08, R28)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from served import MANIFEST, Registry, descriptor, digest_of, served

from oci.digest import Digest
from oci.layout import Layout
from oci.registry.server.gc import Trimmed, trim
from oci.registry.server.links import Links, kept


@pytest.fixture
def registry(layout: Layout) -> Iterator[Registry]:
    with served(layout) as registry:
        yield registry


def collect(layout: Layout, *, untagged: bool = False, age: float = 0.0, dry_run: bool = False) -> Trimmed:
    """As another process does it: trim the links, then delete what neither they nor names keep."""
    links = Links(layout.root)
    try:
        return trim(layout, links, untagged=untagged, age=age, dry_run=dry_run)
    finally:
        links.close()


def has(registry: Registry, digest: str, kind: str = "manifests") -> bool:
    return registry.ask("HEAD", f"/v2/app/{kind}/{digest}").status == 200


def test_blobs_that_no_manifest_mentions_go(registry: Registry) -> None:
    registry.manifest("app", "1")
    loose = registry.blob("app", b"loose")
    assert collect(registry.layout, dry_run=True).blobs == (("app", Digest.parse(loose)),)
    assert has(registry, loose, "blobs")
    assert collect(registry.layout).blobs == (("app", Digest.parse(loose)),)
    assert not has(registry, loose, "blobs")
    assert collect(registry.layout) == Trimmed()


def test_what_is_young_stays(registry: Registry) -> None:
    loose = registry.blob("app", b"loose")
    registry.manifest("app")
    assert collect(registry.layout, untagged=True, age=60) == Trimmed()
    assert has(registry, loose, "blobs")


def test_who_asks_for_a_blob_renews_it(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    loose = registry.blob("app", b"loose")
    links = Links(registry.layout.root)
    with links._writing() as database:
        database.execute("UPDATE blobs SET added = added - 90000")
    assert collect(registry.layout, age=86400, dry_run=True).blobs
    assert has(registry, loose, "blobs")
    assert not collect(registry.layout, age=86400).blobs
    links.close()


def test_manifests_without_a_tag_go_only_if_so_wanted(registry: Registry) -> None:
    old = registry.manifest("app", "1", annotations={"n": "1"})
    new = registry.manifest("app", "1", annotations={"n": "2"})
    assert collect(registry.layout) == Trimmed()
    assert collect(registry.layout, untagged=True).manifests == (("app", Digest.parse(old)),)
    assert not has(registry, old) and has(registry, new) and has(registry, "1")


def test_what_an_index_or_a_subject_leads_to_stays(registry: Registry) -> None:
    content = registry.document("app")
    child = registry.manifest("app")
    index = registry.index("app", "1", [(child, len(content))])
    subject = descriptor(MANIFEST, content)
    sbom = registry.manifest("app", subject=subject)
    signature = registry.manifest(
        "app", subject={**subject, "digest": sbom}, annotations={"about": "the sbom"}
    )
    lost = registry.manifest("app", subject={**subject, "digest": "sha256:" + "0" * 64})
    assert collect(registry.layout, untagged=True).manifests == (("app", Digest.parse(lost)),)
    assert all(has(registry, digest) for digest in (child, index, sbom, signature))


def test_everything_linked_is_kept_from_other_collectors(registry: Registry) -> None:
    manifest = registry.manifest("app")
    blob = registry.blob("app", b"loose")
    parts = json.loads(registry.document("app"))
    expected = {manifest, blob, parts["config"]["digest"], parts["layers"][0]["digest"]}
    assert kept(registry.layout.root) == {Digest.parse(text) for text in expected}
    assert kept("/nowhere") == set()


def test_an_emptied_repository_is_forgotten(registry: Registry) -> None:
    digest = registry.manifest("app", "1")
    registry.ask("DELETE", f"/v2/app/manifests/{digest}")
    collect(registry.layout)
    assert registry.tags_or_none("app") is None


def test_a_manifest_whose_bytes_are_gone_is_forgotten(registry: Registry) -> None:
    digest = registry.manifest("app")
    registry.layout.blobs.delete(Digest.parse(digest))
    assert ("app", Digest.parse(digest)) in collect(registry.layout).manifests


def test_beside_pushes(registry: Registry) -> None:
    """R08, R28. With no grace at all a push may have to begin again; what it was told is there, is there."""
    stop = threading.Event()

    def trimming() -> None:
        while not stop.is_set():
            collect(registry.layout, untagged=True, age=60)

    collector = threading.Thread(target=trimming)
    collector.start()
    for number in range(30):
        digest = registry.manifest("app", "1", annotations={"n": str(number)})
        assert has(registry, digest)
    stop.set()
    collector.join()


def test_a_collector_waits_for_a_request_that_makes_blobs(layout: Layout) -> None:
    """The guard that the builder hands in is held while a blob is placed and linked."""
    held: list[int] = []

    class Watched:
        def add(self, digests: object) -> None:
            held.append(len(list(digests)))  # type: ignore[call-overload]

    @contextmanager
    def guard() -> Iterator[Watched]:
        before = set(layout.blobs)
        yield Watched()
        for digest in set(layout.blobs) - before:
            assert digest in kept(layout.root)

    with served(layout, guard=guard) as registry:
        digest = registry.manifest("app", "1")
        registry.ask("POST", f"/v2/other/blobs/uploads/?mount={digest_of(b'tar of layer')}&from=app")
        assert has(registry, digest) and held
