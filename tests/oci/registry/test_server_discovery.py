"""Lists of tags, of repositories, and of what refers to a manifest (distribution-spec: Content Discovery)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from served import CONFIG, EMPTY, INDEX, MANIFEST, Answer, Registry, descriptor, digest_of, served

from oci.layout import Layout
from oci.registry.server import listing

SUBJECT = descriptor(MANIFEST, b"the subject")
SBOM, SIGNATURE = "application/vnd.example.sbom", "application/vnd.example.signature"


@pytest.fixture
def registry(layout: Layout) -> Iterator[Registry]:
    with served(layout) as registry:
        yield registry


def pages(registry: Registry, path: str) -> list[Answer]:
    """The pages that Link leads through."""
    found = []
    while path:
        answer = registry.ask("GET", path)
        assert answer.status == 200, answer
        found.append(answer)
        link = answer.headers.get("link", "")
        assert not link or link.endswith('>; rel="next"')
        path = link[1:].partition(">")[0]
    return found


def tag_all(registry: Registry, tags: list[str]) -> None:
    content = registry.document("app")
    query = "&".join(f"tag={tag}" for tag in tags)
    answer = registry.ask(
        "PUT", f"/v2/app/manifests/{digest_of(content)}?{query}", content, Content_Type=MANIFEST
    )
    assert answer.status == 201


def test_tags_in_order(registry: Registry) -> None:
    """Lexical, "i.e. case-insensitive alphanumeric order"."""
    tag_all(registry, ["b", "a10", "a9", "A", "a", "C", "_x", "1.0", "1", "B"])
    answer = registry.ask("GET", "/v2/app/tags/list")
    ordered = ["1", "1.0", "_x", "A", "a", "a10", "a9", "B", "b", "C"]
    assert answer.json == {"name": "app", "tags": ordered}
    assert answer.headers["content-type"] == "application/json" and "link" not in answer.headers


def test_pages_of_tags(registry: Registry) -> None:
    tags = [f"v{number}" for number in range(7)]
    tag_all(registry, tags)
    found = [page.json["tags"] for page in pages(registry, "/v2/app/tags/list?n=3")]
    assert found == [tags[:3], tags[3:6], tags[6:]]
    assert [page.json["tags"] for page in pages(registry, "/v2/app/tags/list?n=7")] == [tags]
    assert registry.ask("GET", "/v2/app/tags/list?n=1&last=V3").json["tags"] == ["v3"]
    assert "link" not in registry.ask("GET", "/v2/app/tags/list?n=7").headers


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?n=0", []),
        ("?last=v1", ["v2", "v3"]),
        ("?last=v1&n=1", ["v2"]),
        ("?last=v10", ["v2", "v3"]),
        ("?last=v3", []),
        ("?last=zzz&n=2", []),
        ("?n=100", ["v0", "v1", "v2", "v3"]),
    ],
)
def test_some_tags(registry: Registry, query: str, expected: list[str]) -> None:
    tag_all(registry, ["v0", "v1", "v2", "v3"])
    answer = registry.ask("GET", f"/v2/app/tags/list{query}")
    assert answer.json["tags"] == expected
    assert ("link" in answer.headers) is (query == "?last=v1&n=1")


@pytest.mark.parametrize("n", ["-1", "x", "", "1.5"])
def test_a_number_that_is_none(registry: Registry, n: str) -> None:
    tag_all(registry, ["v0"])
    assert registry.ask("GET", f"/v2/app/tags/list?n={n}").status == 400


def test_tags_of_a_repository_with_blobs_only(registry: Registry) -> None:
    registry.blob("app", b"content")
    assert registry.tags("app") == []


def test_the_catalog(registry: Registry) -> None:
    assert registry.ask("GET", "/v2/_catalog").json == {"repositories": []}
    for name in ("b", "a/b/c", "a"):
        registry.manifest(name, "1")
    assert registry.ask("GET", "/v2/_catalog").json == {"repositories": ["a", "a/b/c", "b"]}
    found = pages(registry, "/v2/_catalog?n=2")
    assert [page.json["repositories"] for page in found] == [["a", "a/b/c"], ["b"]]


def refer(registry: Registry, **fields: Any) -> str:
    """Push a manifest about SUBJECT, by digest."""
    return registry.manifest("app", **{"subject": SUBJECT, **fields})


def listed(registry: Registry, query: str = "") -> list[dict[str, Any]]:
    answer = registry.ask("GET", f"/v2/app/referrers/{SUBJECT['digest']}{query}")
    assert answer.status == 200 and answer.headers["content-type"] == INDEX
    value = answer.json
    assert (value["schemaVersion"], value["mediaType"]) == (2, INDEX)
    entries: list[dict[str, Any]] = value["manifests"]
    return entries


def test_referrers_say_what_they_are(registry: Registry) -> None:
    sbom = refer(registry, artifactType=SBOM, annotations={"made.by": "us", "ü": "<&>"})
    plain = refer(registry)
    registry.manifest("app", subject={**SUBJECT, "digest": "sha256:" + "1" * 64})
    content = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [],
            "subject": SUBJECT,
            "annotations": {"a": "b"},
        }
    ).encode()
    registry.ask("PUT", f"/v2/app/manifests/{digest_of(content)}", content, Content_Type=INDEX)
    found = {entry["digest"]: entry for entry in listed(registry)}
    assert set(found) == {sbom, plain, digest_of(content)}
    assert found[sbom]["artifactType"] == SBOM
    assert found[sbom]["annotations"] == {"made.by": "us", "ü": "<&>"}
    assert found[sbom]["mediaType"] == MANIFEST
    size = len(registry.ask("GET", f"/v2/app/manifests/{sbom}").body)
    assert found[sbom]["size"] == size
    assert found[plain]["artifactType"] == CONFIG
    index = found[digest_of(content)]
    assert (index["mediaType"], index["annotations"]) == (INDEX, {"a": "b"})
    assert "artifactType" not in index


def test_nothing_refers_to_it(registry: Registry) -> None:
    assert listed(registry) == []
    registry.manifest("app", "1")
    assert listed(registry) == []


def test_referrers_of_one_kind(registry: Registry) -> None:
    refer(registry, artifactType=SBOM)
    signature = refer(registry, artifactType=SIGNATURE)
    path = f"/v2/app/referrers/{SUBJECT['digest']}"
    answer = registry.ask("GET", f"{path}?artifactType={SIGNATURE}")
    assert [entry["digest"] for entry in answer.json["manifests"]] == [signature]
    assert answer.headers["oci-filters-applied"] == "artifactType"
    assert listed(registry, "?artifactType=none/such") == []
    assert "oci-filters-applied" not in registry.ask("GET", path).headers


def test_pages_of_referrers(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {refer(registry, artifactType=SBOM, annotations={"n": str(n)}) for n in range(5)}
    refer(registry, artifactType=SIGNATURE)
    path = f"/v2/app/referrers/{SUBJECT['digest']}?artifactType={SBOM}"
    for query, sizes in (("&n=2", [2, 2, 1]), ("", [5])):
        found = pages(registry, path + query)
        entries = [entry["digest"] for page in found for entry in page.json["manifests"]]
        assert set(entries) == digests and len(entries) == 5
        assert [len(page.json["manifests"]) for page in found] == sizes
        assert all(page.headers["oci-filters-applied"] == "artifactType" for page in found)
    monkeypatch.setattr(listing, "MAX_REFERRERS", 700)
    assert [len(page.json["manifests"]) for page in pages(registry, path)] == [2, 2, 1]


def test_a_deleted_referrer_is_listed_no_more(registry: Registry) -> None:
    digest = refer(registry, artifactType=SBOM)
    registry.ask("DELETE", f"/v2/app/manifests/{digest}")
    assert listed(registry) == []


def test_referrers_stay_in_their_repository(registry: Registry) -> None:
    registry.manifest("other", subject=SUBJECT)
    assert listed(registry) == []


@pytest.mark.parametrize("what", ["nonsense", "sha256:short", "sha256:" + "A" * 64, "1.0"])
def test_referrers_of_what_is_no_digest(registry: Registry, what: str) -> None:
    answer = registry.ask("GET", f"/v2/app/referrers/{what}")
    assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])


def test_an_artifact_without_a_type_is_what_its_config_is(registry: Registry) -> None:
    registry.blob("app", b"{}")
    value = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(EMPTY, b"{}"), "layers": [],
             "subject": SUBJECT}  # fmt: skip
    content = json.dumps(value).encode()
    registry.ask("PUT", "/v2/app/manifests/a", content, Content_Type=MANIFEST)
    assert [entry["artifactType"] for entry in listed(registry)] == [EMPTY]
