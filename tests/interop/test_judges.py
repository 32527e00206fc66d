"""The judge itself: it must see what it claims to see, or equality proves nothing."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest
from judges.bases import BUSYBOX, docker_archive, image_archive, oci_layout
from judges.files import GONE, Dir, Expected, File, Files, Hard, Link, pack_tree
from judges.flatten import Flat, differences, expected_tree, read_image

pytestmark = pytest.mark.interop


def _flat(tmp_path: object, *layers: Files) -> Flat:
    """An image of these layers, written by hand and read back."""
    packed = [pack_tree(layer) for layer in layers]
    diff_ids = [f"sha256:{hashlib.sha256(blob).hexdigest()}" for blob in packed]
    names = [f"{number}/layer.tar" for number in range(len(packed))]
    config = {"os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": []}
    path = f"{tmp_path}/image.tar"
    with open(path, "wb") as out:
        out.write(
            pack_tree(
                {
                    "manifest.json": json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": names}]),
                    "c.json": json.dumps(config),
                    **{name: File(blob) for name, blob in zip(names, packed, strict=True)},
                }
            )
        )
    return read_image(path)


def test_whiteouts_hide_what_is_below_but_not_what_comes_with_them(tmp_path: object) -> None:
    lower: Files = {"d": Dir(), "d/a": "a", "d/b": "b", "gone": "x", "gone2": Dir(), "gone2/deep": "y"}
    upper: Files = {".wh.gone": "", "d/.wh.a": "", "d/a2": "new", ".wh.gone2": ""}
    assert _flat(tmp_path, lower, upper).tree.keys() == {"/", "/d", "/d/b", "/d/a2"}


def test_an_opaque_directory_keeps_only_its_own_layer(tmp_path: object) -> None:
    tree = _flat(tmp_path, {"d/a": "a", "d/s/b": "b"}, {"d/new": "n", "d/.wh..wh..opq": ""}).tree
    assert tree.keys() == {"/", "/d", "/d/new"}


def test_a_file_replaces_a_directory_and_the_reverse(tmp_path: object) -> None:
    tree = _flat(tmp_path, {"a/b/c": "c", "f": "f"}, {"a": "now a file", "f": Dir(), "f/x": "x"}).tree
    assert tree.keys() == {"/", "/a", "/f", "/f/x"}


def test_hard_links_are_told_by_all_their_names(tmp_path: object) -> None:
    tree = _flat(tmp_path, {"a": "1", "b": Hard("a"), "c": Hard("a")}, {"c": "2"}).tree
    assert tree["/a"] == tree["/b"] == "file 0644 0:0 '1' names=['/a', '/b']"
    assert tree["/c"] == "file 0644 0:0 '2'"


@pytest.mark.parametrize(
    "changed",
    [
        {"f": File("other", 0o640, (1, 2))},
        {"f": File("text", 0o644, (1, 2))},
        {"f": File("text", 0o640, (1, 3))},
        {"f": File("text", 0o640, (1, 2), {"user.x": b"1"})},
        {"f": Dir(0o640, (1, 2))},
        {"f": Link("text", (1, 2))},
        {"f": File("text", 0o640, (1, 2)), "g": Hard("f")},
        {"g": File("text", 0o640, (1, 2))},
    ],
)
def test_every_kind_of_difference_is_seen(tmp_path: object, changed: Files) -> None:
    as_it_was = _flat(tmp_path, {"f": File("text", 0o640, (1, 2))})
    assert differences(_flat(tmp_path, changed).tree, as_it_was.tree)


def test_golden_entries_are_told_like_what_was_read(tmp_path: object) -> None:
    base = _flat(tmp_path, {"d": Dir(), "d/old": "o", "keep": "k"}).tree
    new: Files = {
        "d": Dir(0o700),
        "one": File("1", 0o4755),
        "two": Hard("one"),
        "l": Link("keep", (5, 6)),
        ".wh.keep": "",
    }
    image = _flat(tmp_path, {"d": Dir(), "d/old": "o", "keep": "k"}, {**new, "d/.wh.old": ""}).tree
    golden: dict[str, Expected] = {
        "/d": Dir(0o700),
        "/d/old": GONE,
        "/one": File("1", 0o4755),
        "/two": Hard("/one"),
    }
    assert expected_tree(base, {**golden, "/l": Link("keep", (5, 6)), "/keep": GONE}) == image


def test_a_layer_that_is_not_its_diff_id_is_refused(tmp_path: object) -> None:
    path = f"{tmp_path}/image.tar"
    other = File(pack_tree({}))
    with open(path, "wb") as out:
        out.write(pack_tree({**_unpacked(docker_archive("x:1", {"a": "b"}, {})), "layer.tar": other}))
    with pytest.raises(ValueError, match="the config says"):
        read_image(path)


def test_the_oci_form_and_the_docker_form_of_an_image_read_the_same(tmp_path: object) -> None:
    files: Files = {"d": Dir(0o700, (1, 1)), "d/f": File("x", xattrs={"user.a": b"\x00\xff"})}
    flats = []
    for archive in (docker_archive("x:1", files, {"User": "1"}), pack_tree(oci_layout(files, {"User": "1"}))):
        with open(f"{tmp_path}/image.tar", "wb") as out:
            out.write(archive)
        flats.append(read_image(f"{tmp_path}/image.tar"))
    assert flats[0] == flats[1]
    assert flats[0].tree["/d/f"] == "file 0644 0:0 'x' user.a=00ff"


def test_the_base_image_is_one_that_reads_back(tmp_path: object) -> None:
    with open(f"{tmp_path}/base.tar", "wb") as out:
        out.write(image_archive(BUSYBOX))
    tree = read_image(f"{tmp_path}/base.tar").tree
    assert tree["/tmp"] == "dir 1777 0:0"
    assert tree["/bin/sh"] == "link 0:0 -> busybox"
    assert tree["/opt/two"].endswith("names=['/opt/one', '/opt/two']")


def _unpacked(archive: bytes) -> dict[str, File]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        found = {member.name: opened.extractfile(member) for member in opened}
        return {name: File(file.read()) for name, file in found.items() if file}
