"""Uploads outlive the server that began them (R28), and end when nobody goes on with them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from served import Registry, digest_of, served

from oci.digest import Digest
from oci.layout import Layout
from oci.registry.server import sessions
from oci.registry.server.sessions import Sessions, expire
from oci.registry.server.uploads import Upload

BLOB = bytes(range(256)) * 4000


def files(layout: Layout) -> set[str]:
    return {path.name for path in Path(layout.root, "registry", "uploads").iterdir()}


def half_done(layout: Layout, query: str = "") -> str:
    """An upload of which a server that is gone has 1000 bytes; its location."""
    with served(layout) as registry:
        location = registry.start("app", query)
        assert registry.ask("PATCH", location, BLOB[:1000]).status == 202
    return location


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("announced", ["", "?digest-algorithm=sha512"])
def test_the_next_server_goes_on(layout: Layout, algorithm: str, announced: str) -> None:
    location = half_done(layout, announced)
    assert list(layout.blobs) == []
    with served(layout) as registry:
        status = registry.ask("GET", location)
        assert (status.status, status.headers["range"]) == (204, "0-999")
        assert status.headers["location"] == location
        rest = f"1000-{len(BLOB) - 1}"
        assert registry.ask("PATCH", location, BLOB[1000:], Content_Range=rest).status == 202
        digest = digest_of(BLOB, algorithm)
        assert registry.ask("PUT", f"{location}?digest={digest}").status == 201
        assert registry.ask("GET", f"/v2/app/blobs/{digest}").body == BLOB
        assert files(layout) == set()


def test_what_was_there_counts_for_the_digest(layout: Layout) -> None:
    location = half_done(layout)
    identifier = location.rpartition("/")[2]
    with open(Path(layout.root, "registry", "uploads", identifier), "r+b") as file:
        file.write(b"damaged")
    with served(layout) as registry:
        answer = registry.ask("PUT", f"{location}?digest={digest_of(BLOB)}", BLOB[1000:])
        assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])
        assert files(layout) == set() and list(layout.blobs) == []


def test_nothing_but_an_upload_is_one(layout: Layout) -> None:
    location = half_done(layout)
    base, _, identifier = location.rpartition("/")
    Path(layout.root, "registry", "secret").write_bytes(b"x")
    with served(layout) as registry:
        for name in (f"{identifier}.json", "../secret", "%2e%2e%2fsecret", "..", identifier[:-1], "x" * 36):
            assert registry.ask("GET", f"{base}/{name}").status == 404
        for name in ("app2", "app/x"):
            assert registry.ask("GET", location.replace("/app/", f"/{name}/")).status == 404
        assert registry.ask("DELETE", location).status == 204
        assert files(layout) == set()


def test_a_link_is_no_upload(layout: Layout, tmp_path: Path) -> None:
    location = half_done(layout)
    victim = tmp_path / "victim"
    victim.write_bytes(b"1234")
    path = Path(layout.root, "registry", "uploads", location.rpartition("/")[2])
    path.unlink()
    path.symlink_to(victim)
    with served(layout) as registry:
        assert registry.ask("PATCH", location, b"more").status == 404
    assert victim.read_bytes() == b"1234"


def test_two_servers_do_not_share_an_upload(layout: Layout) -> None:
    with served(layout) as registry, served(Layout.open(layout.root)) as other:
        location = registry.start("app")
        registry.ask("PATCH", location, BLOB)
        assert other.ask("GET", location).status == 404
        assert registry.ask("PUT", f"{location}?digest={digest_of(BLOB)}").status == 201


def test_old_ones_are_cleared_away(layout: Layout) -> None:
    old, young = half_done(layout), half_done(layout)
    directory = Path(layout.root, "registry", "uploads")
    long_ago = time.time() - sessions.LIFE_SECONDS - 10
    for name in (old.rpartition("/")[2], old.rpartition("/")[2] + ".json"):
        os.utime(directory / name, (long_ago, long_ago))
    with served(layout) as registry:
        assert registry.ask("GET", old).status == 404
        assert registry.ask("GET", young).status == 204
        assert len(files(layout)) == 2
        assert expire(layout.root, age=-10) == 0  # somebody has it open
    assert expire(layout.root) == 0
    assert expire(layout.root, age=-10) == 1
    assert files(layout) == set()


def test_what_a_killed_server_has_received_in_a_single_post_goes(layout: Layout) -> None:
    made = Sessions(layout.root, layout.blobs)
    session = made.create("app", "sha256", lasting=False)
    session.write(memoryview(b"half"))
    assert made.expire() == 0
    session.rest()
    with served(layout):
        assert files(layout) == set()


def test_a_description_without_its_file_goes_when_it_is_old(layout: Layout) -> None:
    location = half_done(layout)
    Path(layout.root, "registry", "uploads", location.rpartition("/")[2]).unlink()
    assert expire(layout.root) == 0 and len(files(layout)) == 1
    assert expire(layout.root, age=-10) == 1
    assert files(layout) == set()


def test_hashing_catches_up_while_more_arrives(layout: Layout) -> None:
    made = Sessions(layout.root, layout.blobs)
    session = made.create("app", "sha256")
    session.write(memoryview(BLOB))
    session.rest()
    again = made.resume(session.id)
    assert again is not None and again.size == len(BLOB)
    upload = Upload(again)
    turn = upload.take_over()
    behind = threading.Thread(target=upload.catch_up)
    behind.start()
    for start in range(0, len(BLOB), 10_000):
        upload.append(turn, memoryview(BLOB)[start : start + 10_000])
    behind.join()
    with upload.finishing(turn):
        assert upload.digest("sha256") == Digest.of(BLOB + BLOB)
    assert files(layout) == set()


def test_a_store_that_no_registry_served(layout: Layout) -> None:
    assert expire(layout.root) == 0
    assert not os.path.exists(os.path.join(layout.root, "registry"))


def test_the_end_of_a_server_leaves_no_descriptor_open(layout: Layout) -> None:
    def opened() -> list[str]:
        found = []
        for fd in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{fd}"))
            except OSError:
                continue
        return [path for path in found if path.startswith(layout.root)]

    with served(layout) as registry:
        _begin_many(registry)
        assert opened()
    assert opened() == []


def _begin_many(registry: Registry) -> None:
    for _ in range(3):
        registry.ask("PATCH", registry.start("app"), b"x")
