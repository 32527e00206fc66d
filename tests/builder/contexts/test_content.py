"""Checksums of what a COPY reads: what changes them, and which files are opened for them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from builder.contexts import content as content_module
from builder.contexts.content import Content, Selected
from builder.contexts.local import LocalContext

LATER = 10_000_000_000


class Memory(dict[bytes, bytes]):
    def put_many(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        self.update(rows)


class Look:
    """A context looked at anew each time, by a build that starts some seconds later."""

    def __init__(self, root: Path, memory: Memory | None = None, later: int = LATER) -> None:
        self.root = root
        self.memory = memory
        self.later = later

    def content(self) -> Content:
        return Content(self.memory, time.time_ns() + self.later)

    def checksum(self, base: bytes = b"") -> str:
        with LocalContext(str(self.root)) as tree:
            return self.content().checksum([Selected(tree, base, base, tree.walk(base))])

    def known(self) -> str | None:
        with LocalContext(str(self.root)) as tree:
            return self.content().known([Selected(tree, b"", b"", tree.walk())])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "d").mkdir(parents=True)
    for name in ("a", "b", "d/c"):
        (root / name).write_text(name)
    (root / "link").symlink_to("a")
    return root


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The files that are read for checksums."""
    seen: list[bytes] = []
    original = content_module.hash_file

    def watched(open_file: object, path: bytes, node: object, of_context: bool) -> bytes:
        seen.append(path)
        return original(open_file, path, node, of_context)  # type: ignore[arg-type]

    monkeypatch.setattr(content_module, "hash_file", watched)
    return seen


@pytest.mark.parametrize(
    "change",
    [
        "content",
        "name",
        "mode",
        "directory mode",
        "link",
        "kind",
        "added",
        "removed",
        "xattr",
        "directory xattr",
        "hardlink",
    ],
)
def test_what_changes_it(root: Path, change: str) -> None:
    before = Look(root).checksum()
    match change:
        case "content":
            (root / "a").write_text("A")
        case "name":
            (root / "a").rename(root / "aa")
        case "mode":
            os.chmod(root / "a", 0o600)
        case "directory mode":
            os.chmod(root / "d", 0o700)
        case "link":
            (root / "link").unlink()
            (root / "link").symlink_to("b")
        case "kind":
            (root / "a").unlink()
            (root / "a").mkdir()
        case "added":
            (root / "d" / "new").write_text("")
        case "removed":
            (root / "d" / "c").unlink()
        case "xattr":
            os.setxattr(root / "a", "user.x", b"1")
        case "directory xattr":
            os.setxattr(root / "d", "user.x", b"1")
        case "hardlink":
            (root / "b").write_text("a")
            before = Look(root).checksum()
            (root / "b").unlink()
            os.link(root / "a", root / "b")
    assert Look(root).checksum() != before


def test_what_does_not(root: Path, tmp_path: Path) -> None:
    before = Look(root).checksum()
    os.utime(root / "a", (1, 1))
    os.utime(root / "d", (1, 1))
    if os.geteuid() == 0:
        os.chown(root / "a", 5, 6)
    assert Look(root).checksum() == before
    root.rename(tmp_path / "moved")
    assert Look(tmp_path / "moved").checksum() == before
    assert Look(tmp_path / "moved").checksum(b"d") != before


def test_a_second_build_reads_nothing(root: Path, read: list[bytes]) -> None:
    look = Look(root, Memory())
    assert look.known() is None
    first = look.checksum()
    assert sorted(read) == [b"a", b"b", b"d/c"]
    read.clear()
    assert look.known() == look.checksum() == first and read == []


def test_only_changed_files_are_read_again(root: Path, read: list[bytes]) -> None:
    look = Look(root, Memory())
    look.checksum()
    (root / "b").write_text("new")
    read.clear()
    assert look.known() is None
    assert look.checksum() == Look(root).checksum() and read[0] == b"b" and read.count(b"a") == 1
    read.clear()
    assert look.known() is not None


def test_a_touched_file_is_read_once_more(root: Path, read: list[bytes]) -> None:
    """SECURITY.md R18."""
    look = Look(root, Memory())
    first = look.checksum()
    os.utime(root / "a", (5, 5))
    read.clear()
    assert look.checksum() == first and read == [b"a"]


def test_young_files_are_never_remembered(root: Path, read: list[bytes]) -> None:
    """SECURITY.md R18."""
    for path in ("a", "d/c", "link", "d", "."):
        os.utime(root / path, (5, 5), follow_symlinks=False)
    look = Look(root, Memory(), later=0)
    look.checksum()
    assert look.known() is None
    os.utime(root / "b", ns=(0, time.time_ns() + 3600 * 10**9))  # a clock that went back
    Look(root, look.memory).checksum()
    assert Look(root, look.memory).known() is None


def test_what_was_learned_counts(root: Path, read: list[bytes]) -> None:
    memory = Memory()
    with LocalContext(str(root)) as tree:
        selection = [Selected(tree, b"", b"", tree.walk())]
        digests = {}
        with tree.opener() as open_file:
            for path, node in tree.walk():
                if node.size:
                    digests[path] = content_module.hash_file(open_file, path, node, True)
        learned = Content(memory, time.time_ns() + LATER).learn(selection, [digests])
    assert learned == Look(root).checksum() == Look(root, memory).known()


def test_rubbish_in_memory_is_no_harm(root: Path) -> None:
    class Rubbish(Memory):
        def get(self, key: bytes, default: object = None) -> bytes:  # type: ignore[override]
            return b"rubbish"

    assert Look(root, Rubbish()).checksum() == Look(root).checksum()


def test_an_empty_selection() -> None:
    assert Content(Memory()).known([]) == Content().checksum([])
