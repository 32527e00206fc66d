"""A layer is one pass over its tar: two digests, one blob, no trace when it fails."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pytest
from holding import held, no_more_than

from oci.blobs import BlobStore
from oci.compress import Codec, codec, open_compressed
from oci.digest import Digest
from oci.errors import DigestMismatch, InvalidArchive, LimitExceeded
from oci.layer import LayerSink, read_layer, recompress, write_layer
from oci.tar import BLOCK, Entry, Kind, TarWriter

CODECS = [codec("gzip"), codec("gzip", 6), codec("zstd"), codec("uncompressed")]
SIZES = [0, 10, BLOCK, 9 * BLOCK + 17]
BIG = os.urandom(2 * BLOCK) + bytes(7 * BLOCK + 17)


@pytest.fixture
def store(tmp_path: os.PathLike[str]) -> BlobStore:
    return BlobStore(tmp_path)


def files_of(store: BlobStore, root: os.PathLike[str]) -> list[str]:
    return sorted(name for _, _, names in os.walk(root) for name in names)


def archive(size: int) -> list[bytes]:
    blocks: list[bytes] = []
    tar = TarWriter(blocks.append)
    tar.add_stream(Entry(b"f", Kind.FILE, size=size), io.BytesIO(BIG[:size]).read)
    tar.finish()
    return blocks


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", CODECS, ids=str)
def test_digests_and_sizes(store: BlobStore, way: Codec, size: int) -> None:
    blocks = archive(size)
    layer = write_layer(blocks, way, store)
    blob = store.open(layer.digest).read()
    assert layer.media_type == way.media_type
    assert (layer.digest, layer.size) == (Digest.of(blob), len(blob))
    assert open_compressed(io.BytesIO(blob)).read() == b"".join(blocks)
    assert layer.diff_id == Digest.of(b"".join(blocks))
    assert layer.uncompressed_size == sum(map(len, blocks))


def test_no_blocks_at_all(store: BlobStore) -> None:
    layer = write_layer([], codec("gzip"), store)
    assert (layer.uncompressed_size, layer.diff_id) == (0, Digest.of(b""))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", CODECS, ids=str)
def test_leaving_early_leaves_no_trace(
    store: BlobStore, way: Codec, size: int, tmp_path: os.PathLike[str]
) -> None:
    before, threads = files_of(store, tmp_path), threading.active_count()
    with pytest.raises(ZeroDivisionError), LayerSink(way, store) as sink:
        for block in archive(size):
            sink(block)
        raise ZeroDivisionError
    with LayerSink(way, store) as sink:
        sink(b"never finished")
    assert files_of(store, tmp_path) == before
    assert not [thread for thread in threading.enumerate() if thread.name == "layer"], threads


class FullDisk:
    """A store whose disk is full after `room` bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def open(self, digest: Digest) -> BinaryIO:
        raise NotImplementedError

    @contextmanager
    def writer(self, *, hashing: bool = True) -> Iterator[FullDisk]:
        yield self

    def write(self, data: bytes) -> None:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")

    def commit(self, expected: Digest | None = None) -> Digest:
        raise NotImplementedError


@pytest.mark.timeout(120)
@pytest.mark.parametrize("room", [0, 5, BLOCK, 3 * BLOCK])
@pytest.mark.parametrize("way", CODECS, ids=str)
def test_a_full_disk_is_raised_to_the_producer(way: Codec, room: int) -> None:
    block = os.urandom(BLOCK)
    with pytest.raises(OSError, match="No space left"), LayerSink(way, FullDisk(room)) as sink:
        for _ in range(100):
            sink(block)
        sink.finish()
    assert not [thread for thread in threading.enumerate() if thread.name == "layer"]


@pytest.mark.timeout(120)
def test_a_failing_producer_does_not_wait_for_what_is_queued(store: BlobStore) -> None:
    def broken() -> Iterator[bytes]:
        yield from [os.urandom(BLOCK)] * 20
        raise InvalidArchive("changed")

    with pytest.raises(InvalidArchive, match="changed"):
        write_layer(broken(), codec("gzip", 9), store)


@pytest.mark.parametrize("way", CODECS, ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_read_back(store: BlobStore, way: Codec, size: int) -> None:
    layer = write_layer(archive(size), way, store)
    with read_layer(store, layer.digest, layer.media_type) as tar:
        assert [(entry.name, tar.read() == BIG[:size]) for entry in tar] == [(b"f", True)]


@pytest.mark.parametrize("way", CODECS, ids=str)
def test_a_damaged_blob_is_noticed(store: BlobStore, way: Codec) -> None:
    layer = write_layer(archive(3000), way, store)
    path = store.path(layer.digest)
    with open(path, "rb") as blob:
        content = bytearray(blob.read())
    content[600] ^= 1
    os.chmod(path, 0o600)
    with open(path, "wb") as blob:
        blob.write(content)
    with (
        pytest.raises((DigestMismatch, InvalidArchive)),
        read_layer(store, layer.digest, layer.media_type) as tar,
    ):
        for _ in tar:
            tar.read()


def test_a_format_other_than_the_media_type_says(store: BlobStore) -> None:
    layer = write_layer(archive(10), codec("zstd"), store)
    with read_layer(store, layer.digest, "application/vnd.docker.image.rootfs.diff.tar.gzip") as tar:
        assert len(list(tar)) == 1
    with pytest.raises(InvalidArchive, match="no layer media type"):
        with read_layer(store, layer.digest, "application/octet-stream"):
            pass


@pytest.mark.parametrize("source", CODECS, ids=str)
@pytest.mark.parametrize("way", CODECS, ids=str)
def test_recompress_keeps_the_content(store: BlobStore, source: Codec, way: Codec) -> None:
    blocks = archive(2 * BLOCK + 5)
    layer = write_layer(blocks, source, store)
    assert recompress(layer, way, store) == write_layer(blocks, way, store)


def test_recompress_notices_a_wrong_diff_id(store: BlobStore, tmp_path: os.PathLike[str]) -> None:
    from dataclasses import replace

    layer = replace(write_layer(archive(10), codec("gzip"), store), diff_id=Digest.of(b"else"))
    before = files_of(store, tmp_path)
    for name in ("zstd", "uncompressed"):
        with pytest.raises(DigestMismatch, match="its diffID says"):
            recompress(layer, codec(name), store)
    assert files_of(store, tmp_path) == before


def test_a_bomb_of_a_layer_is_refused_but_not_one_of_ours(store: BlobStore) -> None:
    from oci.compress import NO_LIMITS, Limits

    blocks = [bytes(BLOCK)] * 32
    layer = write_layer(blocks, codec("zstd"), store)
    with pytest.raises(LimitExceeded):
        with read_layer(store, layer.digest, layer.media_type, limits=Limits(slack=BLOCK)) as tar:
            list(tar)
    with read_layer(store, layer.digest, layer.media_type, limits=NO_LIMITS) as tar:
        assert list(tar) == []


def test_hashing_is_of_the_tar_not_of_the_cutting(store: BlobStore) -> None:
    data = b"".join(archive(2 * BLOCK))
    cut = [data[at : at + 70_001] for at in range(0, len(data), 70_001)]
    assert write_layer(cut, codec("gzip"), store) == write_layer([data], codec("gzip"), store)
    assert write_layer(cut, codec("gzip"), store).diff_id.hex == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 10, 3 * BLOCK])
def test_a_strangers_layer_is_held_against_its_diff_id(store: BlobStore, size: int) -> None:
    before = held()
    layer = write_layer(archive(size), codec("gzip"), store)
    with read_layer(store, layer.digest, layer.media_type, diff_id=layer.diff_id) as tar:
        next(iter(tar))  # what nobody reads is hashed all the same
    with pytest.raises(DigestMismatch, match="its image's config says"):
        with read_layer(store, layer.digest, layer.media_type, diff_id=Digest.of(b"else")) as tar:
            assert [entry.name for entry in tar] == [b"f"]
    with pytest.raises(KeyError):
        with read_layer(store, layer.digest, layer.media_type, diff_id=layer.diff_id):
            raise KeyError
    no_more_than(before)
