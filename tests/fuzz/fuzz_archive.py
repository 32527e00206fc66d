"""Image archives as `load` takes them: oci-archive and docker-archive."""

from __future__ import annotations

import io
import os
import shutil
import tempfile

from archives import repaired, tar
from fuzz_apply import REG, SYM
from harness import scratch

from oci.archive import read_archive
from oci.errors import OciError
from oci.layout import Layout

CONFIG = '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
SEEDS = (
    tar(
        ("c.json", REG, CONFIG),
        ("manifest.json", REG, '[{"Config":"c.json","RepoTags":["a:b"],"Layers":[]}]'),
    ),
    tar(
        ("oci-layout", REG, '{"imageLayoutVersion":"1.0.0"}'),
        ("index.json", REG, '{"schemaVersion":2,"manifests":[]}'),
        ("blobs/sha256/" + "0" * 64, REG, "{}"),
    ),
    tar(("l", SYM, "x/layer.tar"), ("repositories", REG, '{"a":{"b":"c"}}'), ("manifest.json", REG, "[]")),
)
WORDS = (
    b"manifest.json",
    b"oci-layout",
    b"index.json",
    b"blobs/sha256/",
    b'"Layers":',
    b'"RepoTags":',
    b'"Config":',
)


def target(data: bytes) -> None:
    """A failure leaves nothing in the store."""
    top = tempfile.mkdtemp(prefix="pybuild-fuzz-", dir=scratch())
    try:
        layout = Layout.create(os.path.join(top, "layout"))
        try:
            read_archive(io.BytesIO(repaired(data)), layout.blobs)
        except OciError as error:
            assert str(error)
            assert not list(layout.blobs)
        assert os.listdir(top) == ["layout"]
    finally:
        shutil.rmtree(top, ignore_errors=True)
