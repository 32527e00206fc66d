"""Contexts that come as archives: read once, nothing leads out of them, and what cannot be is an error."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from builder.contexts.archive import ArchiveContext, Stream
from builder.contexts.content import Content, Selected
from builder.contexts.local import LocalContext
from builder.errors import ContextError
from builder.patterns import IgnoreFile
from builder.tree import Tree
from oci.tar import Kind


def archive(*members: tuple[str, object], mode: str = "w") -> bytes:
    """Members by name: text, None for a directory, ("sym"|"hard", target), or a type flag."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:  # type: ignore[call-overload]
        for name, what in members:
            info = tarfile.TarInfo(name)
            info.mtime, info.uid, info.mode = 1_000_000_000, 1000, 0o755 if what is None else 0o640
            data = None
            if isinstance(what, str):
                data = io.BytesIO(what.encode())
                info.size = len(what.encode())
            elif what is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(what, bytes):
                info.type = what
            else:
                kind, info.linkname = what  # type: ignore[misc]
                info.type = tarfile.SYMTYPE if kind == "sym" else tarfile.LNKTYPE
            tar.addfile(info, data)
    return out.getvalue()


def opened(content: bytes) -> ArchiveContext:
    return ArchiveContext(Stream(io.BytesIO(content)))


def read(tree: Tree, path: bytes) -> bytes:
    with os.fdopen(tree.open(path), "rb") as file:
        return file.read()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_compression_is_recognised_by_content(mode: str) -> None:
    stream = Stream(io.BytesIO(archive(("d", None), ("d/a", "text"), mode=mode)))
    assert stream.is_archive()
    with ArchiveContext(stream) as context:
        assert [path for path, _ in context.walk()] == [b"", b"d", b"d/a"]
        assert read(context, b"d/a") == b"text"
        node = context.lstat(b"d/a")
        assert node is not None
        assert (node.mode, node.uid, node.size, node.mtime_ns) == (0o640, 0, 4, 10**18)


@pytest.mark.parametrize("text", [b"", b"FROM scratch\n", b"\x1f\x8bnot really", b"x" * 70_000])
def test_what_is_no_archive_can_still_be_read(text: bytes) -> None:
    stream = Stream(io.BytesIO(text))
    assert not stream.is_archive()
    found = b""
    while chunk := stream.read(1000):
        found += chunk
    assert found == text


def test_directories_that_are_only_implied_and_members_that_come_twice() -> None:
    with opened(archive(("a/b/c", "1"), ("./a/b/c", "22"), ("x", "file"), ("x/y", "below"))) as context:
        assert [path for path, _ in context.walk()] == [b"", b"a", b"a/b", b"a/b/c", b"x", b"x/y"]
        assert read(context, b"a/b/c") == b"22"


def test_links_are_resolved_inside() -> None:
    members = (
        ("d", None),
        ("l", ("sym", "/d")),
        ("l/f", "through"),
        ("h", ("hard", "d/f")),
        ("up", ("sym", "../../d")),
    )
    with opened(archive(*members)) as context:
        assert read(context, b"d/f") == read(context, b"h") == b"through"
        assert context.resolve(b"up/f") == b"d/f"
        assert context.readlink(b"l") == b"/d"
        assert context.lstat(b"l/f") is None


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ((("../x", "y"),), "outside"),
        ((("a/../../x", "y"),), "outside"),
        ((("h", ("hard", "../x")),), "no file in it"),
        ((("h", ("hard", "gone")),), "no file in it"),
        (((".", ("sym", "/etc")),), "root is no directory"),
        ((("a", ("sym", "b")), ("b", ("sym", "a")), ("a/c", "x")), "circles"),
    ],
)
def test_what_would_lie_outside_is_refused(members: tuple[tuple[str, object], ...], message: str) -> None:
    """SECURITY.md S41."""
    with pytest.raises(ContextError, match=message):
        opened(archive(*members))


def test_a_damaged_archive_says_so() -> None:
    content = archive(("a", "x" * 100_000), mode="w:gz")
    with pytest.raises(ContextError, match="the context is an archive that cannot be read"):
        opened(content[: len(content) // 2])


def test_what_is_left_out_is_not_there() -> None:
    with opened(archive(("a", "1"), ("d/keep", "2"), ("d/drop", "3"))) as context:
        context.leave_out(IgnoreFile(["a", "d", "!d/keep"]))
        assert [path for path, _ in context.walk()] == [b"", b"d", b"d/keep"]
        assert context.ignored(b"a")
        assert context.everything.lstat(b"a") is not None


def test_special_files_are_kept() -> None:
    """SECURITY.md S46."""
    with opened(archive(("p", tarfile.FIFOTYPE))) as context:
        assert [node.kind for _, node in context.walk()] == [Kind.DIRECTORY, Kind.FIFO]


def test_a_checksum_opens_nothing_and_is_that_of_the_same_files_in_a_directory(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o755)
    (tmp_path / "d/a").write_text("text")
    (tmp_path / "d/a").chmod(0o640)
    with opened(archive(("d", None), ("d/a", "text"))) as packed, LocalContext(str(tmp_path)) as plain:
        known = Content(None).known([Selected(packed, b"d", b"d", packed.walk(b"d"))])
        assert known == Content(None).checksum([Selected(plain, b"d", b"d", plain.walk(b"d"))])


def test_large_files_and_many() -> None:
    members = [(f"f{number:04}", "x" * number) for number in range(2000)]
    with opened(archive(*members)) as context:
        assert all(len(read(context, name.encode())) == number for number, (name, _) in enumerate(members))
