"""Several layers as one: applied, it gives what they give one after the other, on any base."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oci.apply import apply
from oci.blobs import BlobStore
from oci.compress import codec
from oci.layer import LayerSink, read_layer
from oci.model import Descriptor
from oci.squash import squash
from oci.tar import Entry, Kind, TarReader, TarWriter

NAMES = [b"a", b"b", b"a/x", b"a/y", b"a/x/deep", b"b/z", b"c"]


def tar(entries: list[tuple[Entry, bytes]]) -> bytes:
    blocks: list[bytes] = []
    writer = TarWriter(blocks.append)
    for entry, data in entries:
        writer.add(entry, data)
    writer.finish()
    return b"".join(blocks)


def layer(store: BlobStore, entries: list[tuple[Entry, bytes]]) -> Descriptor:
    with LayerSink(codec("gzip", 1), store) as sink:
        sink(tar(entries))
        made = sink.finish()
    return Descriptor(made.media_type, made.digest, made.size)


def file(name: str, text: str = "", **more: object) -> tuple[Entry, bytes]:
    return Entry(name.encode(), Kind.FILE, size=len(text), **more), text.encode()  # type: ignore[arg-type]


def directory(name: str, mode: int = 0o755) -> tuple[Entry, bytes]:
    return Entry(name.encode(), Kind.DIRECTORY, mode), b""


def link(name: str, to: str, kind: Kind = Kind.HARDLINK) -> tuple[Entry, bytes]:
    return Entry(name.encode(), kind, link=to.encode()), b""


def names(store: BlobStore, descriptor: Descriptor) -> list[str]:
    with read_layer(store, descriptor.digest, descriptor.media_type) as reader:
        return [
            entry.name.decode() + {Kind.HARDLINK: "=", Kind.SYMLINK: "@"}.get(entry.kind, "")
            for entry in reader
        ]


def squashed(store: BlobStore, *layers: list[tuple[Entry, bytes]]) -> Descriptor:
    made = squash([layer(store, each) for each in layers], store, codec("gzip", 1))
    assert made is not None
    return Descriptor(made.media_type, made.digest, made.size)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(str(tmp_path / "store"))


def test_later_files_win_and_what_is_gone_is_gone(store: BlobStore) -> None:
    made = squashed(
        store,
        [directory("d"), file("d/secret", "s"), file("d/kept", "1")],
        [file("d/.wh.secret"), file("d/kept", "2")],
    )
    assert names(store, made) == ["d", "d/.wh.secret", "d/kept"]
    assert b"s" not in content(store, made).split(b"\0")


def content(store: BlobStore, made: Descriptor) -> bytes:
    with read_layer(store, made.digest, made.media_type) as reader:
        return b"\0".join(reader.read() for _ in reader)


def test_hard_links_outlive_the_name_they_were_made_to(store: BlobStore) -> None:
    made = squashed(store, [file("a", "1"), link("b", "a"), link("c", "a")], [file(".wh.a")])
    assert names(store, made) == [".wh.a", "b", "c="]
    made = squashed(store, [link("x", "of/the/base")], [file("y")])
    assert names(store, made) == ["y", "x="]


def test_a_directory_that_comes_again_hides_the_base(store: BlobStore) -> None:
    made = squashed(store, [file(".wh.d")], [directory("d"), file("d/new")])
    assert names(store, made) == ["d", "d/.wh..wh..opq", "d/new"]
    made = squashed(store, [file("d", "file now")], [directory("d")])
    assert names(store, made) == ["d", "d/.wh..wh..opq"]
    made = squashed(store, [directory("d"), file("d/old")], [file("d/.wh..wh..opq"), file("d/new")])
    assert names(store, made) == ["d", "d/.wh..wh..opq", "d/new"]


def test_a_file_in_place_of_an_implied_directory(store: BlobStore) -> None:
    assert names(store, squashed(store, [file("d/below")], [file("d")])) == ["d"]


def test_nothing(store: BlobStore) -> None:
    assert squash([], store, codec("gzip", 1)) is None


# ---- the same tree as one layer after the other ----


@st.composite
def some_layer(draw: st.DrawFn) -> list[tuple[Entry, bytes]]:
    """A layer that means something: no name is both there and gone, and only directories hold names."""
    found: dict[bytes, tuple[Entry, bytes]] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5)):
        what = draw(st.sampled_from(["file", "directory", "gone", "opaque", "symlink"]))
        parent, slash, base = name.rpartition(b"/")
        above = [each for each in NAMES if name.startswith(each + b"/")]
        below = any(each.startswith(name + b"/") for each in found)
        whiteout = parent + slash + b".wh." + base
        if any(each in found and found[each][0].kind is not Kind.DIRECTORY for each in above):
            continue
        if any(_whiteout(each) in found for each in (*above, name)) or name in found:
            continue
        if what in ("directory", "opaque"):
            found[name] = (Entry(name, Kind.DIRECTORY, draw(st.sampled_from([0o700, 0o755]))), b"")
            if what == "opaque":
                found[name + b"/.wh..wh..opq"] = (Entry(name + b"/.wh..wh..opq", Kind.FILE), b"")
        elif below:
            continue
        elif what == "gone":
            found[whiteout] = (Entry(whiteout, Kind.FILE), b"")
        elif what == "file":
            text = draw(st.sampled_from([b"1", b"22"]))
            found[name] = (Entry(name, Kind.FILE, size=len(text)), text)
        else:
            found[name] = (Entry(name, Kind.SYMLINK, link=b"to"), b"")
        for each in above:
            found.setdefault(each, (Entry(each, Kind.DIRECTORY, 0o755), b""))
    return [found[name] for name in sorted(found)]


def _whiteout(name: bytes) -> bytes:
    parent, slash, base = name.rpartition(b"/")
    return parent + slash + b".wh." + base


def tree(root: str) -> list[tuple[str, int, bytes]]:
    rows = []
    for where, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(where, name)
            mode = os.lstat(path).st_mode
            data = b"" if not os.path.isfile(path) or os.path.islink(path) else Path(path).read_bytes()
            rows.append((os.path.relpath(path, root), mode, data))
    return sorted(rows)


def applied(root: Path, *layers: bytes) -> list[tuple[str, int, bytes]]:
    root.mkdir()
    for each in layers:
        apply(TarReader(io.BytesIO(each)), str(root), style="plain")
    return tree(str(root))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base=some_layer(), layers=st.lists(some_layer(), min_size=2, max_size=4))
def test_it_does_what_the_layers_do(
    base: list[tuple[Entry, bytes]],
    layers: list[list[tuple[Entry, bytes]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    top = tmp_path_factory.mktemp("squash")
    store = BlobStore(str(top / "store"))
    made = squash([layer(store, each) for each in layers], store, codec("uncompressed"))
    whole = [] if made is None else [_bytes(store, made.digest)]
    assert applied(top / "one", tar(base), *whole) == applied(
        top / "all", tar(base), *(tar(each) for each in layers)
    )


def _bytes(store: BlobStore, digest: object) -> bytes:
    with store.open(digest) as reader:  # type: ignore[arg-type]
        return reader.read()
