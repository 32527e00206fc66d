"""Where contexts come from: directories, archives, repositories, URLs, standard input (C02-C05, I45)."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sites import Repository, Site, git_daemon, site

from builder.contexts.remote import Remotes
from builder.contexts.sources import Source, is_remote, open_source
from builder.errors import ContextError, UsageError
from oci.blobs import BlobStore

FILES = {
    "Dockerfile": "FROM scratch\n",
    "other/Dockerfile": "FROM other\n",
    "a": "text",
    "b.md": "ignored",
    ".dockerignore": "*.md\n",
    "other/Dockerfile.dockerignore": "a\n",
}


class Memory(dict[bytes, bytes]):
    def put_many(self, rows: object) -> None:
        self.update(rows)  # type: ignore[call-overload]


@pytest.fixture
def remotes(tmp_path: Path) -> Iterator[Remotes]:
    with Remotes(BlobStore(str(tmp_path / "store")), Memory()) as found:
        yield found


@pytest.fixture
def server() -> Iterator[Site]:
    with site() as found:
        yield found


def packed(files: dict[str, str] = FILES) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def written(path: Path, files: dict[str, str] = FILES) -> str:
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return str(path)


def shown(source: Source, dockerfile: str = "") -> tuple[str, list[str]]:
    """The Dockerfile's text and the files that can be copied."""
    text = source.dockerfile(dockerfile).text
    tree = source.tree(dockerfile)
    names = sorted(os.fsdecode(path) for path, _ in tree.walk() if path)
    source.close()
    return text, names


ALL = [".dockerignore", "Dockerfile", "a", "other", "other/Dockerfile", "other/Dockerfile.dockerignore"]


def every_source(tmp_path: Path, remotes: Remotes, server: Site, daemon: str) -> dict[str, Source]:
    server.files["c.tgz"] = packed()
    return {
        "directory": open_source(written(tmp_path / "context"), remotes),
        "stdin": open_source("-", remotes, stdin=io.BytesIO(packed())),
        "url": open_source(server.url("c.tgz"), remotes),
        "git": open_source(f"git://{daemon}/r.git#main:sub", remotes),
    }


def test_they_are_all_the_same(tmp_path: Path, remotes: Remotes, server: Site) -> None:
    """The ignore file counts wherever a context comes from, and a Dockerfile's own before the general one."""
    repository = Repository(tmp_path / "git", "r.git")
    repository.commit({f"sub/{name}": text for name, text in FILES.items()})
    with git_daemon(tmp_path / "git") as daemon:
        for name, source in every_source(tmp_path, remotes, server, daemon).items():
            assert shown(source) == ("FROM scratch\n", ALL), name
        for name, source in every_source(tmp_path, remotes, server, daemon).items():
            path = "other/Dockerfile" if name != "directory" else str(tmp_path / "context/other/Dockerfile")
            text, names = shown(source, path)
            assert (text, "a" in names, "b.md" in names) == ("FROM other\n", False, True), name


def test_only_a_dockerfile(remotes: Remotes, server: Site) -> None:
    server.files["Dockerfile.x"] = b"FROM x\n"
    assert shown(open_source("-", remotes, stdin=io.BytesIO(b"FROM x\n"))) == ("FROM x\n", [])
    assert shown(open_source(server.url("Dockerfile.x"), remotes)) == ("FROM x\n", [])


def test_a_named_context_that_is_one_file(remotes: Remotes, server: Site) -> None:
    server.files["data/one.bin"] = b"1"
    source = open_source(server.url("data/one.bin"), remotes, name="context 'one'")
    assert [path for path, _ in source.tree("").walk()] == [b"", b"one.bin"]


def test_a_containerfile_when_there_is_no_dockerfile(tmp_path: Path, remotes: Remotes) -> None:
    files = {"Containerfile": "FROM c\n", ".containerignore": "a\n", "a": "", "b": ""}
    assert shown(open_source(written(tmp_path / "c", files), remotes)) == (
        "FROM c\n",
        [".containerignore", "Containerfile", "b"],
    )
    assert (
        shown(open_source("-", remotes, stdin=io.BytesIO(packed({"Containerfile": "FROM c\n"}))))[0]
        == "FROM c\n"
    )
    (tmp_path / "c/Dockerfile").write_text("FROM d\n")
    text, names = shown(open_source(str(tmp_path / "c"), remotes))
    assert (text, "a" in names) == ("FROM d\n", True)  # what docker would do, which knows no .containerignore


def test_another_ignore_file(tmp_path: Path, remotes: Remotes) -> None:
    (tmp_path / "mine").write_text("a\nother\n")
    mine = str(tmp_path / "mine")
    for source in (
        open_source(written(tmp_path / "context"), remotes, ignorefile=mine),
        open_source("-", remotes, ignorefile=mine, stdin=io.BytesIO(packed())),
    ):
        assert shown(source)[1] == [".dockerignore", "Dockerfile", "b.md"]
    with pytest.raises(ContextError, match="--ignorefile /nowhere cannot be read"):
        open_source(str(tmp_path / "context"), remotes, ignorefile="/nowhere").ignore("")


def test_an_archive_without_a_dockerfile(remotes: Remotes) -> None:
    with closing(open_source("-", remotes, stdin=io.BytesIO(packed({"a": ""})))) as source:
        with pytest.raises(ContextError, match="the context has no Dockerfile"):
            source.dockerfile("")
        with pytest.raises(ContextError, match="the context has no x/y"):
            source.dockerfile("x/y")


def test_a_checkout_does_not_lead_out(tmp_path: Path, remotes: Remotes) -> None:
    """A Dockerfile that is a link to this machine's files is not read, nor an ignore file (S53)."""
    repository = Repository(tmp_path / "git", "r.git")
    (repository.path / "Dockerfile").symlink_to("/etc/passwd")
    (repository.path / "up").symlink_to("../../../../../../etc/passwd")
    repository.commit({"a": ""})
    with git_daemon(tmp_path / "git") as daemon:
        source = open_source(f"git://{daemon}/r.git", remotes)
        for path in ("", "up", "/etc/passwd", "../../etc/passwd"):
            with pytest.raises(ContextError):
                source.dockerfile(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("ftp://x/y", "no place a context can come from"),
        ("file:///etc", "no place a context can come from"),
        ("https://h/r.git?what=1", "unknown key"),
        ("git@h:r#--x", "no name of a branch"),
    ],
)
def test_places_that_are_none(remotes: Remotes, value: str, message: str) -> None:
    assert is_remote(value)
    with pytest.raises(UsageError, match=message):
        open_source(value, remotes)
