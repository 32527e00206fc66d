"""Directories in artifacts: the same bytes always, and nothing gets out of where they are unpacked."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from oci.artifact import TITLE, File, pack, titles, unpack
from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import DigestMismatch, InvalidArchive, OciError, UnsafePath
from oci.media_types import OCI_LAYER_GZIP
from oci.model import Descriptor, Manifest
from oci.packed import DIGEST, UNPACK, pack_directory


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


def tree(where: Path) -> Path:
    (where / "sub/empty").mkdir(parents=True)
    (where / "a").write_text("a\n")
    (where / "sub/tool").write_text("#!/bin/sh\n")
    (where / "sub/tool").chmod(0o755)
    os.symlink("../a", where / "sub/link")
    return where


def layer(store: BlobStore, *entries: tarfile.TarInfo, title: str = "t", **more: str) -> Descriptor:
    """A directory that somebody else packed; a regular file is filled with x."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(b"x" * entry.size))
    digest = store.write(gzip.compress(out.getvalue(), mtime=0))
    annotations = {UNPACK: "true", DIGEST: str(Digest.of(out.getvalue())), TITLE: title, **more}
    return Descriptor(OCI_LAYER_GZIP, digest, store.size(digest), annotations)


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    info.size = 1 if kind == tarfile.REGTYPE else 0
    return info


def unpacked(store: BlobStore, layers: Sequence[Descriptor], where: Path) -> None:
    manifest = Manifest(layers[0], tuple(layers))
    unpack(store, list(titles(manifest)), str(where))


def test_the_form(store: BlobStore, tmp_path: Path) -> None:
    made = pack_directory(store, str(tree(tmp_path / "t")), "some/t")
    assert made.media_type == OCI_LAYER_GZIP and made.annotations[UNPACK] == "true"
    content = gzip.decompress(store.read(made.digest))
    assert made.annotations[DIGEST] == str(Digest.of(content))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = archive.getmembers()
    inside = ["some/t", "some/t/a", "some/t/sub", "some/t/sub/empty", "some/t/sub/link", "some/t/sub/tool"]
    assert [each.name for each in members] == inside
    assert {(each.uid, each.gid, each.mtime) for each in members} == {(0, 0, 0)}


def test_the_same_bytes_wherever_and_whenever(store: BlobStore, tmp_path: Path) -> None:
    one, other = tree(tmp_path / "one"), tree(tmp_path / "other")
    os.utime(other / "a", (1, 1))
    assert pack_directory(store, str(one), "t") == pack_directory(store, str(other), "t")


def test_there_and_back(store: BlobStore, tmp_path: Path) -> None:
    """Twice into the same directory: what is there is replaced."""
    made = pack(store, [File(str(tree(tmp_path / "t")), title="deep/t"), File(str(tmp_path / "t/a"))])
    manifest = Manifest.from_json(store.read(made.digest), made.media_type)
    for _ in range(2):
        unpack(store, list(titles(manifest)), str(tmp_path / "out"))
        (tmp_path / "out/deep/t/own").write_text("stays\n")
    there = tmp_path / "out/deep/t"
    assert (there / "sub/link").read_text() == "a\n" and (there / "sub/empty").is_dir()
    assert (there / "sub/tool").stat().st_mode & 0o777 == 0o755
    assert (there / "own").exists() and sorted(os.listdir(tmp_path / "out")) == ["a", "deep"]
    assert os.listdir(tmp_path / "out/deep") == ["t"]


def test_a_directory_without_a_name(store: BlobStore, tmp_path: Path) -> None:
    made = pack_directory(store, str(tree(tmp_path / "t")), ".")
    titled = Descriptor(made.media_type, made.digest, made.size, {**made.annotations, TITLE: "."})
    unpacked(store, [titled], tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["a", "sub"]


@pytest.mark.parametrize(
    "entries",
    [
        [entry("t/../../out-of-it")],
        [entry("other/file")],
        [entry("t/l", tarfile.SYMTYPE, "/etc/passwd")],
        [entry("t/l", tarfile.SYMTYPE, "../../x")],
        [entry("t/l", tarfile.SYMTYPE, "a/../../../x")],
        [entry("t/s", tarfile.SYMTYPE, "."), entry("t/l", tarfile.SYMTYPE, "s/../../x")],
        [entry("t/s", tarfile.SYMTYPE, "."), entry("t/s/l", tarfile.SYMTYPE, "../../x")],
        [entry("t/l", tarfile.LNKTYPE, "own")],
        [entry("t/l", tarfile.LNKTYPE, "../own")],
        [entry("t/l", tarfile.LNKTYPE, "t/../own")],
        [entry("t/device", tarfile.CHRTYPE)],
        [entry("t/pipe", tarfile.FIFOTYPE)],
        [entry("t/.wh.own")],
        [entry("t")],
        [],
    ],
)
def test_nothing_gets_out(store: BlobStore, tmp_path: Path, entries: list[tarfile.TarInfo]) -> None:
    """And nothing is left of what was refused."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/own").write_text("own\n")
    with pytest.raises((OciError, OSError)):
        unpacked(store, [layer(store, *entries)], tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["own"] and (tmp_path / "out/own").stat().st_nlink == 1
    assert sorted(os.listdir(tmp_path)) == ["out", "store"]


def test_a_symlink_that_is_there_is_not_followed(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    os.symlink("../elsewhere", tmp_path / "out/t")
    unpacked(store, [layer(store, entry("t/file"))], tmp_path / "out")
    assert os.listdir(tmp_path / "elsewhere") == [] and (tmp_path / "out/t/file").read_text() == "x"


def test_bits_that_give_rights_are_not_kept(store: BlobStore, tmp_path: Path) -> None:
    unpacked(store, [layer(store, entry("t/tool", mode=0o4755))], tmp_path / "out")
    assert (tmp_path / "out/t/tool").stat().st_mode & 0o7777 == 0o755


def test_the_digest_of_the_content(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch):
        unpacked(store, [layer(store, entry("t/a"), **{DIGEST: str(Digest.of(b"else"))})], tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


def test_what_is_not_marked_is_a_file(store: BlobStore, tmp_path: Path) -> None:
    unpacked(store, [layer(store, entry("t/a"), **{UNPACK: "false"})], tmp_path / "out")
    assert (tmp_path / "out/t").is_file()
    with pytest.raises(UnsafePath):
        list(titles(Manifest(layer(store), (layer(store, title=".", **{UNPACK: "false"}),))))


def test_only_files_directories_and_symlinks_are_packed(store: BlobStore, tmp_path: Path) -> None:
    os.mkdir(tmp_path / "t")
    os.mkfifo(tmp_path / "t/pipe")
    with pytest.raises(InvalidArchive, match="pipe"):
        pack_directory(store, str(tmp_path / "t"), "t")
