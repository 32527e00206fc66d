"""Go's `archive/tar`, which docker, containerd, skopeo and umoci read with, sees the names and metadata we
wrote.
"""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from oci.blobs import BlobStore
from oci.compress import Codec, codec
from oci.digest import Digest
from oci.layer import Layer, LayerSink
from oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from oci.tar import Entry, Kind, TarWriter

pytestmark = pytest.mark.interop

NAMES = [
    b"plain",
    b"sp ace\nnewline",
    "ünï-\U0001f600".encode(),
    b"not\xffutf8",
    b"n" * 101,
    b"d" * 155 + b"/" + b"n" * 100,
    b"d" * 156 + b"/" + b"n" * 101,
    b"/".join([b"x" * 200] * 6),
    b"\xc3\xa9" * 80,
]
OWNED = Entry(
    b"owned", Kind.FILE, 0o4755, 3_000_000, 2_500_000, mtime=-7, xattrs=((b"user.note", b"\0\xff=\n"),)
)


def layout(root: str, way: Codec) -> Layer:
    """An image of one layer at `root`, tagged `t`."""
    store = BlobStore(root)
    with LayerSink(way, store) as sink:
        tar = TarWriter(sink)
        for i, name in enumerate(NAMES):
            tar.add(Entry(name, Kind.FILE, size=len(name)), name)
            tar.add(Entry(b"link%d" % i, Kind.SYMLINK, link=name))
            tar.add(Entry(b"hard%d" % i, Kind.HARDLINK, link=name))
        tar.add(OWNED)
        tar.finish()
        layer = sink.finish()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id)]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": put(store, OCI_CONFIG, config),
        "layers": [{"mediaType": layer.media_type, "digest": str(layer.digest), "size": layer.size}],
    }
    entry = put(store, OCI_MANIFEST, manifest) | {"annotations": {"org.opencontainers.image.ref.name": "t"}}
    for file, document in (
        ("index.json", {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}),
        ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
    ):
        with open(f"{root}/{file}", "w") as out:
            json.dump(document, out)
    return layer


def put(store: BlobStore, media_type: str, document: object) -> dict[str, object]:
    content = json.dumps(document).encode()
    digest: Digest = store.write(content)
    return {"mediaType": media_type, "digest": str(digest), "size": len(content)}


@pytest.mark.parametrize("name", ["gzip", "uncompressed"])
def test_umoci_unpacks_every_name(tmp_path: os.PathLike[str], name: str) -> None:
    layout(f"{tmp_path}/image", codec(name))
    subprocess.run(
        ["umoci", "unpack", "--image", f"{tmp_path}/image:t", f"{tmp_path}/bundle"],
        check=True,
        capture_output=True,
    )
    root = os.fsencode(tmp_path) + b"/bundle/rootfs/"
    for i, path in enumerate(NAMES):
        with open(root + path, "rb") as got:
            assert got.read() == path
        assert os.readlink(root + b"link%d" % i) == path
        assert os.path.samefile(root + b"hard%d" % i, root + path)
    status = os.stat(root + b"owned")
    assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (OWNED.mode, OWNED.uid, OWNED.gid)
    assert status.st_mtime == OWNED.mtime
    assert os.getxattr(root + b"owned", "user.note") == OWNED.xattrs[0][1]


@pytest.mark.parametrize("name", ["gzip", "zstd", "uncompressed"])
def test_skopeo_unpacks_a_layer_to_its_diff_id(tmp_path: os.PathLike[str], name: str) -> None:
    layer = layout(f"{tmp_path}/image", codec(name))
    command = ["skopeo", "copy", "--insecure-policy", "--dest-decompress"]
    subprocess.run(
        [*command, f"oci:{tmp_path}/image:t", f"dir:{tmp_path}/out"], check=True, capture_output=True
    )
    with open(f"{tmp_path}/out/{layer.diff_id.hex}", "rb") as content:
        assert Digest.of(content.read()) == layer.diff_id
