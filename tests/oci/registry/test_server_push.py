"""Pushing blobs to our registry (distribution-spec: Pushing blobs), and what must never become visible."""

from __future__ import annotations

import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from served import Registry, digest_of, served

from oci.digest import Digest
from oci.layout import Layout
from oci.registry.server import uploads

BLOB = b"0123456789" * 1000
WRONG = digest_of(b"something else")


@pytest.fixture
def registry(layout: Layout) -> Iterator[Registry]:
    with served(layout) as registry:
        yield registry


def exists(registry: Registry, digest: str, name: str = "app") -> bool:
    return registry.ask("HEAD", f"/v2/{name}/blobs/{digest}").status == 200


def leftovers(registry: Registry) -> list[str]:
    """What lies where blobs and uploads are under construction."""
    places = Path(registry.layout.blobs.temporary), Path(registry.layout.root, "registry", "uploads")
    return [path.name for place in places if place.exists() for path in place.iterdir()]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_post_then_put(registry: Registry, algorithm: str) -> None:
    digest = digest_of(BLOB, algorithm)
    location = registry.start("team/app")
    assert re.fullmatch(r"/v2/team/app/blobs/uploads/[0-9a-f-]{36}", location)
    answer = registry.ask("PUT", f"{location}?digest={digest}", BLOB, Content_Type="application/octet-stream")
    assert answer.status == 201
    assert answer.headers["location"] == f"/v2/team/app/blobs/{digest}"
    assert answer.headers["docker-content-digest"] == digest
    assert registry.ask("GET", answer.headers["location"]).body == BLOB
    assert Digest.parse(digest) in registry.layout.blobs and not leftovers(registry)


def test_an_upload_begins_without_the_last_slash_too(registry: Registry) -> None:
    answer = registry.ask("POST", "/v2/app/blobs/uploads", b"")
    assert answer.status == 202
    assert registry.ask("PUT", f"{answer.headers['location']}?digest={digest_of(BLOB)}", BLOB).status == 201


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_single_post(registry: Registry, algorithm: str) -> None:
    digest = digest_of(BLOB, algorithm)
    answer = registry.ask("POST", f"/v2/app/blobs/uploads/?digest={digest}", BLOB)
    assert (answer.status, answer.headers["location"]) == (201, f"/v2/app/blobs/{digest}")
    assert registry.ask("GET", answer.headers["location"]).body == BLOB


def test_a_single_post_without_a_body_begins_an_upload(registry: Registry) -> None:
    answer = registry.ask("POST", f"/v2/app/blobs/uploads/?digest={digest_of(BLOB)}", b"")
    assert answer.status == 202
    assert registry.ask("PUT", f"{answer.headers['location']}?digest={digest_of(BLOB)}", BLOB).status == 201


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_single_post_of_nothing(registry: Registry, algorithm: str) -> None:
    digest = digest_of(b"", algorithm)
    answer = registry.ask("POST", f"/v2/app/blobs/uploads/?digest={digest}", b"", Content_Length="0")
    assert (answer.status, answer.headers["location"]) == (201, f"/v2/app/blobs/{digest}")
    assert registry.ask("GET", answer.headers["location"]).body == b""


def test_the_location_has_a_uuid(registry: Registry) -> None:
    assert uuid.UUID(registry.start("app").rpartition("/")[2]).version == 4


def test_chunks(registry: Registry) -> None:
    answer = registry.ask("POST", "/v2/app/blobs/uploads/", b"", Content_Length="0")
    assert answer.status == 202 and answer.headers["range"] == "0-0"
    location = answer.headers["location"]
    for first in (0, 3000, 6000):
        last = first + 2999
        answer = registry.ask("PATCH", location, BLOB[first : last + 1], Content_Range=f"{first}-{last}")
        assert (answer.status, answer.headers["range"]) == (202, f"0-{last}")
        location = answer.headers["location"]
        status = registry.ask("GET", location)
        assert (status.status, status.body, status.headers["range"]) == (204, b"", f"0-{last}")
        assert status.headers["location"] == location
        assert not exists(registry, digest_of(BLOB))
    answer = registry.ask(
        "PUT", f"{location}?digest={digest_of(BLOB)}", BLOB[9000:], Content_Range="9000-9999"
    )
    assert answer.status == 201
    assert registry.ask("GET", answer.headers["location"]).body == BLOB


def test_the_last_chunk_may_be_a_patch_too(registry: Registry) -> None:
    location = registry.start("app")
    location = registry.ask("PATCH", location, BLOB, Content_Range=f"0-{len(BLOB) - 1}").headers["location"]
    answer = registry.ask("PUT", f"{location}?digest={digest_of(BLOB)}")
    assert answer.status == 201
    assert registry.ask("GET", answer.headers["location"]).body == BLOB


@pytest.mark.parametrize("query", ["", "?digest-algorithm=sha512"])
def test_sha512_in_chunks(registry: Registry, query: str) -> None:
    location = registry.start("app", query)
    registry.ask("PATCH", location, BLOB[:5000])
    registry.ask("PATCH", location, BLOB[5000:])
    digest = digest_of(BLOB, "sha512")
    assert registry.ask("PUT", f"{location}?digest={digest}").status == 201
    assert registry.ask("GET", f"/v2/app/blobs/{digest}").body == BLOB


def test_a_stream_of_unknown_length(registry: Registry) -> None:
    location = registry.start("app")
    answer = registry.ask("PATCH", location, iter([BLOB[:7], BLOB[7:5000], BLOB[5000:]]))
    assert (answer.status, answer.headers["range"]) == (202, f"0-{len(BLOB) - 1}")
    assert registry.ask("PUT", f"{location}?digest={digest_of(BLOB)}", iter([])).status == 201


@pytest.mark.parametrize("said", ["3-12", "1-10", "0-5", "10-19", "9-0", "a-b", "-", "5", "4-"])
def test_a_chunk_out_of_order_is_416_and_says_where_to_go_on(registry: Registry, said: str) -> None:
    location = registry.start("app")
    registry.ask("PATCH", location, BLOB[:4], Content_Range="0-3")
    for method in ("PATCH", "PUT"):
        answer = registry.ask(method, f"{location}?digest={WRONG}", BLOB[:10], Content_Range=said)
        assert answer.status == 416
        assert (answer.headers["range"], answer.headers["location"]) == ("0-3", location)
    answer = registry.ask("PATCH", location, BLOB[4:], Content_Range=f"4-{len(BLOB) - 1}")
    assert answer.status == 202
    assert registry.ask("PUT", f"{location}?digest={digest_of(BLOB)}").status == 201


def test_the_first_chunk_begins_at_zero(registry: Registry) -> None:
    answer = registry.ask("PATCH", registry.start("app"), BLOB[:5], Content_Range="1-5")
    assert answer.status == 416


def test_a_chunk_as_long_as_it_says(registry: Registry) -> None:
    answer = registry.ask("PATCH", registry.start("app"), BLOB[:5], Content_Range="0-9")
    assert (answer.status, answer.codes) == (400, ["SIZE_INVALID"])


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("digest", ["", "sha256:short", "md5:" + "0" * 32, "sha256:" + "A" * 64, "../x"])
def test_a_digest_that_is_none(registry: Registry, method: str, digest: str) -> None:
    path = "/v2/app/blobs/uploads/" if method == "POST" else registry.start("app")
    answer = registry.ask(method, f"{path}?digest={digest}", BLOB)
    assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])


def test_finishing_needs_a_digest(registry: Registry) -> None:
    answer = registry.ask("PUT", registry.start("app"), BLOB)
    assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])


def test_an_algorithm_that_is_unknown(registry: Registry) -> None:
    answer = registry.ask("POST", "/v2/app/blobs/uploads/?digest-algorithm=md5")
    assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])


@pytest.mark.parametrize("way", ["post", "put", "patch"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_other_bytes_than_promised_are_never_seen(registry: Registry, way: str, algorithm: str) -> None:
    """S90: the digest is verified before anything is visible."""
    wrong = digest_of(b"something else", algorithm)
    if way == "post":
        answer = registry.ask("POST", f"/v2/app/blobs/uploads/?digest={wrong}", BLOB)
    else:
        location = registry.start("app")
        if way == "patch":
            registry.ask("PATCH", location, BLOB)
        answer = registry.ask("PUT", f"{location}?digest={wrong}", b"" if way == "patch" else BLOB)
        assert registry.ask("GET", location).codes == ["BLOB_UPLOAD_UNKNOWN"]
    assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])
    assert answer.json["errors"][0]["detail"] == {"digest": wrong}
    assert not exists(registry, wrong) and not exists(registry, digest_of(BLOB))
    assert not list(registry.layout.blobs) and not leftovers(registry)


def test_cancel(registry: Registry) -> None:
    location = registry.start("app")
    registry.ask("PATCH", location, BLOB)
    assert leftovers(registry)
    answer = registry.ask("DELETE", location, Content_Length="0")
    assert (answer.status, answer.body) == (204, b"")
    assert not leftovers(registry)
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = registry.ask(method, location)
        assert answer.status == 404
        assert answer.codes == ["BLOB_UPLOAD_UNKNOWN"]


def test_an_upload_belongs_to_its_repository(registry: Registry) -> None:
    """S90."""
    location = registry.start("mine")
    answer = registry.ask("GET", location.replace("/mine/", "/other/"))
    assert (answer.status, answer.codes) == (404, ["BLOB_UPLOAD_UNKNOWN"])
    assert registry.start("mine") != location


def test_uploads_at_the_same_time_do_not_meet(registry: Registry) -> None:
    blobs = [bytes([number]) * 300_000 for number in range(8)]
    threads = [threading.Thread(target=registry.blob, args=("app", blob)) for blob in [*blobs, *blobs]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(exists(registry, digest_of(blob)) for blob in blobs)


def test_what_arrived_before_a_drop_need_not_come_again(registry: Registry) -> None:
    location = registry.start("app")
    registry.raw(
        b"PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n" % location.encode() + BLOB[:6000],
        half_close=True,
    )
    assert registry.ask("GET", location).headers["range"] == "0-5999"
    registry.ask("PATCH", location, BLOB[6000:], Content_Range="6000-9999")
    assert registry.ask("PUT", f"{location}?digest={digest_of(BLOB)}").status == 201


def test_a_new_request_takes_an_upload_over_from_a_dead_one(registry: Registry) -> None:
    location = registry.start("app")
    with socket.create_connection(("127.0.0.1", registry.port)) as dead:
        dead.sendall(
            b"PATCH %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n" % location.encode() + BLOB[:100]
        )
        deadline = time.monotonic() + 60
        while registry.ask("GET", location).headers["range"] != "0-99" and time.monotonic() < deadline:
            time.sleep(0.01)
        answer = registry.ask("PATCH", location, BLOB[100:], Content_Range="100-9999")
        assert answer.status == 202
        with suppress(ConnectionError):  # of both it may be told that nobody reads any more
            dead.sendall(b"x" * 50)  # too late
            dead.settimeout(60)
            assert dead.recv(100) == b""
    assert registry.ask("PUT", f"{location}?digest={digest_of(BLOB)}").status == 201


def test_mount(registry: Registry) -> None:
    digest = registry.blob("source", BLOB)
    answer = registry.ask("POST", f"/v2/target/blobs/uploads/?mount={digest}&from=source")
    assert (answer.status, answer.headers["location"]) == (201, f"/v2/target/blobs/{digest}")
    assert answer.headers["docker-content-digest"] == digest
    assert registry.ask("GET", f"/v2/target/blobs/{digest}").body == BLOB


def test_mount_from_wherever_it_is(registry: Registry) -> None:
    digest = registry.blob("source", BLOB)
    answer = registry.ask("POST", f"/v2/target/blobs/uploads/?mount={digest}")
    assert (answer.status, answer.headers["location"]) == (201, f"/v2/target/blobs/{digest}")
    assert registry.ask("GET", answer.headers["location"]).body == BLOB


@pytest.mark.parametrize(
    "query",
    ["?mount=sha256:" + "0" * 64 + "&from=source", "?mount=nonsense&from=source", "?mount={}&from=empty",
     "?mount={}&from=NO..NAME", "?mount=sha256:" + "0" * 64],
)  # fmt: skip
def test_a_mount_that_cannot_be_begins_an_upload(registry: Registry, query: str) -> None:
    digest = registry.blob("source", BLOB)
    location = registry.start("target", query.replace("{}", digest))
    assert not exists(registry, digest, "target")
    assert registry.ask("PUT", f"{location}?digest={digest}", BLOB).status == 201


def test_pushing_the_same_again_changes_nothing(registry: Registry) -> None:
    assert registry.blob("app", BLOB) == registry.blob("app", BLOB)
    assert registry.ask("GET", f"/v2/app/blobs/{digest_of(BLOB)}").body == BLOB


def test_an_invalid_name_is_refused(registry: Registry) -> None:
    """S90: the grammar of names."""
    answer = registry.ask("POST", "/v2/Upper/blobs/uploads/")
    assert (answer.status, answer.codes) == (400, ["NAME_INVALID"])


def test_idle_uploads_end(layout: Layout) -> None:
    with served(layout, upload_idle=0.05) as registry:
        location = registry.start("app")
        registry.ask("PATCH", location, BLOB)
        time.sleep(0.15)
        registry.start("other")
        assert registry.ask("GET", location).status == 404
        assert len(leftovers(registry)) == 2


def test_uploads_are_bounded(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(layout, uploads=2) as registry:
        registry.start("app")
        location = registry.start("app")
        answer = registry.ask("POST", "/v2/app/blobs/uploads/")
        assert (answer.status, answer.codes) == (429, ["TOOMANYREQUESTS"])
        assert int(answer.headers["retry-after"]) > 0
        registry.ask("DELETE", location)
        location = registry.start("app")
        monkeypatch.setattr(uploads, "RESTING_SECONDS", 0.0)
        registry.start("app")  # the oldest made room
        assert registry.ask("GET", location).status == 204


def test_the_least_chunk_is_announced(layout: Layout) -> None:
    with served(layout, chunk_min_length=65536) as registry:
        answer = registry.ask("POST", "/v2/app/blobs/uploads/")
        assert answer.headers["oci-chunk-min-length"] == "65536"


def test_an_older_upload_of_a_killed_server_is_cleared_away(layout: Layout) -> None:
    with layout.blobs.writer() as writer:
        writer.write(b"half")
        temporary = Path(layout.blobs.temporary)
        name = next(temporary.iterdir())
        copy = temporary / "dead"
        copy.write_bytes(name.read_bytes())
        with served(layout) as registry:
            assert leftovers(registry) == [name.name]
