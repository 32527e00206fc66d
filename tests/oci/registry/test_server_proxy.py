"""A registry that fetches from another what it does not have (the pull-through cache)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from served import Registry, digest_of, served

from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import ManifestUnknown, RegistryError
from oci.layout import Layout
from oci.model import Descriptor
from oci.registry.moving import Watch
from oci.registry.server import proxy


@dataclass
class Behind:
    """The registry behind, asked through its own API; it may be out of reach."""

    registry: Registry
    reachable: bool = True
    asked: list[str] = field(default_factory=list)

    def fetch_manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        answer = self._ask(f"/v2/{repository}/manifests/{reference}")
        return answer.headers["content-type"], answer.body

    def has_blob(self, repository: str, descriptor: Descriptor) -> bool:
        try:
            self._ask(f"/v2/{repository}/blobs/{descriptor.digest}", "HEAD")
        except ManifestUnknown:
            return False
        return True

    def fetch_blob(self, repository: str, descriptor: Descriptor, store: BlobStore, watch: Watch) -> None:
        answer = self._ask(f"/v2/{repository}/blobs/{descriptor.digest}")
        with store.writer() as writer:
            writer.write(answer.body)
            writer.commit(descriptor)

    def close(self) -> None:
        pass

    def _ask(self, path: str, method: str = "GET"):  # type: ignore[no-untyped-def]
        self.asked.append(path if method == "GET" else f"{method} {path}")
        if not self.reachable:
            raise RegistryError("out of reach")
        answer = self.registry.ask(method, path)
        if answer.status == 404:
            raise ManifestUnknown("not there", status=404)
        assert answer.status == 200
        return answer


@pytest.fixture
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    with served(Layout.create(tmp_path_factory.mktemp("behind"))) as registry:
        yield Behind(registry)


@pytest.fixture
def cache(layout: Layout, behind: Behind) -> Iterator[Registry]:
    with served(layout, upstream=behind) as registry:
        yield registry


def pull(registry: Registry, reference: str, name: str = "app") -> str:
    """Pull an image whole; its digest."""
    answer = registry.ask("GET", f"/v2/{name}/manifests/{reference}")
    assert answer.status == 200, answer
    for part in (answer.json["config"], *answer.json["layers"]):
        content = registry.ask("GET", f"/v2/{name}/blobs/{part['digest']}").body
        assert digest_of(content) == part["digest"]
    return answer.headers["docker-content-digest"]


def test_what_is_not_here_is_fetched_once(cache: Registry, behind: Behind) -> None:
    digest = behind.registry.manifest("app", "1")
    assert pull(cache, "1") == pull(cache, "1") == pull(cache, digest) == digest
    assert len(behind.asked) == 3
    assert cache.tags("app") == ["1"]


def test_by_digest(cache: Registry, behind: Behind) -> None:
    digest = behind.registry.manifest("app", "1")
    assert pull(cache, digest) == digest
    assert len(behind.asked) == 3


def test_an_index_and_the_image_that_is_wanted_of_it(cache: Registry, behind: Behind) -> None:
    content = behind.registry.document("app")
    digest = behind.registry.manifest("app")
    index = behind.registry.index("app", "1", [(digest, len(content)), ("sha256:" + "0" * 64, 99)])
    assert cache.ask("HEAD", "/v2/app/manifests/1").headers["docker-content-digest"] == index
    assert pull(cache, digest) == digest
    assert cache.ask("GET", "/v2/app/manifests/sha256:" + "0" * 64).status == 404


def test_what_is_nowhere(cache: Registry, behind: Behind) -> None:
    assert cache.ask("GET", "/v2/app/manifests/1").codes == ["MANIFEST_UNKNOWN"]
    assert cache.ask("GET", "/v2/app/manifests/sha256:" + "0" * 64).codes == ["MANIFEST_UNKNOWN"]


def test_only_what_a_manifest_mentions_is_fetched(cache: Registry, behind: Behind) -> None:
    blob = behind.registry.blob("app", b"alone")
    assert cache.ask("GET", f"/v2/app/blobs/{blob}").status == 404
    assert behind.asked == []


def test_who_asks_after_a_blob_does_not_have_it_fetched(cache: Registry, behind: Behind) -> None:
    behind.registry.manifest("app", "1")
    layer = cache.ask("GET", "/v2/app/manifests/1").json["layers"][0]
    path = f"/v2/app/blobs/{layer['digest']}"
    for _ in range(2):
        answer = cache.ask("HEAD", path)
        assert answer.status == 200 and answer.headers["docker-content-digest"] == layer["digest"]
        assert int(answer.headers["content-length"]) == layer["size"]
    assert cache.ask("HEAD", path, If_None_Match=f'"{layer["digest"]}"').status == 304
    assert (
        behind.asked[1:] == [f"HEAD {path}"] * 3 and Digest.parse(layer["digest"]) not in cache.layout.blobs
    )
    cache.ask("GET", path)
    assert cache.ask("HEAD", path).status == 200 and len(behind.asked) == 5
    behind.registry.ask("DELETE", f"/v2/app/blobs/{layer['digest']}")
    config = cache.ask("GET", "/v2/app/manifests/1").json["config"]["digest"]
    behind.registry.ask("DELETE", f"/v2/app/blobs/{config}")
    assert cache.ask("HEAD", f"/v2/app/blobs/{config}").status == 404
    assert cache.ask("HEAD", "/v2/app/blobs/sha256:" + "0" * 64).status == 404
    behind.reachable = False
    assert cache.ask("HEAD", f"/v2/app/blobs/{config}").status == 502


def test_what_was_fetched_is_there_when_the_other_is_not(
    cache: Registry, behind: Behind, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = behind.registry.manifest("app", "1")
    pull(cache, "1")
    behind.reachable = False
    monkeypatch.setattr(proxy, "FRESH_SECONDS", -1.0)
    assert pull(cache, "1") == digest
    answer = cache.ask("GET", "/v2/app/manifests/2")
    assert answer.status == 502 and "out of reach" in answer.json["errors"][0]["message"]


def test_a_tag_that_moved(cache: Registry, behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    old = behind.registry.manifest("app", "1")
    assert pull(cache, "1") == old
    new = behind.registry.manifest("app", "1", annotations={"a": "b"})
    assert pull(cache, "1") == old  # still fresh
    monkeypatch.setattr(proxy, "FRESH_SECONDS", -1.0)
    assert pull(cache, "1") == new
    assert pull(cache, old) == old


def test_it_takes_no_pushes(cache: Registry) -> None:
    assert cache.ask("POST", "/v2/app/blobs/uploads/").codes == ["UNSUPPORTED"]


def test_many_at_once_fetch_once(cache: Registry, behind: Behind) -> None:
    behind.registry.manifest("app", "1")
    threads = [threading.Thread(target=pull, args=(cache, "1")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(behind.asked) == 3


def test_nothing_of_the_cache_becomes_a_name_of_the_store(
    cache: Registry, behind: Behind, layout: Layout
) -> None:
    digest = behind.registry.manifest("app", "1")
    cache.ask("HEAD", "/v2/app/manifests/1")
    assert layout.descriptors() == () and Digest.parse(digest) in layout.blobs


def test_a_cache_that_is_a_cache_no_more(layout: Layout, behind: Behind) -> None:
    """What was fetched is served and listed, and may be deleted, as if it had been pushed."""
    first, second = (behind.registry.manifest("app", tag, annotations={"n": tag}) for tag in "12")
    with served(layout, upstream=behind) as cache:
        assert [pull(cache, tag) for tag in "12"] == [first, second]
    behind.reachable = False
    with served(layout) as registry:
        assert registry.tags("app") == ["1", "2"] and pull(registry, "1") == first
        assert registry.ask("DELETE", "/v2/app/manifests/1").status == 202
        assert registry.ask("DELETE", f"/v2/app/manifests/{second}").status == 202
        for tag in "12":
            assert registry.ask("GET", f"/v2/app/manifests/{tag}").status == 404
        assert registry.tags("app") == [] and pull(registry, first) == first
        pushed = registry.manifest("app", "2", annotations={"n": "3"})
        assert registry.tags("app") == ["2"] and pull(registry, "2") == pushed
