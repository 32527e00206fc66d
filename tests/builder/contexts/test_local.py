"""Directories as contexts: what is seen, what never is."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from holding import descriptors, no_descriptor_more_than

from builder.contexts.local import LocalContext, read_dockerfile, read_ignore
from builder.errors import ContextError
from builder.patterns import IgnoreFile
from oci.tar import Kind


def context(root: Path, ignore: str = "") -> LocalContext:
    return LocalContext(str(root), IgnoreFile(ignore.split("\n")))


def names(tree: LocalContext) -> list[str]:
    return [os.fsdecode(path) for path, _ in tree.walk()][1:]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    for name in ("a/b/c", "a-b", "z/y"):
        (root / name).mkdir(parents=True)
    for name in ("a/b/c/file", "a/other", "a-b/f", "z/y/deep", "top"):
        (root / name).write_text(name)
    os.symlink("../top", root / "a" / "link")
    return root


def test_walk(root: Path) -> None:
    with context(root) as tree:
        expected = "a a/b a/b/c a/b/c/file a/link a/other a-b a-b/f top z z/y z/y/deep"
        assert names(tree) == expected.split()
        nodes = dict(tree.walk())
        assert nodes[b"a/link"].link == b"../top" and nodes[b"top"].size == 3
        assert {(node.uid, node.gid) for node in nodes.values()} == {(0, 0)}
        assert tree.walk(b"a/b") == [item for item in tree.walk() if (item[0] + b"/").startswith(b"a/b/")]
        assert tree.lstat(b"a/link/x") is None and tree.lstat(b"nothing/at/all") is None
        assert tree.listdir(b"a") == [b"b", b"link", b"other"] and tree.listdir(b"top") == []


@pytest.mark.parametrize(
    ("ignore", "shown"),
    [
        ("a\nz", ["a-b", "a-b/f", "top"]),
        ("*\n!a/b/c", ["a", "a/b", "a/b/c", "a/b/c/file"]),
        ("**/file\n**/deep\n**/f", ["a", "a/b", "a/b/c", "a/link", "a/other", "a-b", "top", "z", "z/y"]),
        ("*\n!z/nothing", []),
        ("a/b\n!a/b/c/file\na-b\ntop\nz", ["a", "a/b", "a/b/c", "a/b/c/file", "a/link", "a/other"]),
    ],
)
def test_ignored(root: Path, ignore: str, shown: list[str]) -> None:
    with context(root, ignore) as tree:
        assert names(tree) == shown
        for path, _ in tree.walk():
            assert tree.lstat(path) is not None
    with context(root, ignore) as tree:
        for name in ("a/b/c/file", "a/other", "top", "z/y/deep"):
            assert (tree.lstat(name.encode()) is not None) == (name in shown), name


def test_ignored_directories_are_never_opened(root: Path) -> None:
    """SECURITY.md S55."""
    os.chmod(root / "a", 0)
    opened: list[str] = []
    import sys

    sys.addaudithook(
        lambda event, args: opened.append(str(args[0])) if event == "open" and watching else None
    )
    watching = True
    with context(root, "a\nz\n**/f") as tree:
        for path, node in tree.walk():
            if node.kind is Kind.FILE:
                os.close(tree.open(path))
    watching = False
    seen = [os.fsdecode(each.encode()) for each in opened if "context" in each or each.startswith("b'")]
    assert seen and not [each for each in seen if each in ("b'a'", "b'z'", "b'f'", "b'file'", "b'deep'")]


def test_opening_never_follows(root: Path, tmp_path: Path) -> None:
    """SECURITY.md S53."""
    (tmp_path / "secret").write_text("secret")
    (root / "out").symlink_to("../secret")
    (root / "up").symlink_to("..")
    os.mkfifo(root / "fifo")
    with context(root) as tree, tree.opener() as open_file:
        for path in (b"out", b"up/secret", b"a/link", b"../secret"[3:], b"nothing"):
            with pytest.raises(OSError):
                open_file(path)
        os.close(open_file(b"a/b/c/file"))
        os.close(open_file(b"top"))
        with pytest.raises(OSError):
            open_file(b"a/b/c/file/x")
        os.close(open_file(b"a-b/f"))


def test_errors(tmp_path: Path, root: Path) -> None:
    with pytest.raises(ContextError, match="cannot be opened: No such file"):
        LocalContext(str(tmp_path / "missing"))
    with pytest.raises(ContextError, match="cannot be opened: Not a directory"):
        LocalContext(str(root / "top"))


def test_many_levels(tmp_path: Path) -> None:
    """SECURITY.md R19."""
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        for _ in range(500):
            os.mkdir("d")
            os.chdir("d")
    finally:
        os.chdir(here)
    with context(tmp_path) as tree, pytest.raises(ContextError, match="deeper than"):
        tree.walk()


def test_strange_names(tmp_path: Path) -> None:
    """SECURITY.md R19."""
    strange = [b"new\nline", b"\xff\xfe", b" ", "ü".encode(), b"a\\b"]
    for name in strange:
        with open(os.path.join(os.fsencode(tmp_path), name), "w"):
            pass
    with context(tmp_path) as tree:
        assert tree.listdir(b"") == sorted(strange)
        for name in strange:
            os.close(tree.open(name))


class TestDockerfile:
    def test_where_it_lies(self, root: Path, tmp_path: Path) -> None:
        (root / "Dockerfile").write_bytes(b"\xef\xbb\xbfFROM a\r\nRUN b\r\n")
        (tmp_path / "elsewhere").write_text("FROM c\n")
        source = read_dockerfile(str(root))
        assert (source.name, source.text) == ("Dockerfile", "FROM a\nRUN b\n")
        assert read_dockerfile(str(root), str(tmp_path / "elsewhere")).text == "FROM c\n"
        assert read_dockerfile(str(root), "-", b"FROM d").text == "FROM d"

    def test_links(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("FROM secret")
        (root / "Dockerfile").symlink_to("../secret")
        with pytest.raises(ContextError, match="Dockerfile cannot be read: No such file"):
            read_dockerfile(str(root))
        (root / "Dockerfile").unlink()
        (root / "Dockerfile").symlink_to("a/other")
        assert read_dockerfile(str(root)).text == "a/other"
        (tmp_path / "link").symlink_to("secret")
        assert read_dockerfile(str(root), str(tmp_path / "link")).text == "FROM secret"

    def test_none(self, root: Path) -> None:
        (root / "app.Dockerfile").write_text("")
        with pytest.raises(ContextError, match="No such file") as caught:
            read_dockerfile(str(root))
        assert "app.Dockerfile" in caught.value.hint
        (root / "Dockerfile").mkdir()
        before = descriptors()
        for path in ("", str(root), str(root.parent)):
            with pytest.raises(ContextError, match="Is a directory"):
                read_dockerfile(str(root), path)
        no_descriptor_more_than(before)
        with pytest.raises(ContextError, match="No such file"):
            read_dockerfile(str(root / "nothing"))


class TestIgnoreFile:
    def test_which(self, root: Path, tmp_path: Path) -> None:
        assert read_ignore(str(root)) is None
        (root / ".dockerignore").write_text("top")
        assert self.ignored(read_ignore(str(root))) == ["top"]
        (root / "Dockerfile.dockerignore").write_text("a")
        assert self.ignored(read_ignore(str(root))) == ["a"]
        assert self.ignored(read_ignore(str(root), str(tmp_path / "other"))) == ["top"]
        assert self.ignored(read_ignore(str(root), "-")) == ["top"]
        (tmp_path / "other.dockerignore").write_text("z")
        assert self.ignored(read_ignore(str(root), str(tmp_path / "other"))) == ["z"]

    def ignored(self, ignore: IgnoreFile | None) -> list[str]:
        assert ignore is not None
        return [name for name in ("a", "top", "z") if ignore.ignored(name)]

    def test_a_bad_line(self, root: Path) -> None:
        (root / ".dockerignore").write_text("a\n[\n")
        with pytest.raises(ContextError) as caught:
            read_ignore(str(root))
        assert caught.value.at is not None and caught.value.at.first == 2

    def test_a_link_out(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("top")
        (root / ".dockerignore").symlink_to("../secret")
        assert read_ignore(str(root)) is None


def test_threads_that_look_at_once_see_everything(tmp_path: Path) -> None:
    names = [b"%04d" % number for number in range(500)]
    for name in names:
        (tmp_path / name.decode()).touch()
    for _ in range(20):
        with LocalContext(str(tmp_path)) as context, ThreadPoolExecutor(4) as pool:
            for found in pool.map(context.listdir, [b""] * 4):
                assert found == names


def test_s53_a_directory_exchanged_for_a_link_is_not_listed(tmp_path: Path) -> None:
    """Between the look at its parent and its own turn (SECURITY.md S53)."""
    from builder.contexts.listing import Lister

    (tmp_path / "outside" / "deep").mkdir(parents=True)
    (tmp_path / "context" / "sub").mkdir(parents=True)
    fd = os.open(tmp_path / "context", os.O_RDONLY | os.O_DIRECTORY)
    lister = Lister(fd, "context", None)
    lister.one(b"", fd)
    (tmp_path / "context" / "sub").rmdir()
    (tmp_path / "context" / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(ContextError):
        lister.whole(b"", fd)
    os.close(fd)
    assert b"sub" not in lister.listings
