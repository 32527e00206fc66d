"""ADD of URLs and repositories in whole builds: what comes out, and what a second build fetches (I29-I33)."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sites import Repository, Site, git_daemon, site

from builder import BuildRequest, build
from builder.errors import BuildError, FetchFailed
from builder.events import Event, StepDone
from builder.export.base import OutputSpec

pytestmark = pytest.mark.root

MOMENT = "Wed, 21 Oct 2015 07:28:00 GMT"
SHA = "sha256:" + hashlib.sha256(b"content").hexdigest()


class Shop:
    def __init__(self, top: Path) -> None:
        self.top = top
        self.events: list[Event] = []
        (top / "context").mkdir()

    def files(self, text: str, **more: object) -> dict[str, tarfile.TarInfo]:
        out = str(self.top / "root.tar")
        self.events.clear()
        request = BuildRequest(
            context=str(self.top / "context"),
            root=str(self.top / "store"),
            dockerfile="-",
            dockerfile_text=f"FROM scratch\n{text}\n".encode(),
            outputs=(OutputSpec("tar", out),),
        )
        build(replace(request, **more), self.events.append)  # type: ignore[arg-type]
        with tarfile.open(out) as tar:
            return {info.name.rstrip("/"): info for info in tar}

    @property
    def cached(self) -> list[bool]:
        return [event.cached for event in self.events if isinstance(event, StepDone)]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def server() -> Iterator[Site]:
    with site() as found:
        found.files["d/f.txt"] = b"content"
        found.headers["d/f.txt"] = {"ETag": '"1"', "Last-Modified": MOMENT}
        yield found


def test_a_file(shop: Shop, server: Site) -> None:
    files = shop.files(f"ADD {server.url('d/f.txt')} /in/\nADD {server.url('d/f.txt')} /as\n")
    assert {name: (info.mode, info.mtime, info.uid) for name, info in files.items() if info.isfile()} == {
        "in/f.txt": (0o600, 1445412480, 0),
        "as": (0o600, 1445412480, 0),
    }
    assert len(server.seen) == 1


def test_with_modes_and_owners(shop: Shop, server: Site) -> None:
    files = shop.files(f"ADD --chmod=755 --chown=5:6 {server.url('d/f.txt')} /f\n")
    assert (files["f"].mode, files["f"].uid, files["f"].gid) == (0o755, 5, 6)


def test_a_clock_holds_for_what_is_newer(shop: Shop, server: Site) -> None:
    assert shop.files(f"ADD {server.url('d/f.txt')} /f", clock=1_000_000_000)["f"].mtime == 1_000_000_000
    assert shop.files(f"ADD {server.url('d/f.txt')} /f", clock=1_700_000_000)["f"].mtime == 1445412480


def test_unchanged_is_a_hit_without_the_file(shop: Shop, server: Site) -> None:
    line = f"ADD {server.url('d/f.txt')} /f"
    shop.files(line)
    shop.files(line)
    assert shop.cached == [True]
    assert server.asked("d/f.txt")[-1]["If-None-Match"] == '"1"'
    server.files["d/f.txt"] = b"changed"
    server.headers["d/f.txt"] = {"ETag": '"2"'}
    assert shop.files(line)["f"].size == 7
    assert shop.cached == [False]


def test_the_same_content_from_elsewhere_is_a_hit_too(shop: Shop, server: Site) -> None:
    """What counts is what a file is, not that a server says something new about it."""
    line = f"ADD {server.url('d/f.txt')} /f"
    shop.files(line)
    server.headers["d/f.txt"] = {"ETag": '"2"'}
    shop.files(line)
    assert shop.cached == [True]


def test_checksums(shop: Shop, server: Site) -> None:
    shop.files(f"ADD --checksum={SHA} {server.url('d/f.txt')} /f")
    server.files.clear()
    shop.files(f"ADD --checksum={SHA} {server.url('d/f.txt')} /f")
    assert shop.cached == [True]
    server.files["x"] = b"other"
    with pytest.raises(FetchFailed, match="not what its checksum says") as caught:
        shop.files(f"ADD --checksum={SHA} {server.url('x')} /f")
    assert str(caught.value.at) == "Dockerfile:2"


def test_archives_are_unpacked_only_when_asked(shop: Shop, server: Site) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("member")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"m"))
    server.files["a.tgz"] = out.getvalue()
    (shop.top / "context/l.tgz").write_bytes(out.getvalue())
    url = server.url("a.tgz")
    files = shop.files(
        f"ADD {url} /kept/\nADD --unpack {url} /un/\nADD --unpack=false l.tgz /local/\nADD l.tgz /ul/\n"
    )
    assert {name for name, info in files.items() if info.isfile()} == {
        "kept/a.tgz", "un/member", "local/l.tgz", "ul/member",
    }  # fmt: skip


def test_several_sources_in_their_order(shop: Shop, server: Site) -> None:
    (shop.top / "context/f.txt").write_text("local")
    files = shop.files(f"ADD f.txt {server.url('d/f.txt')} /x/\nADD {server.url('d/f.txt')} f.txt /y/\n")
    assert (files["x/f.txt"].size, files["y/f.txt"].size) == (7, 5)


def test_what_cannot_be_had_names_the_line(shop: Shop, server: Site) -> None:
    with pytest.raises(BuildError, match="404") as caught:
        shop.files(f"ADD http://u:canary@{server.address}/gone?sig=canary /f")
    assert str(caught.value.at) == "Dockerfile:2"
    said = str(caught.value) + repr(shop.events)
    assert "canary@" not in said


def test_repositories(shop: Shop) -> None:
    repository = Repository(shop.top / "git", "r.git")
    first = repository.commit({"a": "1", "sub/run": "#!x"})
    repository.git("tag", "v1")
    with git_daemon(shop.top / "git") as daemon:
        url = f"git://{daemon}/r.git"
        lines = f"ADD {url}#v1:sub /sub/\nADD {url} /all\nADD --keep-git-dir {url} /kept\n"
        files = shop.files(lines)
        assert {name: info.mode for name, info in files.items() if not name.startswith("kept/.git/")} == {
            "all": 0o755, "all/a": 0o644, "all/sub": 0o755, "all/sub/run": 0o755,
            "sub": 0o755, "sub/run": 0o755,
            "kept": 0o755, "kept/a": 0o644, "kept/sub": 0o755, "kept/sub/run": 0o755, "kept/.git": 0o755,
        }  # fmt: skip
        shop.files(lines)
        assert shop.cached == [True, True, True]
        second = repository.commit({"a": "2"})
        shop.files(lines)
        assert shop.cached == [True, False, False]
        shop.files(f"ADD --checksum={second[:10]} {url} /all")
        with pytest.raises(FetchFailed, match="not what its checksum says"):
            shop.files(f"ADD --checksum={first} {url}#main /all")


def test_a_whole_commit_that_was_built_needs_no_server(shop: Shop) -> None:
    repository = Repository(shop.top / "git", "r.git")
    commit = repository.commit({"a": "1"})
    with git_daemon(shop.top / "git") as daemon:
        line = f"ADD git://{daemon}/r.git#{commit} /r"
        shop.files(line)
    shop.files(line)
    assert shop.cached == [True]


def test_nothing_is_left_of_checkouts(shop: Shop) -> None:
    repository = Repository(shop.top / "git", "r.git")
    repository.commit({"a": "1"})
    with git_daemon(shop.top / "git") as daemon:
        shop.files(f"ADD git://{daemon}/r.git /r")
        with pytest.raises(BuildError):
            shop.files(f"ADD git://{daemon}/r.git /r\nCOPY gone /")
    assert not list((shop.top / "store").rglob("checkout"))
