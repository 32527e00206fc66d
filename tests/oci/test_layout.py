"""Layouts: names change all at once, and nothing a stranger put there is trusted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from holding import descriptors, no_descriptor_more_than

from oci import media_types
from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import BlobNotFound, InvalidArchive, InvalidDocument, LimitExceeded
from oci.image import Image
from oci.layout import CONTAINERD_NAME, REF_NAME, Layout, name_of
from oci.model import Descriptor

APP, WEB = "docker.io/library/app:latest", "docker.io/library/web:1"
Make = Callable[..., Image]


def test_create_is_a_layout_and_may_be_repeated(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    layout = Layout.create(tmp_path)
    assert json.loads((tmp_path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert (tmp_path / "blobs" / "sha256").is_dir()
    assert layout.descriptors() == ()
    pointer = layout.blobs.put(media_types.OCI_MANIFEST, b"{}")
    with layout.editing() as names:
        names.set(APP, pointer)
    assert len(Layout.create(tmp_path).descriptors()) == 1
    assert Layout.open(tmp_path).find(APP) is not None


def test_a_directory_for_a_file_is_refused_and_closed(tmp_path: Path) -> None:
    (tmp_path / "oci-layout").mkdir()
    before = descriptors()
    with pytest.raises(IsADirectoryError):
        Layout.open(tmp_path)
    no_descriptor_more_than(before)


def test_names(layout: Layout, make_image: Make) -> None:
    one, two = make_image(layout.blobs, b"one").descriptor, make_image(layout.blobs, b"two").descriptor
    with layout.editing() as names:
        names.add(one)
        assert names.set(APP, one) is None
        names.set(WEB, one, ref_name="1")
        names.add(one)
    assert [name_of(entry) for entry in layout.descriptors()] == [APP, WEB]
    assert layout.find(APP) == names.find(APP)
    assert layout.find("1") == layout.find(WEB)
    assert layout.find("nothing") is None
    with layout.editing() as names:
        before = names.set(APP, two)
        assert before is not None
        assert before.digest == one.digest
        names.add(before)
    assert [(name_of(entry), entry.digest) for entry in layout.descriptors()] == [
        (WEB, one.digest),
        (APP, two.digest),
    ]
    with layout.editing() as names:
        removed = names.remove(WEB)
        assert names.remove(WEB) is None
        assert removed is not None
        names.add(removed)
        assert len(names.drop(two.digest)) == 1
    [left] = layout.descriptors()
    assert (name_of(left), left.digest, left.platform) == ("", one.digest, one.platform)


def test_annotations_of_others_are_kept(layout: Layout) -> None:
    pointer = layout.blobs.put(media_types.OCI_MANIFEST, b"{}")
    with layout.editing() as names:
        names.set(
            APP, Descriptor(pointer.media_type, pointer.digest, pointer.size, {"a": "b", REF_NAME: "old"})
        )
    [entry] = layout.descriptors()
    assert entry.annotations == {"a": "b", CONTAINERD_NAME: APP, REF_NAME: APP}


def test_nothing_is_named_that_is_not_there(layout: Layout) -> None:
    missing = Descriptor(media_types.OCI_MANIFEST, Digest.of(b"x"), 1)
    with pytest.raises(BlobNotFound, match="must be stored before"), layout.editing() as names:
        names.set(APP, missing)
    assert layout.descriptors() == ()


def test_an_error_changes_nothing(layout: Layout) -> None:
    pointer = layout.blobs.put(media_types.OCI_MANIFEST, b"{}")
    with pytest.raises(RuntimeError), layout.editing() as names:
        names.set(APP, pointer)
        raise RuntimeError
    assert layout.descriptors() == ()
    with layout.editing() as names:
        names.set(APP, pointer)


def test_reading_writes_nothing(layout: Layout) -> None:
    before = os.stat(os.path.join(layout.root, "index.json"))
    with layout.editing():
        pass
    assert os.stat(os.path.join(layout.root, "index.json")).st_ino == before.st_ino


def test_editors_wait_for_each_other(layout: Layout) -> None:
    pointer = layout.blobs.put(media_types.OCI_MANIFEST, b"{}")

    def add(number: int) -> None:
        with Layout.open(layout.root).editing() as names:
            names.set(f"docker.io/library/app:{number}", pointer)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    code = (
        "import sys; from oci.layout import Layout\n"
        "layout = Layout.open(sys.argv[1])\n"
        "for number in range(12):\n"
        "    with layout.editing() as names:\n"
        "        names.set(f'docker.io/library/other:{number}', next(iter(names)))\n"
    )
    with layout.editing() as names:
        names.add(pointer)
    subprocess.run([sys.executable, "-c", code, layout.root], check=True)
    for thread in threads:
        thread.join()
    assert len([entry for entry in layout.descriptors() if name_of(entry)]) == 24


def test_unknown_fields_of_the_index_survive(layout: Layout) -> None:
    path = Path(layout.root, "index.json")
    path.write_text('{"schemaVersion":2,"manifests":[],"annotations":{"a":"b"},"odd":[1]}')
    pointer = layout.blobs.put(media_types.OCI_MANIFEST, b"{}")
    with layout.editing() as names:
        names.set(APP, pointer)
    value = json.loads(path.read_bytes())
    assert (value["annotations"], value["odd"], len(value["manifests"])) == ({"a": "b"}, [1], 1)


@pytest.mark.parametrize(
    ("name", "content", "error", "says"),
    [
        ("oci-layout", '{"imageLayoutVersion":"2.0.0"}', InvalidArchive, "version 2.0.0; only 1.0.0"),
        ("oci-layout", "{}", InvalidArchive, "imageLayoutVersion: missing"),
        ("oci-layout", "?", InvalidDocument, "not valid JSON"),
        ("oci-layout", None, InvalidArchive, "no image layout: it has no oci-layout"),
        ("index.json", None, InvalidArchive, "no image layout: it has no index.json"),
        ("index.json", "[]", InvalidDocument, "expected an object"),
        ("index.json", " " * (4 << 20) + "{}", LimitExceeded, "larger than"),
    ],
)
def test_strangers_layouts(
    layout: Layout, name: str, content: str | None, error: type[Exception], says: str
) -> None:
    path = Path(layout.root, name)
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=says):
        Layout.open(layout.root).descriptors()


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidArchive, match="no image layout"):
        Layout.open(tmp_path / "missing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidArchive, match="no image layout"):
        Layout.open(tmp_path / "file")


@pytest.mark.parametrize("name", ["oci-layout", "index.json"])
def test_documents_are_no_links(layout: Layout, name: str, tmp_path: Path) -> None:
    path = Path(layout.root, name)
    path.rename(tmp_path / name)
    path.symlink_to(tmp_path / name)
    with pytest.raises(InvalidArchive, match="symbolic link"):
        Layout.open(layout.root).descriptors()


def test_names_that_another_process_changed_are_seen(layout: Layout, store: BlobStore) -> None:
    other = Layout.open(layout.root)
    descriptor = store.put("application/vnd.oci.image.manifest.v1+json", b"{}")
    for turn in range(20):  # as fast as they come: files in a row may share a number, a size and a moment
        with (layout if turn % 2 else other).editing() as names:
            names.set(f"name:{turn:02}", descriptor)
            if turn:
                names.remove(f"name:{turn - 1:02}")
        for each in (layout, other):
            assert [name_of(entry) for entry in each.descriptors()] == [f"name:{turn:02}"]
