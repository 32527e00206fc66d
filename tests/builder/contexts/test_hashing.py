"""One file has one digest, wherever it is read and however large it is."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from blake3 import blake3

from builder.contexts.archive import ArchiveContext, Stream
from builder.contexts.content import hash_file
from builder.contexts.hashing import SMALL, hasher
from builder.contexts.local import LocalContext
from builder.graph import ContextSource, Copy
from builder.solver.copying import place, select, write
from builder.solver.placing import NOTHING
from oci.tar import TarWriter

SIZES = (0, 1, SMALL - 1, SMALL, SMALL + 1, 3 * SMALL + 7)


def _content(size: int) -> bytes:
    return hashlib.shake_128(b"%d" % size).digest(size)


def _expected(size: int) -> bytes:
    return (hashlib.sha256 if size <= 1 << 20 else blake3)(_content(size)).digest()


@pytest.mark.parametrize("size", SIZES)
def test_the_size_alone_tells_the_hash(size: int) -> None:
    hashed = hasher(size)
    hashed.update(_content(size))
    assert hashed.digest() == _expected(size)


@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_same_read_for_a_checksum_for_a_layer_and_in_an_archive(size: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(_content(size))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(tmp_path / "file", "file")
    with LocalContext(str(tmp_path)) as tree:
        op = Copy((ContextSource(("file",)),), "/x")
        selection = select(op, lambda source: tree)
        with tree.opener() as open_file:
            for_checksum = hash_file(open_file, *selection.selected[0].items[0], True)
        plan = place(op, selection, NOTHING)
        for_layer = write(plan, TarWriter(lambda block: None), now=0).digests[0][b"file"]
    with ArchiveContext(Stream(io.BytesIO(packed.getvalue()))) as archive:
        node = archive.lstat(b"file")
        assert node is not None
    assert for_checksum == for_layer == node.content == _expected(size)
