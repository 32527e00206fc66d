"""What a chain of layers shows: against a plain model of layers applied one after the other."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.snapshot.view import WHITEOUT, DirectoryLayer, IndexLayer, View, index_of
from builder.tree import Node
from oci.apply import apply
from oci.errors import InvalidArchive
from oci.tar import Entry, Kind, TarReader, TarWriter

FILE = Node(Kind.FILE, 0o600)
DIRECTORY = Node(Kind.DIRECTORY, 0o700)


def closed(path: bytes) -> int:
    raise AssertionError(path)


def layer(entries: dict[str, Node], opaques: tuple[str, ...] = ()) -> IndexLayer:
    return IndexLayer(
        {name.encode(): node for name, node in entries.items()}, closed, [name.encode() for name in opaques]
    )


def names(view: View) -> list[str]:
    return [path.decode() for path, _ in view.walk()][1:]


LOW = {"d": DIRECTORY, "d/a": FILE, "d/s": DIRECTORY, "d/s/b": FILE, "f": FILE}


@pytest.mark.parametrize(
    ("top", "opaques", "shown"),
    [
        ({}, (), ["d", "d/a", "d/s", "d/s/b", "f"]),
        ({"d": DIRECTORY, "d/n": FILE}, (), ["d", "d/a", "d/n", "d/s", "d/s/b", "f"]),
        ({"d/a": WHITEOUT}, (), ["d", "d/s", "d/s/b", "f"]),
        ({"d": WHITEOUT, "x": WHITEOUT}, (), ["f"]),
        ({"d": FILE}, (), ["d", "f"]),
        ({"f": DIRECTORY, "f/x": FILE}, (), ["d", "d/a", "d/s", "d/s/b", "f", "f/x"]),
        ({"d": DIRECTORY, "d/n": FILE}, ("d",), ["d", "d/n", "f"]),
        ({"d/s/n": FILE}, (), ["d", "d/a", "d/s", "d/s/b", "d/s/n", "f"]),
        ({"d/s/n": FILE}, ("d/s",), ["d", "d/a", "d/s", "d/s/n", "f"]),
        ({"new/x/y": FILE}, (), ["d", "d/a", "d/s", "d/s/b", "f", "new", "new/x", "new/x/y"]),
        ({"f/x": FILE}, (), ["d", "d/a", "d/s", "d/s/b", "f", "f/x"]),
    ],
)
def test_two_layers(top: dict[str, Node], opaques: tuple[str, ...], shown: list[str]) -> None:
    view = View([layer(LOW), layer(top, opaques)])
    assert names(view) == shown
    assert [name for name in shown if view.lstat(name.encode()) is None] == []
    for gone in {*LOW} - {*shown}:
        assert view.lstat(gone.encode()) is None


def test_a_whiteout_and_a_return() -> None:
    view = View([layer(LOW), layer({"d": WHITEOUT}), layer({"d/new": FILE})])
    assert names(view) == ["d", "d/new", "f"]
    assert view.lstat(b"d") == Node(Kind.DIRECTORY, 0o755)


def test_an_implied_directory_has_the_metadata_below() -> None:
    view = View([layer({"d": Node(Kind.DIRECTORY, 0o711)}), layer({"d/n": FILE})])
    assert dict(view.walk())[b"d"].mode == 0o711
    assert view.lstat(b"d") == Node(Kind.DIRECTORY, 0o711)


def test_links() -> None:
    view = View(
        [
            layer(
                {
                    "bin": Node(Kind.SYMLINK, 0o777, link=b"/usr/bin"),
                    "usr/bin/sh": FILE,
                    "l": Node(Kind.SYMLINK, 0o777, link=b"../../bin/x"),
                }
            )
        ]
    )
    assert view.resolve(b"bin/sh") == b"usr/bin/sh"
    assert view.resolve(b"l") == b"usr/bin/x"
    assert view.lstat(b"bin/sh") is None and view.listdir(b"bin") == []


def test_opening(tmp_path: Path) -> None:
    for name, text in (("low", "low"), ("top", "top")):
        (tmp_path / name / "d").mkdir(parents=True)
        (tmp_path / name / "d" / name).write_text(text)
        (tmp_path / name / "d" / "both").write_text(text)
    os.symlink("/etc/passwd", tmp_path / "top" / "link")
    view = View([DirectoryLayer(str(tmp_path / "low")), DirectoryLayer(str(tmp_path / "top"))])
    with view.opener() as open_file:
        for path, text in ((b"d/low", b"low"), (b"d/top", b"top"), (b"d/both", b"top")):
            fd = open_file(path)
            assert os.read(fd, 9) == text
            os.close(fd)
        for path in (b"link", b"d", b"d/nothing"):
            with pytest.raises(FileNotFoundError):
                open_file(path)


path_names = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)
parts = st.tuples(st.sampled_from(["file", "directory", "whiteout", "opaque"]), path_names)
layers = st.lists(st.lists(parts, max_size=6), max_size=4)


def entries_of(description: list[tuple[str, str]]) -> list[Entry] | None:
    """A layer's entries in order; None when it contradicts itself (a file with something below it)."""
    found: dict[bytes, Entry] = {}
    for what, text in description:
        name = text.encode()
        parent, _, base = name.rpartition(b"/")
        prefix = parent + b"/" if parent else b""
        if what == "whiteout":
            found[prefix + b".wh." + base] = Entry(prefix + b".wh." + base, Kind.FILE)
        elif what == "opaque":
            found[name + b"/.wh..wh..opq"] = Entry(name + b"/.wh..wh..opq", Kind.FILE)
        else:
            found[name] = Entry(name, Kind.FILE if what == "file" else Kind.DIRECTORY)
    files = [name for name, entry in found.items() if entry.kind is Kind.FILE]
    if any(other.startswith(name + b"/") for name in files for other in found):
        return None
    return [found[name] for name in sorted(found)]


@settings(max_examples=150, deadline=None)
@given(layers)
def test_as_if_applied_one_after_the_other(descriptions: list[list[tuple[str, str]]]) -> None:
    chain = [entries for each in descriptions if (entries := entries_of(each)) is not None]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as root:
        for entries in chain:
            blocks: list[bytes] = []
            tar = TarWriter(blocks.append)
            for entry in entries:
                tar.add(Entry(entry.name, entry.kind, uid=os.getuid(), gid=os.getgid()))
            tar.finish()
            try:
                apply(TarReader(io.BytesIO(b"".join(blocks))), root, style="plain")
            except InvalidArchive:  # it has a file with something below it: no layer that anybody makes
                return
        expected = {
            os.path.relpath(os.path.join(here, name), root): os.path.isdir(os.path.join(here, name))
            for here, directories, files in os.walk(root)
            for name in (*directories, *files)
        }
    view = View([index_of(entries, closed) for entries in chain])
    shown = {path.decode(): node.kind is Kind.DIRECTORY for path, node in view.walk() if path}
    assert shown == expected
    assert {path: view.lstat(path.encode()) is not None for path in expected} == dict.fromkeys(expected, True)
