"""Archives we write are read alike by us, by `tarfile` and by GNU tar; archives of GNU tar are read by us."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.compress import Limits
from oci.errors import InvalidArchive, LimitExceeded
from oci.tar import BLOCK, ChangedWhileReading, Entry, Kind, TarReader, TarWriter, clean_name
from oci.tar.write import header

Files = list[tuple[Entry, bytes]]


def pack(files: Files) -> bytes:
    out: list[bytes] = []
    tar = TarWriter(out.append)
    for entry, data in files:
        tar.add(entry, data)
    assert tar.finish() == sum(map(len, out))
    return b"".join(out)


def unpack(archive: bytes, limits: Limits | None = None) -> Files:
    reader = TarReader(io.BytesIO(archive), limits or Limits())
    return [(entry, reader.read()) for entry in reader]


def file(name: bytes, data: bytes = b"", **fields: object) -> tuple[Entry, bytes]:
    return Entry(name, Kind.FILE, size=len(data), **fields), data  # type: ignore[arg-type]


# ---- round trips ----

parts = st.binary(min_size=1, max_size=60).filter(lambda p: b"/" not in p and b"\0" not in p and p != b".")
names = st.lists(parts, min_size=1, max_size=8).map(b"/".join)
ids = st.integers(0, (1 << 32) - 2)
times = st.integers(-(1 << 40), 1 << 40)
xattrs = st.dictionaries(
    st.binary(min_size=1, max_size=20).filter(lambda k: b"=" not in k and b"\0" not in k),
    st.binary(max_size=300),
).map(lambda d: tuple(sorted(d.items())))


@st.composite
def members(draw: st.DrawFn) -> tuple[Entry, bytes]:
    kind = draw(st.sampled_from(list(Kind)))
    data = draw(st.binary(max_size=2000)) if kind is Kind.FILE else b""
    links = {
        Kind.SYMLINK: st.binary(min_size=1, max_size=300).filter(lambda t: b"\0" not in t),
        Kind.HARDLINK: names,
    }
    link = draw(links[kind]) if kind in links else b""
    major, minor = (
        draw(st.tuples(*[st.integers(0, 0o7777777)] * 2)) if kind in (Kind.CHAR, Kind.BLOCK) else (0, 0)
    )
    mode, uid, gid = draw(st.integers(0, 0o7777)), draw(ids), draw(ids)
    entry = Entry(draw(names), kind, mode, uid, gid, len(data), draw(times), link, major, minor, draw(xattrs))
    return entry, data


@given(st.lists(members(), max_size=8))
def test_what_is_written_is_read(files: Files) -> None:
    assert unpack(pack(files)) == files


@given(st.lists(members(), min_size=1, max_size=5))
def test_tarfile_reads_the_same(files: Files) -> None:
    with tarfile.open(fileobj=io.BytesIO(pack(files)), encoding="utf-8", errors="surrogateescape") as theirs:
        got = theirs.getmembers()
    assert len(got) == len(files)
    for (entry, _), info in zip(files, got, strict=True):
        assert os.fsencode(info.name) == entry.name
        assert (info.mode, info.uid, info.gid, info.mtime) == (entry.mode, entry.uid, entry.gid, entry.mtime)
        assert info.size == entry.size
        assert info.type == bytes([entry.kind])
        if entry.kind is Kind.SYMLINK:
            assert os.fsencode(info.linkname) == entry.link
        found = {k: v for k, v in info.pax_headers.items() if k.startswith("SCHILY.xattr.")}
        assert found.keys() == {
            "SCHILY.xattr." + k.decode("utf-8", "surrogateescape") for k, _ in entry.xattrs
        }


NASTY = [
    b"plain",
    b"sp ace\nnewline\ttab",
    b"-rf",
    b"*?[x]",
    "ünï/\u202e/\U0001f600".encode(),
    b"not\xffutf8",
    b"n" * 100,
    b"n" * 101,
    b"d" * 99 + b"/" + b"n" * 100,
    b"d" * 155 + b"/" + b"n" * 100,
    b"d" * 156 + b"/" + b"n" * 100,
    b"d" * 155 + b"/" + b"n" * 101,
    b"/".join([b"x" * 200] * 10),
    b"\xc3\xa9" * 80,
]


def test_gnu_tar_extracts_every_name_and_link(tmp_path: os.PathLike[str]) -> None:
    files: Files = [file(name, b"content of " + name) for name in NASTY]
    files += [(Entry(b"link%d" % i, Kind.SYMLINK, link=name), b"") for i, name in enumerate(NASTY)]
    files += [(Entry(b"hard%d" % i, Kind.HARDLINK, link=name), b"") for i, name in enumerate(NASTY)]
    command = ["tar", "-x", "-C", str(tmp_path)]
    done = subprocess.run(command, input=pack(files), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    root = os.fsencode(tmp_path)
    for i, name in enumerate(NASTY):
        with open(root + b"/" + name, "rb") as got:
            assert got.read() == b"content of " + name
        assert os.readlink(root + b"/link%d" % i) == name
        assert os.path.samefile(root + b"/hard%d" % i, root + b"/" + name)


def test_gnu_tar_lists_odd_metadata() -> None:
    archive = pack(
        [
            (Entry(b"", Kind.DIRECTORY, 0o1777), b""),
            file(b"suid", b"x", mode=0o4755, uid=1 << 22, gid=7, mtime=-1),
            (Entry(b"null", Kind.CHAR, 0o666, major=1, minor=3), b""),
            (Entry(b"pipe", Kind.FIFO, 0o600), b""),
        ]
    )
    command = ["tar", "-tvf", "-", "--numeric-owner", "--utc", "--full-time", "--quoting-style=escape"]
    done = subprocess.run(command, input=archive, capture_output=True, check=True)
    assert [line.split() for line in done.stdout.decode().splitlines()] == [
        ["drwxrwxrwt", "0/0", "0", "1970-01-01", "00:00:00", "./"],
        ["-rwsr-xr-x", "4194304/7", "1", "1969-12-31", "23:59:59", "suid"],
        ["crw-rw-rw-", "0/0", "1,3", "1970-01-01", "00:00:00", "null"],
        ["prw-------", "0/0", "0", "1970-01-01", "00:00:00", "pipe"],
    ]


@pytest.mark.parametrize("name", [b"a", b"n" * 100, b"d" * 155 + b"/" + b"n" * 100, b"a/" * 50 + b"b"])
def test_ustar_alone_when_it_can_say_it(name: bytes) -> None:
    block = header(Entry(name, Kind.FILE, 0o644, 2097151, 2097151, (8 << 30) - 1, (8 << 30) - 1))
    assert len(block) == 512
    assert block[257:265] == b"ustar\x0000"


@pytest.mark.parametrize(
    "fields",
    [
        {"uid": 2097152},
        {"gid": 2097152},
        {"size": 8 << 30},
        {"mtime": -1},
        {"mtime": 8 << 30},
        {"name": b"\xe9"},
    ],
)
def test_pax_where_ustar_ends(fields: dict[str, object]) -> None:
    entry = Entry(**({"name": b"a", "kind": Kind.FILE} | fields))  # type: ignore[arg-type]
    block = header(entry)
    assert len(block) == 3 * 512
    assert next(iter(TarReader(io.BytesIO(block)))) == entry


@pytest.mark.parametrize("extra", range(80, 120))
def test_pax_record_counts_its_own_length(extra: int) -> None:
    entry = Entry(b"a", Kind.FILE, xattrs=((b"user.a", b"v" * extra),))
    assert unpack(pack([(entry, b"")]))[0][0] == entry


# ---- the writer ----


def test_blocks_are_one_mebibyte_and_bytes_do_not_depend_on_the_way_in() -> None:
    data = os.urandom(3 * BLOCK + 77)
    entry = Entry(b"big", Kind.FILE, size=len(data))
    small = [file(b"s%d" % i, b"x" * i) for i in range(2000)]
    streamed: list[bytes] = []
    tar = TarWriter(streamed.append)
    for each, content in small:
        tar.add(each, content)
    source = io.BytesIO(data)
    tar.add_stream(entry, lambda n: source.read(min(n, 70001)))
    tar.finish()
    assert {len(block) for block in streamed[:-1]} == {BLOCK}
    assert all(type(block) is bytes for block in streamed)
    assert b"".join(streamed) == pack([*small, (entry, data)])
    assert len(b"".join(streamed)) % 512 == 0


@pytest.mark.parametrize("came", [0, 1, 99, 101, 5000])
def test_a_file_that_changes_is_noticed(came: int) -> None:
    """SECURITY.md R18."""
    tar = TarWriter(lambda _: None)
    with pytest.raises(ChangedWhileReading, match="/f changed while it was read: its size was 100"):
        tar.add_stream(Entry(b"f", Kind.FILE, size=100), io.BytesIO(b"x" * came).read)
    with pytest.raises(ChangedWhileReading):
        tar.add(Entry(b"f", Kind.FILE, size=100), b"x" * came)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (Entry(b"", Kind.FILE), "only be a directory"),
        (Entry(b"a\0b", Kind.FILE), "NUL"),
        (Entry(b"a", Kind.SYMLINK, link=b"\0"), "NUL"),
        (Entry(b"a", Kind.FILE, uid=-1), "negative"),
        (Entry(b"a", Kind.CHAR, major=1 << 21), "device number"),
        (Entry(b"a", Kind.FILE, xattrs=((b"user.a=b", b""),)), "no `=`"),
    ],
)
def test_the_writer_refuses_what_tar_cannot_say(entry: Entry, text: str) -> None:
    with pytest.raises(InvalidArchive, match=text):
        TarWriter(lambda _: None).add(entry)


# ---- archives of GNU tar ----


def gnu(tree: os.PathLike[str], *options: str) -> bytes:
    command = ["tar", "-c", "--sort=name", "-C", str(tree), *options, "."]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.mark.parametrize("form", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_reads_every_format(tmp_path: os.PathLike[str], form: str) -> None:
    os.makedirs(f"{tmp_path}/dir/sub")
    with open(f"{tmp_path}/dir/file", "wb") as out:
        out.write(b"content")
    os.symlink("target", f"{tmp_path}/dir/link")
    os.link(f"{tmp_path}/dir/file", f"{tmp_path}/hard")
    os.utime(f"{tmp_path}/dir/file", ns=(10**9, 1_500_000_000))
    files = {entry.name: (entry, data) for entry, data in unpack(gnu(tmp_path, f"--format={form}"))}
    assert set(files) == {b"", b"dir", b"dir/sub", b"dir/file", b"dir/link", b"hard"}
    assert files[b"dir/sub"][0].kind is Kind.DIRECTORY
    assert files[b"dir/file"][1] == b"content"
    assert files[b"dir/file"][0].mtime == 1
    assert files[b"dir/link"][0].link == b"target"
    assert (files[b"hard"][0].kind, files[b"hard"][0].link) == (Kind.HARDLINK, b"dir/file")


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_reads_long_names_and_large_ids(tmp_path: os.PathLike[str], form: str) -> None:
    deep = "/".join(["d" * 150] * 4)
    os.makedirs(f"{tmp_path}/{deep}")
    os.symlink("t" * 300, f"{tmp_path}/{deep}/link")
    files = unpack(gnu(tmp_path, f"--format={form}", "--owner=x:4194304", "--group=y:3000000000"))
    entry = files[-1][0]
    assert (entry.name, entry.link) == (f"{deep}/link".encode(), b"t" * 300)
    assert (entry.uid, entry.gid) == (4194304, 3000000000)


@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=posix"],
        *[["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0")],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    "regions", [[], [0], [5], [0, 3, 9], list(range(1, 100, 2))], ids=lambda r: str(len(r))
)
def test_reads_sparse_files_expanded(
    tmp_path: os.PathLike[str], options: list[str], regions: list[int]
) -> None:
    """SECURITY.md S46."""
    with open(f"{tmp_path}/holes", "wb") as out:
        for at in regions:
            out.seek(at * 65536)
            out.write(os.urandom(4096))
        out.truncate(100 * 65536 + 123)
    with open(f"{tmp_path}/holes", "rb") as source:
        content = source.read()
    with open(f"{tmp_path}/next", "wb") as out:
        out.write(b"after")
    files = {entry.name: (entry, data) for entry, data in unpack(gnu(tmp_path, "--sparse", *options))}
    assert files[b"holes"] == (files[b"holes"][0], content)
    assert files[b"holes"][0].size == len(content)
    assert files[b"next"][1] == b"after"


def test_a_sparse_file_may_be_read_in_pieces_or_not_at_all(tmp_path: os.PathLike[str]) -> None:
    for name in "ab":
        with open(f"{tmp_path}/{name}", "wb") as out:
            out.seek(1 << 20)
            out.write(name.encode() * 5000)
            out.truncate(3 << 20)
    reader = TarReader(io.BytesIO(gnu(tmp_path, "--sparse", "--format=posix")))
    for entry in reader:
        if entry.name == b"b":
            pieces = list(iter(lambda: reader.read(99_991), b""))
            assert {len(piece) for piece in pieces[:-1]} == {99_991}
            assert b"".join(pieces) == bytes(1 << 20) + b"b" * 5000 + bytes((2 << 20) - 5000)
            break
    else:
        pytest.fail("b is missing")


# ---- the reader ----


def test_read_gives_what_is_asked_for_and_the_rest_is_skipped() -> None:
    archive = pack([file(b"a", b"0123456789"), file(b"b", b"next"), file(b"c")])
    reader = TarReader(io.BytesIO(archive))
    got = [(entry.name, reader.read(3), reader.read(0), reader.read(3)) for entry in reader]
    assert got == [(b"a", b"012", b"", b"345"), (b"b", b"nex", b"", b"t"), (b"c", b"", b"", b"")]


def test_a_stream_that_gives_single_bytes() -> None:
    archive = pack([file(b"a", b"x" * 700), file(b"b" * 150, b"y")])
    source = io.BytesIO(archive)

    class Slow:
        def read(self, size: int) -> bytes:
            return source.read(min(size, 1))

    reader = TarReader(Slow())
    assert [(e.name, reader.read()) for e in reader] == [(b"a", b"x" * 700), (b"b" * 150, b"y")]


def test_the_stream_is_read_to_its_end() -> None:
    source = io.BytesIO(pack([file(b"a")]) + bytes(10240))
    assert len(list(TarReader(source))) == 1
    assert source.read() == b""


def test_every_truncation_is_an_error_but_between_entries() -> None:
    archive = pack(
        [file(b"a", b"x" * 600), file("é".encode(), b"y"), (Entry(b"l", Kind.SYMLINK, link=b"a"), b"")]
    )
    whole = {0, 1536, 1536 + 2048, 1536 + 2048 + 512, 1536 + 2048 + 1024}
    for cut in [*range(0, len(archive), 128), *(w + 1 for w in whole)]:
        if cut in whole:
            unpack(archive[:cut])
            continue
        with pytest.raises(InvalidArchive):
            unpack(archive[:cut])


@given(st.integers(0, 511), st.integers(1, 255))
def test_a_damaged_header_is_noticed(at: int, flip: int) -> None:
    archive = bytearray(pack([file(b"name", b"data", uid=5)]))
    archive[at] ^= flip
    try:
        files = unpack(bytes(archive))
    except (InvalidArchive, LimitExceeded):
        return
    # Only the checksum's own padding may change unseen.
    assert 148 <= at < 156
    assert files == [file(b"name", b"data", uid=5)]


def raw(
    name: bytes = b"a",
    flag: bytes = b"0",
    size: bytes = b"00000000000\0",
    body: bytes = b"",
    *,
    uid: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
    device: bytes = bytes(16),
) -> bytes:
    """A header with fields of the caller's, its checksum right, and a body."""
    head = name.ljust(100, b"\0") + b"0000644\0" + uid + b"0000000\0" + size + mtime
    tail = flag + bytes(100) + b"ustar\x0000" + bytes(64) + device + bytes(167)
    total = sum(head) + sum(tail) + 256
    return head + b"%06o\0 " % total + tail + body + bytes(-len(body) % 512)


def pax(*records: bytes) -> bytes:
    lines = []
    for record in records:
        length = next(n for n in range(1, 10**6) if n == len(record) + 2 + len(str(n)))
        lines.append(b"%d %b\n" % (length, record))
    body = b"".join(lines)
    return raw(b"pax", b"x", b"%011o\0" % len(body), body)


END = bytes(1024)


@pytest.mark.parametrize(
    ("archive", "text"),
    [
        (raw(size=b"-0000000001\0"), "announces -1"),
        (raw(size=b"\xff" * 12), "announces -1"),
        (raw(size=b"0000000009x\0"), "no octal number"),
        (raw(flag=b"L", size=b"\xff" * 12), "announces -1"),
        (raw(flag=b"x", size=b"\xff" * 12), "announces -1"),
        (raw(uid=b"\xff" * 8), "owner -1:0"),
        (raw(uid=b"\x80\0\0\0\xff\xff\xff\xff"), "owner 4294967295:0"),
        (raw(mtime=b"\x80" + b"\x7f" * 11), "no time"),
        (raw(mtime=b"\xff\x80" + bytes(10)), "no time"),
        (raw(flag=b"3", device=b"\xff" * 8 + b"0000001\0"), "device -1:1"),
        (raw(flag=b"4", device=b"\x80\0\0\x01\0\0\0\0" + bytes(8)), "device 4294967296:0"),
        (pax(b"uid=" + b"9" * 5000) + raw(), "not negative"),
        (pax(b"gid=4294967295") + raw(), "owner 0:4294967295"),
        (raw(flag=b"M"), "no file type of tar"),
        (raw(flag=b"Z"), "no file type of tar"),
        (pax(b"size=-5") + raw(), "not negative"),
        (pax(b"uid=x") + raw(), "not negative"),
        (pax(b"mtime=never") + raw(), "expected seconds"),
        (pax(b"path=a\0b") + raw(), "NUL"),
        (pax(b"novalue") + raw(), "not `LENGTH KEY=VALUE`"),
        (raw(b"pax", b"x", b"%011o\0" % 5, b"9 a=b") + raw(), "not `LENGTH KEY=VALUE`"),
        (raw(b"pax", b"x", b"%011o\0" % 6, b"06a=b\n") + raw(), "not `LENGTH KEY=VALUE`"),
        (pax(b"path=x"), "behind an extended header"),
        (bytes(512) + raw(), "goes on behind an end"),
        (b"<html>".ljust(512), "no tar archive"),
        (pax(b"GNU.sparse.map=0,5,3,9", b"GNU.sparse.size=20") + raw(), "overlap"),
        (pax(b"GNU.sparse.map=0,5,9", b"GNU.sparse.size=20") + raw(), "odd number"),
        (pax(b"GNU.sparse.map=0,50", b"GNU.sparse.size=20") + raw(), "do not fit"),
        (pax(b"GNU.sparse.map=0,-5", b"GNU.sparse.size=20") + raw(), "no number"),
        (
            pax(b"GNU.sparse.major=1", b"GNU.sparse.realsize=9")
            + raw(size=b"00000001000\0", body=b"9" * 512),
            "no end",
        ),
    ],
)
def test_what_is_no_tar_is_said_so(archive: bytes, text: str) -> None:
    with pytest.raises(InvalidArchive, match=text):
        unpack(archive + END)


@pytest.mark.parametrize(
    ("archive", "limits"),
    [
        (raw(flag=b"x", size=b"%011o\0" % (2 << 20)), Limits()),
        (raw(flag=b"L", size=b"%011o\0" % (2 << 20)), Limits()),
        (pax(b"path=" + b"n" * 4097) + raw(), Limits()),
        (pax(b"path=" + b"d/" * 300 + b"f") + raw(), Limits()),
        (raw() * 11, Limits(entries=10)),
        (pax(b"GNU.sparse.map=0,0", b"GNU.sparse.size=9999999999999") + raw(), Limits()),
    ],
)
def test_limits(archive: bytes, limits: Limits) -> None:
    """SECURITY.md S46, S48."""
    with pytest.raises(LimitExceeded):
        unpack(archive + END, limits)


def test_a_size_that_lies_costs_no_memory() -> None:
    """SECURITY.md S46."""
    reader = TarReader(io.BytesIO(raw(size=b"\x80" + (1 << 60).to_bytes(11, "big"))))
    assert next(iter(reader)).size == 1 << 60
    with pytest.raises(InvalidArchive, match="too early"):
        reader.read()


def test_pax_records_global_and_local() -> None:
    shared = b"11 uid=123\n11 gid=456\n"
    archive = raw(b"g", b"g", b"%011o\0" % len(shared), shared)
    archive += (
        raw(b"a")
        + pax(b"uid=7", b"mtime=-1.5", b"LIBARCHIVE.xattr.x=y")
        + raw(b"b")
        + pax(b"gid=")
        + raw(b"c")
    )
    got = [(e.name, e.uid, e.gid, e.mtime, e.xattrs) for e, _ in unpack(archive + END)]
    assert got == [(b"a", 123, 456, 0, ()), (b"b", 7, 456, -2, ()), (b"c", 123, 456, 0, ())]


def test_links_and_directories_have_no_content() -> None:
    size = b"%011o\0" % 512
    files = unpack(raw(b"d", b"5", size) + raw(b"l", b"2", size) + raw(b"old/", b"\0") + raw(b"f") + END)
    assert [(e.name, e.kind, e.size) for e, _ in files] == [
        (b"d", Kind.DIRECTORY, 0),
        (b"l", Kind.SYMLINK, 0),
        (b"old", Kind.DIRECTORY, 0),
        (b"f", Kind.FILE, 0),
    ]


def test_a_slash_does_not_hide_content() -> None:
    files = unpack(raw(b"a/", b"0", b"%011o\0" % 512, raw(b"smuggled")) + raw(b"b") + END)
    assert [(e.name, e.kind, e.size) for e, _ in files] == [(b"a", Kind.FILE, 512), (b"b", Kind.FILE, 0)]


@given(st.data())
def test_any_damage_is_an_error_of_ours(data: st.DataObject) -> None:
    archive = bytearray(
        pax(b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.realsize=9")
        + raw(size=b"00000001001\0", body=b"1\n8\n1\n".ljust(512, b"\0") + b"z")
        + pack([file(b"a" * 200, b"x" * 100, mtime=-3), (Entry(b"d", Kind.CHAR, major=3), b"")])
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(archive) - 1))
        archive[at] = data.draw(st.integers(0, 255))
    for start in range(0, len(archive), 512):  # most damage would stop at the checksum: repair it
        block = archive[start : start + 512]
        if block[257:262] == b"ustar":
            archive[start + 148 : start + 156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 256)
    try:
        for entry, content in unpack(bytes(archive)):
            assert len(content) == entry.size or entry.size > 1 << 20
    except (InvalidArchive, LimitExceeded):
        pass


def test_clean_name() -> None:
    for name in (b"./", b"/", b".", b"/.", b""):
        assert clean_name(name) == b""
    for name in (b"..", b"a/../b", b".a/b.", b"...", b"a/b"):
        assert clean_name(name) == name
    assert clean_name(b"./a//b/./c/") == b"a/b/c"
    assert clean_name(b"a/.") == b"a"
