"""Codecs give the same bytes however they are fed; the reader takes what the world writes, nothing else."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from oci import compress
from oci.compress import ALL, BLOCK, Limits, codec, detect, open_compressed
from oci.errors import InvalidArchive, LimitExceeded

TEXT = b"".join(b"line %d of a text that compresses\n" % i for i in range(150_000))[: 4 * BLOCK + 4321]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "uncompressed": bytes,
}
PACKED = [name for name in ALL if name != "uncompressed"]


def pack(name: str, data: bytes, level: int | None = None, cut: int = BLOCK) -> bytes:
    stream = codec(name, level).compressor()
    parts = [stream.compress(data[at : at + cut]) for at in range(0, len(data), cut)]
    return b"".join(parts) + stream.finish()


def unpack(packed: bytes, **options: object) -> bytes:
    return open_compressed(io.BytesIO(packed), **options).read()  # type: ignore[arg-type]


# ---- writing ----


@pytest.mark.parametrize("level", [0, 1, 2, 3, 4, 9])
@pytest.mark.parametrize(
    "data", [b"", b"x", TEXT, bytes(BLOCK), bytes(BLOCK + 1), os.urandom(2 * BLOCK)], ids=len
)
def test_gzip_reads_every_level(level: int, data: bytes) -> None:
    packed = pack("gzip", data, level)
    done = subprocess.run(["gzip", "-dc"], input=packed, capture_output=True, check=False)
    assert (done.returncode, done.stderr, done.stdout == data) == (0, b"", True)
    assert gzip.decompress(packed) == unpack(packed) == data


@pytest.mark.parametrize("level", [0, 1, 3])
def test_gzip_stores_what_does_not_shrink(level: int) -> None:
    chance, text = os.urandom(BLOCK), b"text that shrinks " * (BLOCK // 16)
    mixed = text[:5000] + chance[: BLOCK - 5000]
    content = chance + text[:BLOCK] + mixed + chance + chance[:5000]
    stream = codec("gzip", level).compressor()
    packed = stream.compress(content) + stream.finish()
    assert gzip.decompress(packed) == content
    assert packed[10:15] == b"\0\xff\xff\0\0" and packed[15:65550] == chance[:65535]
    assert len(packed) < 4 * BLOCK
    assert open_compressed(io.BytesIO(packed)).read() == content


def test_gzip_of_samples_that_mislead_is_still_right() -> None:
    block = bytearray(BLOCK)
    for at in range(0, BLOCK, BLOCK // 8):
        block[at : at + 2048] = os.urandom(2048)
    stream = codec("gzip", 1).compressor()
    packed = stream.compress(bytes(block)) + stream.finish()
    assert gzip.decompress(packed) == block


@pytest.mark.parametrize("level", [0, 1, 3, 19])
def test_zstd_reads_ours(level: int) -> None:
    data = TEXT[:BLOCK] if level > 3 else TEXT
    packed = pack("zstd", data, level)
    assert subprocess.run(["zstd", "-dcq"], input=packed, capture_output=True, check=True).stdout == data
    assert unpack(packed) == data


@pytest.mark.parametrize("name", ["gzip", "zstd"])
@pytest.mark.parametrize("cut", [1000, 65536, BLOCK - 1, BLOCK + 1, 3 * BLOCK, 1 << 30])
def test_bytes_do_not_depend_on_the_cutting(name: str, cut: int) -> None:
    assert pack(name, TEXT, cut=cut) == pack(name, TEXT)


@given(st.lists(st.integers(1, BLOCK), min_size=1, max_size=12))
def test_gzip_of_any_cutting(sizes: list[int]) -> None:
    stream = codec("gzip").compressor()
    data = TEXT[: sum(sizes)]
    parts, at = [], 0
    for size in sizes:
        parts.append(stream.compress(data[at : at + size]))
        at += size
    assert b"".join(parts) + stream.finish() == pack("gzip", data)


@pytest.fixture
def own_pool() -> Iterator[None]:
    shared = compress._shared[:]
    compress._shared.clear()
    yield
    for pool in compress._shared:
        pool.shutdown()
    compress._shared[:] = shared


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_gzip_does_not_depend_on_workers(
    workers: int, own_pool: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SECURITY.md R25."""
    expected = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    for at in range(0, len(TEXT), BLOCK):
        dictionary = TEXT[max(0, at - 32768) : at]
        expected += compress._deflate_of(1)(TEXT[at : at + BLOCK], dictionary)
    monkeypatch.setattr(compress, "_workers", lambda: workers)
    packed = pack("gzip", TEXT)
    assert packed[:-10] == expected
    assert compress._shared[0]._max_workers == workers


def test_no_clock_or_name_in_the_header() -> None:
    assert pack("gzip", b"x")[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


@pytest.mark.parametrize(
    ("name", "level"), [("gzip", 10), ("gzip", -1), ("zstd", -1), ("zstd", 23), ("lz4", None)]
)
def test_unknown_codecs_and_levels(name: str, level: int | None) -> None:
    with pytest.raises(ValueError, match="expected"):
        codec(name, level)


def test_media_types() -> None:
    types = [codec(name).media_type for name in ("gzip", "zstd", "uncompressed")]
    base = "application/vnd.oci.image.layer.v1.tar"
    assert types == [base + "+gzip", base + "+zstd", base]
    assert codec("gzip").media_type_suffix == "+gzip"


# ---- reading ----


@pytest.mark.parametrize("name", ALL)
def test_detects_and_reads_every_format(name: str) -> None:
    packed = PACKERS[name](TEXT)
    assert detect(packed[:6]) == name
    content = open_compressed(io.BytesIO(packed))
    assert (content.format, content.read(10), content.read()) == (name, TEXT[:10], TEXT[10:])
    assert content.read(5) == b""
    assert content.size == len(TEXT)


@pytest.mark.parametrize("name", ALL)
def test_reads_in_small_pieces_from_a_slow_stream(name: str) -> None:
    source = io.BytesIO(PACKERS[name](TEXT[:50_000]))

    class Slow:
        def read(self, size: int) -> bytes:
            return source.read(min(size, 7))

    content = open_compressed(Slow())
    pieces = list(iter(lambda: content.read(333), b""))
    assert max(map(len, pieces)) <= 333
    assert b"".join(pieces) == TEXT[:50_000]


def test_only_what_is_allowed() -> None:
    with pytest.raises(InvalidArchive, match="the stream is xz; expected gzip or uncompressed"):
        open_compressed(io.BytesIO(lzma.compress(b"x")), allow=("gzip", "uncompressed"))


def test_an_empty_stream_is_an_empty_content() -> None:
    assert unpack(b"") == b""


@pytest.mark.parametrize("name", PACKED)
def test_several_members_are_one_content(name: str) -> None:
    """SECURITY.md S47."""
    packed = PACKERS[name](b"one") + PACKERS[name](b"") + PACKERS[name](b"two")
    assert unpack(packed) == b"onetwo"


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2"])
def test_zeros_behind_the_end_are_padding(name: str) -> None:
    assert unpack(PACKERS[name](b"one") + bytes(512) + PACKERS[name](b"two") + bytes(10240)) == b"onetwo"


@pytest.mark.parametrize("name", PACKED)
def test_something_else_behind_the_end_is_an_error(name: str) -> None:
    """SECURITY.md S47."""
    for tail in (b"x", b"garbage", PACKERS[name](b"y")[:3]):
        with pytest.raises(InvalidArchive):
            unpack(PACKERS[name](b"one") + tail)


@pytest.mark.parametrize("name", PACKED)
def test_every_truncation_is_an_error(name: str) -> None:
    """SECURITY.md S47."""
    packed = PACKERS[name](TEXT[:3000])
    start = {"gzip": 2, "zstd": 4, "xz": 6, "bzip2": 3}[name]
    for cut in range(start, len(packed)):
        with pytest.raises(InvalidArchive, match=name):
            unpack(packed[:cut])


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2"])
@given(data=st.data())
def test_damage_gives_the_content_or_an_error(name: str, data: st.DataObject) -> None:
    """SECURITY.md S47."""
    packed = bytearray(PACKERS[name](TEXT[:3000]))
    at = data.draw(st.integers(6, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        got = unpack(bytes(packed))
    except InvalidArchive:
        return
    assert got == TEXT[:3000]  # a header field nobody reads


@given(data=st.data())
def test_damaged_zstd_is_noticed_by_its_checksum(data: st.DataObject) -> None:
    packed = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(TEXT[:3000]))
    at = data.draw(st.integers(4, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    try:
        got = unpack(bytes(packed))
    except InvalidArchive:
        return
    assert got == TEXT[:3000]


class Dripping(io.BytesIO):
    """A source that gives seven bytes at a time, as a slow connection may."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(7)


@pytest.mark.parametrize("source", [io.BytesIO, Dripping])
def test_a_zstd_frame_with_less_than_it_promises_is_damaged(source: type[io.BytesIO]) -> None:
    """One byte is promised, and three empty blocks follow; libzstd takes that for the end when it drips."""
    with pytest.raises(InvalidArchive, match="damaged"):
        open_compressed(source(bytes.fromhex("28b52ffd3001000000000000010000"))).read()
    assert open_compressed(source(zstandard.compress(b"x" * 1000))).read() == b"x" * 1000


@pytest.mark.parametrize("options", [{}, {"write_checksum": True}, {"write_content_size": False}], ids=str)
@pytest.mark.parametrize("size", [0, 1, 255, 256, 70_000, 400_000])
def test_zstd_frames_of_every_shape_are_followed(options: dict[str, bool], size: int) -> None:
    data = os.urandom(size // 2) + bytes(size - size // 2)
    packed = zstandard.ZstdCompressor(**options).compress(data)  # type: ignore[arg-type]
    skippable = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
    assert unpack(skippable + packed + skippable + packed) == data + data
    for cut in {1, 2, 3, 4, 7, len(packed) // 2}:
        if cut < len(packed) - 4:
            with pytest.raises(InvalidArchive):
                unpack(skippable + packed[:-cut])
    with pytest.raises(InvalidArchive):
        unpack(packed + skippable[:-1])


# ---- bombs ----


@pytest.mark.parametrize("name", PACKED)
def test_a_bomb_is_met_early(name: str) -> None:
    packed = PACKERS[name](bytes(96 << 20))
    limits = Limits(slack=8 << 20)
    content = open_compressed(io.BytesIO(packed), limits=limits)
    with pytest.raises(LimitExceeded, match="taken for a bomb"):
        while content.read(1 << 16):
            pass
    assert content.size < 48 << 20  # input is taken 128 KiB at a time, and each byte of it may stand for 250


def test_ten_gigabytes_in_ten_megabytes_do_not_pass_the_defaults() -> None:
    """SECURITY.md S48."""
    limits = Limits()
    with pytest.raises(LimitExceeded):
        limits.check_size(10 << 30, 10 << 20)
    limits.check_size(10 << 30, 100 << 20)


@pytest.mark.parametrize("name", ALL)
def test_the_total_is_a_limit_for_every_format(name: str) -> None:
    with pytest.raises(LimitExceeded, match="larger than 1000 bytes"):
        unpack(PACKERS[name](os.urandom(1001)), limits=Limits(total=1000))
