"""Pulling from our registry (distribution-spec: Pull; RFC 9110 on ranges and conditions)."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator

import pytest
from served import MANIFEST, Registry, digest_of, served

from oci.digest import Digest
from oci.layout import Layout

BLOB = bytes(range(256)) * 8


@pytest.fixture
def registry(layout: Layout) -> Iterator[Registry]:
    with served(layout) as registry:
        yield registry


def test_the_base_says_which_api_this_is(registry: Registry) -> None:
    for path in ("/v2/", "/v2"):
        answer = registry.ask("GET", path)
        assert answer.status == 200 and answer.json == {}
        assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


def test_a_manifest_comes_back_byte_for_byte(registry: Registry) -> None:
    content = registry.document("app") + b"\n  "  # whitespace is part of what was digested
    digest = digest_of(content)
    registry.ask("PUT", "/v2/app/manifests/1", content, Content_Type=MANIFEST + "; charset=utf-8")
    for reference in ("1", digest, digest.replace(":", "%3A")):
        answer = registry.ask("GET", f"/v2/app/manifests/{reference}")
        assert (answer.status, answer.body) == (200, content)
        assert answer.headers["content-type"] == MANIFEST
        assert answer.headers["docker-content-digest"] == digest
        head = registry.ask("HEAD", f"/v2/app/manifests/{reference}")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == str(len(content))
        assert head.headers["content-type"] == MANIFEST
        assert head.headers["docker-content-digest"] == digest


def test_a_blob(registry: Registry) -> None:
    digest = registry.blob("app", BLOB)
    answer = registry.ask("GET", f"/v2/app/blobs/{digest}")
    assert (answer.status, answer.body) == (200, BLOB)
    assert answer.headers["docker-content-digest"] == digest
    assert answer.headers["accept-ranges"] == "bytes"
    head = registry.ask("HEAD", f"/v2/app/blobs/{digest}")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(BLOB)))
    assert head.headers["docker-content-digest"] == digest


def test_an_empty_blob(registry: Registry) -> None:
    digest = registry.blob("app", b"")
    answer = registry.ask("GET", f"/v2/app/blobs/{digest}")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/app/manifests/none", "MANIFEST_UNKNOWN"),
        ("/v2/app/manifests/sha256:" + "0" * 64, "MANIFEST_UNKNOWN"),
        ("/v2/app/manifests/.no-tag", "MANIFEST_UNKNOWN"),
        ("/v2/app/manifests/sha256:short", "MANIFEST_UNKNOWN"),
        ("/v2/app/blobs/sha256:" + "0" * 64, "BLOB_UNKNOWN"),
        ("/v2/app/blobs/sha256:" + "A" * 64, "BLOB_UNKNOWN"),
        ("/v2/app/blobs/no-digest", "BLOB_UNKNOWN"),
        ("/v2/nobody/manifests/1", "MANIFEST_UNKNOWN"),
        ("/v2/nobody/tags/list", "NAME_UNKNOWN"),
        ("/v2/UPPER/tags/list", "NAME_INVALID"),
        ("/v2/a..b/tags/list", "NAME_INVALID"),
        ("/v2/../../etc/passwd/blobs/x", "NAME_INVALID"),
        ("/v2/%2e%2e/%2e%2e/etc/manifests/x", "NAME_INVALID"),
        (f"/v2/{'a' * 256}/tags/list", "NAME_INVALID"),
        ("/v2/app/nothing", "UNSUPPORTED"),
        ("/blobs/sha256/", "UNSUPPORTED"),
        ("/", "UNSUPPORTED"),
    ],
)
def test_what_is_not_there_is_404(registry: Registry, method: str, path: str, code: str) -> None:
    registry.manifest("app", "1")
    answer = registry.ask(method, path)
    assert answer.status == 404
    assert answer.headers["content-type"] == "application/json"
    if method == "GET":
        assert answer.codes == [code]


def test_a_blob_is_read_only_through_a_repository_that_has_it(registry: Registry) -> None:
    digest = registry.blob("mine", BLOB)
    assert registry.ask("GET", f"/v2/other/blobs/{digest}").status == 404
    manifest = registry.manifest("mine", "1")
    assert registry.ask("GET", f"/v2/other/manifests/{manifest}").status == 404


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=10-19", (10, 19)),
        ("bytes=2000-", (2000, 2047)),
        ("bytes=-10", (2038, 2047)),
        ("bytes=-9999", (0, 2047)),
        ("bytes=2040-9999", (2040, 2047)),
    ],
)
def test_part_of_a_blob(registry: Registry, asked: str, expected: tuple[int, int]) -> None:
    digest = registry.blob("app", BLOB)
    first, last = expected
    for condition in ({}, {"If_Range": f'"{digest}"'}):
        answer = registry.ask("GET", f"/v2/app/blobs/{digest}", Range=asked, **condition)
        assert (answer.status, answer.body) == (206, BLOB[first : last + 1])
        assert answer.headers["content-range"] == f"bytes {first}-{last}/2048"


@pytest.mark.parametrize(
    "asked", ["bytes=2048-", "bytes=5-4", "bytes=-0", "bytes=-", "bytes=a-b", "bytes=1-2-3"]
)
def test_a_range_that_is_not_there_is_416(registry: Registry, asked: str) -> None:
    digest = registry.blob("app", BLOB)
    answer = registry.ask("GET", f"/v2/app/blobs/{digest}", Range=asked)
    assert answer.status == 416 and answer.headers["content-range"] == "bytes */2048"


@pytest.mark.parametrize("headers", [{"Range": "lines=1-2"}, {"Range": "bytes=0-1,5-6"}])
def test_ranges_that_may_be_ignored_give_all_of_it(registry: Registry, headers: dict[str, str]) -> None:
    digest = registry.blob("app", BLOB)
    answer = registry.ask("GET", f"/v2/app/blobs/{digest}", **headers)
    assert (answer.status, answer.body) == (200, BLOB)


def test_another_version_than_the_clients_comes_whole(registry: Registry) -> None:
    digest = registry.blob("app", BLOB)
    answer = registry.ask("GET", f"/v2/app/blobs/{digest}", Range="bytes=9-", If_Range='"other"')
    assert (answer.status, answer.body) == (200, BLOB)


def test_what_the_client_has_is_not_sent_again(registry: Registry) -> None:
    blob, manifest = registry.blob("app", BLOB), registry.manifest("app", "1")
    for path, digest in ((f"blobs/{blob}", blob), ("manifests/1", manifest)):
        tag = registry.ask("GET", f"/v2/app/{path}").headers["etag"]
        assert tag == f'"{digest}"'
        answer = registry.ask("GET", f"/v2/app/{path}", If_None_Match=f'"x", W/{tag}')
        assert (answer.status, answer.body) == (304, b"")
        assert registry.ask("GET", f"/v2/app/{path}", If_None_Match='"x"').status == 200


def test_a_damaged_blob_never_arrives_whole(layout: Layout, capfd: pytest.CaptureFixture[str]) -> None:
    with served(layout) as registry:
        digest = registry.blob("app", BLOB)
    path = layout.blobs.path(Digest.parse(digest))
    with open(path, "r+b") as file:
        file.write(b"x")
    with served(Layout.open(layout.root)) as registry:
        got = registry.raw(b"GET /v2/app/blobs/%s HTTP/1.1\r\nHost: x\r\n\r\n" % digest.encode()).partition(
            b"\r\n\r\n"
        )[2]
        assert len(got) < len(BLOB)
    assert "damaged" in capfd.readouterr().err


@pytest.mark.parametrize("damage", [b"x" + BLOB[1:], BLOB[:-1], b""])
@pytest.mark.parametrize("part", [{}, {"Range": "bytes=2-4"}])
def test_a_damaged_blob_is_put_aside_and_may_be_pushed_again(
    layout: Layout, damage: bytes, part: dict[str, str]
) -> None:
    """SECURITY.md R16."""
    with served(layout) as registry:
        digest = registry.blob("app", BLOB)
    with open(layout.blobs.path(Digest.parse(digest)), "wb") as file:
        file.write(damage)
    with served(Layout.open(layout.root)) as registry:
        try:
            answer = registry.ask("GET", f"/v2/app/blobs/{digest}", **part)
            assert answer.status == 500
        except (OSError, http.client.HTTPException):
            pass
        assert registry.ask("HEAD", f"/v2/app/blobs/{digest}").status == 404
        assert os.listdir(f"{layout.root}/quarantine") == [digest.replace(":", "-")]
        assert registry.blob("app", BLOB) == digest
        assert registry.ask("GET", f"/v2/app/blobs/{digest}").body == BLOB


def test_a_blob_that_another_process_wrote_is_verified_once_and_then_sent_by_the_kernel(
    layout: Layout,
) -> None:
    with served(layout) as registry:
        digest = registry.blob("app", BLOB)
    again = Layout.open(layout.root)
    with served(again) as registry:
        fd = again.blobs.open_fd(Digest.parse(digest))
        for trusted in (False, True):
            assert again.blobs.is_verified(Digest.parse(digest), fd) is trusted
            assert registry.ask("GET", f"/v2/app/blobs/{digest}").body == BLOB
        os.close(fd)
