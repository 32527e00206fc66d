"""Pushing and deleting manifests, tags and blobs (distribution-spec: Pushing Manifests, Deleting ...)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from served import CONFIG, EMPTY, INDEX, LAYER, MANIFEST, Registry, descriptor, digest_of, served

from oci import media_types
from oci.layout import Layout, name_of
from oci.registry.server import manifests
from oci.strict_json import MAX_DOCUMENT

DOCKER = media_types.DOCKER_MANIFEST


@pytest.fixture
def registry(layout: Layout) -> Iterator[Registry]:
    with served(layout) as registry:
        yield registry


def put(registry: Registry, reference: str, value: Any, kind: str = MANIFEST, name: str = "app") -> Any:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return registry.ask("PUT", f"/v2/{name}/manifests/{reference}", content, Content_Type=kind)


def test_by_tag(registry: Registry) -> None:
    content = registry.document("app")
    answer = put(registry, "v1.0_a-B", content)
    digest = digest_of(content)
    assert answer.status == 201 and answer.body == b""
    assert answer.headers["location"] == f"/v2/app/manifests/{digest}"
    assert answer.headers["docker-content-digest"] == digest
    assert registry.ask("GET", answer.headers["location"]).body == content
    assert registry.tags("app") == ["v1.0_a-B"]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_by_digest(registry: Registry, algorithm: str) -> None:
    content = registry.document("app")
    digest = digest_of(content, algorithm)
    answer = put(registry, digest, content)
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, digest)
    assert registry.ask("GET", f"/v2/app/manifests/{digest}").body == content
    assert registry.tags("app") == []


def test_by_digest_with_tags(registry: Registry) -> None:
    content = registry.document("app")
    digest = digest_of(content, "sha512")
    answer = put(registry, f"{digest}?tag=1&tag=1.2&tag=latest", content)
    assert (answer.status, answer.headers["location"]) == (201, f"/v2/app/manifests/{digest}")
    assert registry.tags("app") == ["1", "1.2", "latest"]
    assert registry.ask("HEAD", "/v2/app/manifests/1.2").headers["docker-content-digest"] == digest


def test_every_tag_that_was_set_is_told(registry: Registry) -> None:
    content = registry.document("app")
    head = f"PUT /v2/app/manifests/{digest_of(content)}?tag=1&tag=2 HTTP/1.1\r\nHost: x\r\nConnection: close"
    said = registry.raw(f"{head}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content)
    assert b"\r\nOCI-Tag: 1\r\n" in said and b"\r\nOCI-Tag: 2\r\n" in said


def test_too_many_tags_at_once(registry: Registry) -> None:
    content = registry.document("app")
    tags = "&".join(f"tag=t{number}" for number in range(manifests.MAX_TAGS + 1))
    assert put(registry, f"{digest_of(content)}?{tags}", content).status == 414
    assert registry.tags("app") == []


@pytest.mark.parametrize("reference", ["-bad", ".bad", "a" * 129, "a%2Fb", "a%20b", f"{'{}'}?tag=.bad"])
def test_a_tag_that_is_none(registry: Registry, reference: str) -> None:
    content = registry.document("app")
    answer = put(registry, reference.replace("{}", digest_of(content)), content)
    assert answer.status in (400, 404)
    assert registry.tags("app") == []


@pytest.mark.parametrize("reference", ["sha256:" + "0" * 64, "sha256:short", "sha1:" + "0" * 40])
def test_another_digest_than_the_contents(registry: Registry, reference: str) -> None:
    answer = put(registry, reference, registry.document("app"))
    assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])


def test_a_tag_moves_and_the_old_manifest_stays(registry: Registry) -> None:
    old = registry.manifest("app", "1")
    new = registry.manifest("app", "1", annotations={"a": "b"})
    assert registry.ask("HEAD", "/v2/app/manifests/1").headers["docker-content-digest"] == new
    assert registry.ask("GET", f"/v2/app/manifests/{old}").status == 200
    assert len(registry.layout.descriptors()) == 1


@pytest.mark.parametrize("kind", [MANIFEST, DOCKER])
def test_blobs_that_are_missing(registry: Registry, kind: str) -> None:
    value = json.loads(registry.document("app"))
    value["mediaType"] = kind
    value["layers"] += [descriptor(LAYER, b"one"), descriptor(LAYER, b"two")]
    answer = put(registry, "1", value, kind)
    assert (answer.status, answer.codes) == (404, ["MANIFEST_BLOB_UNKNOWN"] * 2)
    assert answer.json["errors"][0]["detail"] == {"digest": digest_of(b"one")}
    assert registry.tags("app") == []


def test_a_blob_of_another_repository_is_missing_too(registry: Registry) -> None:
    content = registry.document("other")
    assert put(registry, "1", content).codes == ["MANIFEST_BLOB_UNKNOWN"] * 2


def test_layers_from_elsewhere_need_not_be_here(registry: Registry) -> None:
    value = json.loads(registry.document("app"))
    value["layers"].append(descriptor(LAYER, b"windows", urls=["https://example.com/layer"]))
    assert put(registry, "1", value).status == 201


def test_an_image_without_layers(registry: Registry) -> None:
    registry.blob("app", b"{}")
    value = {"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, b"{}"), "layers": []}
    assert put(registry, "1", value).status == 201


def test_an_artifact(registry: Registry) -> None:
    registry.blob("app", b"{}")
    registry.blob("app", b"hello")
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/vnd.example.thing",
        "config": descriptor(EMPTY, b"{}", data="e30="),
        "layers": [descriptor("text/plain", b"hello")],
    }
    assert put(registry, "1", value).status == 201


def test_an_index_of_which_some_images_are_missing(registry: Registry) -> None:
    content = registry.document("app")
    put(registry, digest_of(content), content)
    digest = registry.index("app", "1", [(digest_of(content), len(content)), ("sha256:" + "0" * 64, 1000)])
    answer = registry.ask("GET", "/v2/app/manifests/1")
    assert (answer.headers["content-type"], digest_of(answer.body)) == (INDEX, digest)


def test_a_type_nobody_knows(registry: Registry) -> None:
    kind = "application/vnd.example.manifest.v7+json"
    blob = registry.blob("app", b"part")
    value = {"mediaType": kind, "artifactType": "a/b", "parts": [{"deep": [{"digest": blob}]}]}
    assert put(registry, "1", value, kind).status == 201
    answer = registry.ask("GET", "/v2/app/manifests/1")
    assert (answer.headers["content-type"], answer.json) == (kind, value)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (b"no JSON", MANIFEST),
        (b"[]", MANIFEST),
        (b"", MANIFEST),
        (b'{"schemaVersion":2,"schemaVersion":2}', MANIFEST),
        ({"schemaVersion": 1, "name": "x", "fsLayers": []},
         "application/vnd.docker.distribution.manifest.v1+json"),
        ({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}, MANIFEST),
        ({"schemaVersion": 2, "mediaType": MANIFEST, "manifests": [], "layers": []}, MANIFEST),
        ({"schemaVersion": 2, "config": 5, "layers": []}, MANIFEST),
        ({"manifests": [], "layers": []}, "application/vnd.example+json"),
        ({"mediaType": "a/b+json"}, "a/c+json"),
        (b"5", "application/vnd.example+json"),
        ({}, "text/html"),
        ({}, "application/octet-stream"),
    ],
)  # fmt: skip
def test_what_is_no_manifest(registry: Registry, value: Any, kind: str) -> None:
    answer = put(registry, "1", value, kind)
    assert (answer.status, answer.codes) == (400, ["MANIFEST_INVALID"])
    assert registry.tags_or_none("app") is None


def test_without_a_content_type_the_document_says_what_it_is(registry: Registry) -> None:
    content = registry.document("app")
    assert registry.ask("PUT", "/v2/app/manifests/1", content).status == 201
    assert registry.ask("HEAD", "/v2/app/manifests/1").headers["content-type"] == MANIFEST


def test_four_megabytes_and_no_more(registry: Registry) -> None:
    """SECURITY.md S90."""
    value = json.loads(registry.document("app"))
    value["annotations"] = {"fill": ""}
    value["annotations"]["fill"] = "x" * (MAX_DOCUMENT - len(json.dumps(value)))
    assert put(registry, "large", value).status == 201
    value["annotations"]["fill"] += "x"
    for content in (json.dumps(value).encode(), iter([json.dumps(value).encode()])):
        answer = registry.ask("PUT", "/v2/app/manifests/larger", content, Content_Type=MANIFEST)
        assert (answer.status, answer.codes) == (413, ["SIZE_INVALID"])
    assert registry.tags("app") == ["large"]


def test_a_subject_is_acknowledged_whether_it_is_here_or_not(registry: Registry) -> None:
    subject = descriptor(MANIFEST, b"not here")
    value = {**json.loads(registry.document("app")), "subject": subject}
    answer = put(registry, "1", value)
    assert (answer.status, answer.headers["oci-subject"]) == (201, subject["digest"])
    assert "oci-subject" not in put(registry, "2", registry.document("app")).headers


def test_a_tag_is_deleted_and_its_manifest_stays(registry: Registry) -> None:
    digest = registry.manifest("app", "1")
    registry.manifest("app", "2")
    answer = registry.ask("DELETE", "/v2/app/manifests/1")
    assert (answer.status, answer.body) == (202, b"")
    assert registry.ask("GET", "/v2/app/manifests/1").status == 404
    assert registry.tags("app") == ["2"]
    assert registry.ask("GET", f"/v2/app/manifests/{digest}").status == 200
    assert registry.ask("DELETE", "/v2/app/manifests/1").status == 404


def test_a_manifest_is_deleted_with_its_tags(registry: Registry) -> None:
    digest = registry.manifest("app", "1")
    registry.manifest("app", "2")
    other = registry.manifest("app", "3", annotations={"a": "b"})
    assert registry.ask("DELETE", f"/v2/app/manifests/{digest}").status == 202
    for reference in ("1", "2", digest):
        assert registry.ask("GET", f"/v2/app/manifests/{reference}").status == 404
    assert registry.tags("app") == ["3"]
    assert registry.ask("GET", f"/v2/app/manifests/{other}").status == 200
    assert registry.ask("DELETE", f"/v2/app/manifests/{digest}").status == 404
    assert registry.ask("DELETE", "/v2/nobody/manifests/1").status == 404
    registry.manifest("app", "1")
    assert registry.ask("GET", f"/v2/app/manifests/{digest}").status == 200


def test_an_emptied_repository_still_answers(registry: Registry) -> None:
    digest = registry.manifest("app", "1")
    registry.ask("DELETE", f"/v2/app/manifests/{digest}")
    assert registry.tags("app") == []


def test_a_blob_is_deleted(registry: Registry) -> None:
    digest = registry.blob("app", b"content")
    registry.blob("other", b"content")
    answer = registry.ask("DELETE", f"/v2/app/blobs/{digest}")
    assert (answer.status, answer.body) == (202, b"")
    assert registry.ask("GET", f"/v2/app/blobs/{digest}").status == 404
    assert registry.ask("DELETE", f"/v2/app/blobs/{digest}").codes == ["BLOB_UNKNOWN"]
    assert registry.ask("GET", f"/v2/other/blobs/{digest}").status == 200
    registry.blob("app", b"content")
    assert registry.ask("GET", f"/v2/app/blobs/{digest}").status == 200


def test_read_only(layout: Layout) -> None:
    with served(layout) as registry:
        digest = registry.manifest("app", "1")
        blob = registry.blob("app", b"content")
    with served(layout, read_only=True) as registry:
        assert registry.ask("GET", "/v2/app/manifests/1").status == 200
        assert registry.ask("GET", f"/v2/app/blobs/{blob}").status == 200
        for method, path in (
            ("PUT", "manifests/2"), ("DELETE", "manifests/1"), ("DELETE", f"manifests/{digest}"),
            ("DELETE", f"blobs/{blob}"), ("POST", "blobs/uploads/"), ("PATCH", "blobs/uploads/x"),
        ):  # fmt: skip
            answer = registry.ask(method, f"/v2/app/{path}", b"{}")
            assert (answer.status, answer.codes) == (405, ["UNSUPPORTED"]), path
            assert "DELETE" not in answer.headers["allow"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v2/", "GET, HEAD"),
        ("PUT", "/v2/app/blobs/x", "GET, HEAD, DELETE"),
        ("DELETE", "/v2/app/tags/list", "GET, HEAD"),
        ("GET", "/v2/app/blobs/uploads/", "POST"),
        ("POST", "/v2/app/blobs/uploads/x", "GET, HEAD, PATCH, PUT, DELETE"),
        ("PATCH", "/v2/app/manifests/x", "GET, HEAD, PUT, DELETE"),
    ],
)
def test_methods_that_are_for_nothing_here(registry: Registry, method: str, path: str, allowed: str) -> None:
    answer = registry.ask(method, path)
    assert (answer.status, answer.codes) == (405, ["UNSUPPORTED"])
    assert answer.headers["allow"] == f"{allowed}, OPTIONS"
    answer = registry.ask("OPTIONS", path)
    assert (answer.status, answer.headers["allow"], answer.body) == (204, f"{allowed}, OPTIONS", b"")


def test_a_tag_is_moved_on_conditions(registry: Registry) -> None:
    old, new = registry.document("app"), registry.document("app", annotations={"a": "b"})

    def move(content: bytes, **conditions: str) -> int:
        answer = registry.ask("PUT", "/v2/app/manifests/1", content, Content_Type=MANIFEST, **conditions)
        return answer.status

    none = f'"{digest_of(new)}"'
    assert move(old, If_Match="*") == 412 and registry.tags("app") == []
    assert move(old, If_None_Match="*") == 201
    assert move(new, If_None_Match="*") == 412
    assert move(new, If_Match=none) == 412
    assert registry.ask("HEAD", "/v2/app/manifests/1").headers["docker-content-digest"] == digest_of(old)
    assert move(new, If_Match=registry.ask("HEAD", "/v2/app/manifests/1").headers["etag"]) == 201
    assert registry.ask("HEAD", "/v2/app/manifests/1").headers["docker-content-digest"] == digest_of(new)


def test_one_of_many_moves_a_tag_from_what_it_was(registry: Registry) -> None:
    content = registry.document("app")
    put(registry, "1", content)
    known = f'"{digest_of(content)}"'
    statuses: list[int] = []

    def move(number: int) -> None:
        text = registry.document("app", annotations={"n": str(number)})
        said = {"Content_Type": MANIFEST, "If_Match": known}
        statuses.append(registry.ask("PUT", "/v2/app/manifests/1", text, **said).status)

    threads = [threading.Thread(target=move, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, *[412] * 5]


def test_many_tags_at_once(registry: Registry) -> None:
    """R28: concurrent writes of names are atomic, of the same one and of others."""
    contents = [registry.document("app", annotations={"n": str(number)}) for number in range(8)]

    def work(number: int) -> None:
        for turn in range(4):
            answer = put(
                registry, f"{digest_of(contents[number])}?tag=shared&tag=t{number}-{turn}", contents[number]
            )
            assert answer.status == 201

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.tags("app") == sorted(["shared", *(f"t{n}-{t}" for n in range(8) for t in range(4))])
    assert registry.ask("GET", "/v2/app/manifests/shared").body in contents
    assert len({name_of(each) for each in registry.layout.descriptors()}) == 33
