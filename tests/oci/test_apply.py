"""Unpacking: trees come out as they went in, layers change what they say, and nothing outside is ever
touched.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace

import pytest
from holding import descriptors, no_descriptor_more_than
from hypothesis import given
from hypothesis import strategies as st

from oci.apply import ApplyStats, apply
from oci.compress import Limits
from oci.errors import InvalidArchive, LimitExceeded, UnsafePath
from oci.tar import Entry, Kind, TarReader, TarWriter
from oci.tar.write import header

ME = {"uid": os.geteuid(), "gid": os.getegid()}
Tree = dict[str, tuple[object, ...]]


def d(name: str, mode: int = 0o755, **fields: object) -> Entry:
    return Entry(name.encode(), Kind.DIRECTORY, mode, **ME | fields)  # type: ignore[arg-type]


def f(name: str, data: bytes = b"", mode: int = 0o644, **fields: object) -> tuple[Entry, bytes]:
    return Entry(name.encode(), Kind.FILE, mode, size=len(data), **ME | fields), data  # type: ignore[arg-type]


def ln(name: str, target: str) -> Entry:
    return Entry(name.encode(), Kind.SYMLINK, 0o777, link=target.encode(), uid=os.geteuid(), gid=os.getegid())


def hard(name: str, target: str) -> Entry:
    return Entry(
        name.encode(), Kind.HARDLINK, 0o644, link=target.encode(), uid=os.geteuid(), gid=os.getegid()
    )


Item = Entry | tuple[Entry, bytes]


def pipe(name: str, mode: int, mtime: int = 0) -> Entry:
    return Entry(name.encode(), Kind.FIFO, mode, os.geteuid(), os.getegid(), 0, mtime)


def reader(*items: Item, limits: Limits | None = None) -> TarReader:
    out: list[bytes] = []
    tar = TarWriter(out.append)
    for item in items:
        tar.add(*item) if isinstance(item, tuple) else tar.add(item)
    tar.finish()
    return TarReader(io.BytesIO(b"".join(out)), limits or Limits())


def look(root: str | bytes) -> Tree:
    """Everything a tree is: kind, mode, owner, time, content, by path."""
    found: Tree = {}
    top = os.fsencode(root)
    for directory, subs, files in os.walk(top):
        for name in [b"", *subs, *files] if directory == top else [*subs, *files]:
            path = os.path.join(directory, name) if name else directory
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as source:
                    content = source.read()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            key = os.fsdecode(os.path.relpath(path, top))
            found[key] = (oct(status.st_mode), status.st_uid, status.st_gid, int(status.st_mtime), content)
    return found


def names(root: str) -> set[str]:
    return set(look(root)) - {"."}


@pytest.fixture
def place() -> Iterator[str]:
    """A directory to unpack into, `.../root`, with neighbours nobody may touch."""
    base = tempfile.mkdtemp(dir="/dev/shm")
    os.makedirs(f"{base}/root")
    os.makedirs(f"{base}/outside/dir")
    with open(f"{base}/outside/file", "wb") as out:
        out.write(b"precious")
    os.chmod(f"{base}/outside/file", 0o600)
    before, fds = look(f"{base}/outside"), descriptors()
    yield f"{base}/root"
    assert look(f"{base}/outside") == before
    assert sorted(os.listdir(base)) == ["outside", "root"]
    no_descriptor_more_than(fds)
    shutil.rmtree(base)


def mine(uid: int, gid: int) -> tuple[int, int]:
    return os.geteuid(), os.getegid()


def lay(place: str, *items: Item, style: str = "plain", **options: object) -> ApplyStats:
    return unpack(reader(*items), place, style=style, **options)


def unpack(tar: TarReader, place: str, style: str = "plain", **options: object) -> ApplyStats:
    """`apply` as anybody may do it: everything becomes the caller's own. tests/root sets owners."""
    return apply(tar, place, style=style, userxattr=True, **{"owner": mine, **options})  # type: ignore[arg-type]


# ---- trees ----


def test_a_tree_comes_out_as_it_went_in(place: str) -> None:
    stats = lay(
        place,
        d("", 0o750, mtime=50),
        d("a", 0o711, mtime=100),
        f("a/script", b"#!/bin/sh\n", 0o755, mtime=200),
        f("a/open", b"x", 0o666, mtime=201),
        f("a/suid", b"x", 0o4755, mtime=202),
        f("a/closed", b"x", 0o400, mtime=203),
        f("a/big", b"z" * (3 << 20) + bytes(2 << 20) + b"end", mtime=204),
        f("a/holes", bytes(2 << 20), mtime=204),
        d("a/sticky", 0o1777, mtime=205),
        ln("a/link", "/nowhere/at all"),
        hard("a/twin", "a/script"),
        pipe("a/pipe", 0o640, 206),
        f("old", mtime=-5),
    )
    tree = look(place)
    assert stats.entries == 13
    assert stats.notes == ()
    assert {name: (e[0], e[3]) for name, e in tree.items()} == {
        ".": ("0o40750", 50),
        "a": ("0o40711", 100),
        "a/script": ("0o100755", 200),
        "a/open": ("0o100666", 201),
        "a/suid": ("0o104755", 202),
        "a/closed": ("0o100400", 203),
        "a/big": ("0o100644", 204),
        "a/holes": ("0o100644", 204),
        "a/sticky": ("0o41777", 205),
        "a/link": ("0o120777", 0),
        "a/twin": ("0o100755", 200),
        "a/pipe": ("0o10640", 206),
        "old": ("0o100644", -5),
    }
    assert tree["a/big"][4] == b"z" * (3 << 20) + bytes(2 << 20) + b"end"
    assert tree["a/holes"][4] == bytes(2 << 20)
    assert os.stat(f"{place}/a/holes").st_blocks == 0
    assert os.path.samefile(f"{place}/a/twin", f"{place}/a/script")


def test_directories_keep_their_time_whatever_comes_later(place: str) -> None:
    lay(
        place,
        d("a", mtime=1),
        d("a/b", mtime=2),
        d("c", mtime=3),
        f("a/b/f"),
        f("a/g"),
        f("c/h"),
        hard("a/b/t", "c/h"),
    )
    tree = look(place)
    assert [tree[name][3] for name in ("a", "a/b", "c")] == [1, 2, 3]


def test_directories_nobody_may_enter_are_filled_first(place: str) -> None:
    lay(place, d("a", 0), d("a/b", 0), f("a/b/f", b"x"))
    assert [oct(os.lstat(f"{place}/a").st_mode)] == ["0o40000"]
    os.chmod(f"{place}/a", 0o700)
    assert [oct(os.lstat(f"{place}/a/b").st_mode)] == ["0o40000"]
    os.chmod(f"{place}/a/b", 0o700)


def test_missing_parents_are_plain_and_have_no_clock(place: str) -> None:
    lay(place, f("x/y/z", b"data"))
    tree = look(place)
    assert tree["x"][0] == tree["x/y"][0] == "0o40755"
    assert tree["x"][3] == tree["x/y"][3] == 0


def test_the_umask_changes_nothing(place: str) -> None:
    """SECURITY.md R25."""
    old = os.umask(0o077)
    try:
        lay(
            place,
            d("a", 0o777),
            f("a/f", b"", 0o666),
            f("a/g", b"", 0o644),
            pipe("p", 0o666),
        )
    finally:
        os.umask(old)
    assert [look(place)[n][0] for n in ("a", "a/f", "a/g", "p")] == [
        "0o40777",
        "0o100666",
        "0o100644",
        "0o10666",
    ]


def test_setgid_directories_and_default_acls_change_nothing(place: str) -> None:
    os.mkdir(f"{place}/a")
    os.chmod(f"{place}/a", 0o2777)
    lay(place, f("a/f", b"", 0o644), d("a/d", 0o755), ln("a/l", "x"))
    assert [look(place)[n][0] for n in ("a", "a/f", "a/d")] == ["0o42777", "0o100644", "0o40755"]


def test_xattrs_are_set_but_for_those_that_steer_the_kernel(place: str) -> None:
    """SECURITY.md S44."""
    pairs = ((b"user.kept", b"\0\xff"), (b"user.overlay.opaque", b"y"), (b"trusted.overlay.opaque", b"y"),
             (b"security.selinux", b"x"))  # fmt: skip
    stats = lay(place, d("dir", xattrs=pairs), f("file", b"x", xattrs=pairs), d("", xattrs=pairs))
    for name in ("dir", "file", ""):
        assert [x for x in os.listxattr(f"{place}/{name}") if x != "security.selinux"] == ["user.kept"]
        assert os.getxattr(f"{place}/{name}", "user.kept") == b"\0\xff"
    assert stats.notes == ()


def test_an_xattr_the_kernel_refuses_is_noted(place: str) -> None:
    stats = lay(
        place,
        replace(ln("l", "x"), xattrs=((b"user.no", b"on links"),)),
        f("f", xattrs=((b"odd.name", b""),)),
    )
    assert len(stats.notes) == 2
    assert "/l keeps no user.no" in stats.notes[0]


def test_gnu_tar_made_and_compared(place: str) -> None:
    source = place + "/../outside"
    archive = subprocess.run(["tar", "-c", "-C", source, "."], capture_output=True, check=True).stdout
    unpack(TarReader(io.BytesIO(archive)), place)
    assert look(place) == look(source)
    done = subprocess.run(["tar", "-d", "-C", place], input=archive, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")


# ---- the same name twice, or a name that is taken ----


@pytest.mark.parametrize("second", ["file", "dir", "link", "hard", "fifo"])
@pytest.mark.parametrize("first", ["file", "dir", "link", "hard", "fifo"])
def test_the_last_one_wins(place: str, first: str, second: str) -> None:
    """SECURITY.md S46."""
    kinds: dict[str, Item] = {
        "file": f("x", b"new", 0o600),
        "dir": d("x", 0o700),
        "link": ln("x", "../outside/file"),
        "hard": hard("x", "other"),
        "fifo": pipe("x", 0o600),
    }
    lay(
        place,
        f("other", b"other"),
        kinds[first],
        *([f("x/inside", b"y")] if first == "dir" else []),
        kinds[second],
    )
    status = os.lstat(f"{place}/x")
    wanted = {
        "file": "-rw-------",
        "dir": "drwx------",
        "link": "lrwxrwxrwx",
        "hard": "-rw-r--r--",
        "fifo": "prw-------",
    }
    assert stat.filemode(status.st_mode) == wanted[second]
    with open(f"{place}/other", "rb") as other:
        assert other.read() == b"other"
    assert os.path.exists(f"{place}/x/inside") == (first == second == "dir")


def test_a_deep_directory_is_replaced_whole(place: str) -> None:
    lay(place, f("/".join(["d"] * 150), b"x"), f("d", b"file"))
    assert names(place) == {"d"}


def test_a_file_in_the_way_of_a_directory(place: str) -> None:
    with pytest.raises(InvalidArchive, match="/a is a file, but the archive has entries inside it"):
        lay(place, f("a", b""), f("a/b", b""))


# ---- whiteouts ----


def base(place: str) -> None:
    lay(
        place,
        d("etc"),
        f("etc/a", b"low"),
        f("etc/b", b"low"),
        d("etc/sub"),
        f("etc/sub/c", b"low"),
        f("top", b"low"),
    )


@pytest.mark.parametrize(
    ("layer", "left"),
    [
        ([f("etc/.wh.a")], {"etc", "etc/b", "etc/sub", "etc/sub/c", "top"}),
        ([f(".wh.etc")], {"top"}),
        ([f(".wh.nothing")], {"etc", "etc/a", "etc/b", "etc/sub", "etc/sub/c", "top"}),
        ([f("etc/.wh..wh..opq")], {"etc", "top"}),
        ([f(".wh..wh..opq")], set()),
        ([f(".wh.etc"), f("etc/new")], {"etc", "etc/new", "top"}),
        ([f("etc/new"), f(".wh.etc")], {"etc", "etc/new", "top"}),
        ([d("etc"), f("etc/new"), f(".wh.etc")], {"etc", "etc/new", "top"}),
        ([f("etc/sub/new"), f("etc/.wh..wh..opq")], {"etc", "etc/sub", "etc/sub/new", "top"}),
        ([f("etc/a", b"new"), f("etc/.wh.a")], {"etc", "etc/a", "etc/b", "etc/sub", "etc/sub/c", "top"}),
        ([f("etc/.wh.a"), f("etc/a", b"new")], {"etc", "etc/a", "etc/b", "etc/sub", "etc/sub/c", "top"}),
        (
            [f(".wh..wh.plnk/1.2"), f(".wh..wh.aufs")],
            {"etc", "etc/a", "etc/b", "etc/sub", "etc/sub/c", "top"},
        ),
    ],
)
def test_plain_whiteouts_delete_what_is_lower(place: str, layer: list[Item], left: set[str]) -> None:
    base(place)
    lay(place, *layer)
    assert names(place) == left


def overlay_state(place: str) -> dict[str, str]:
    state = {}
    for name in names(place):
        status = os.lstat(f"{place}/{name}")
        if stat.S_ISCHR(status.st_mode):
            assert status.st_rdev == 0
            state[name] = "whiteout"
        elif stat.S_ISDIR(status.st_mode):
            opaque = "user.overlay.opaque" in os.listxattr(f"{place}/{name}")
            state[name] = "opaque" if opaque else "dir"
        else:
            state[name] = "file"
    return state


@pytest.mark.parametrize(
    ("layer", "state"),
    [
        ([f("etc/.wh.a")], {"etc": "dir", "etc/a": "whiteout"}),
        ([f(".wh.etc")], {"etc": "whiteout"}),
        ([f(".wh.etc"), f(".wh.etc")], {"etc": "whiteout"}),
        ([f("etc/.wh..wh..opq")], {"etc": "opaque"}),
        ([f("etc/new"), f("etc/.wh..wh..opq")], {"etc": "opaque", "etc/new": "file"}),
        ([f(".wh.etc"), f("etc/new")], {"etc": "opaque", "etc/new": "file"}),
        ([f(".wh.etc"), d("etc"), f("etc/new")], {"etc": "opaque", "etc/new": "file"}),
        ([f("etc/new"), f(".wh.etc")], {"etc": "opaque", "etc/new": "file"}),
        ([f("etc"), f(".wh.etc")], {"etc": "file"}),
        ([f(".wh.etc"), f("etc")], {"etc": "file"}),
    ],
)
def test_overlay_whiteouts(place: str, layer: list[Item], state: dict[str, str]) -> None:
    stats = lay(place, *layer, style="overlay")
    assert overlay_state(place) == state
    assert stats.whiteouts == sum(b".wh." in (i[0] if isinstance(i, tuple) else i).name for i in layer)


def test_an_opaque_root(place: str) -> None:
    """SECURITY.md S44."""
    lay(place, f(".wh..wh..opq"), f("a"), style="overlay")
    assert os.getxattr(place, "user.overlay.opaque") == b"y"


@pytest.mark.parametrize("name", [".wh.", "a/.wh.", ".wh..", "a/.wh...", ".wh.a/b", "a/.wh.b/.wh.c"])
@pytest.mark.parametrize("style", ["plain", "overlay"])
def test_whiteouts_without_sense(place: str, name: str, style: str) -> None:
    """SECURITY.md S44."""
    os.mkdir(f"{place}/a")
    with pytest.raises(InvalidArchive, match="whiteout"):
        lay(place, f(name), style=style)
    assert names(place) == {"a"}


def test_archives_that_are_no_layers_have_no_whiteouts(place: str) -> None:
    with pytest.raises(InvalidArchive, match="reserved"):
        lay(place, f("a/.wh.b"), whiteouts=False)
    lay(place, f("a.wh.b"), whiteouts=False)
    assert names(place) == {"a.wh.b"}
    lay(place, f(".wh.b"), whiteouts=None, style="plain")
    assert names(place) == {"a.wh.b", ".wh.b"}


def test_whiteouts_follow_a_symlinked_parent_inside(place: str) -> None:
    base(place)
    lay(place, ln("conf", "/etc"), f("conf/.wh.a"))
    assert names(place) == {"etc", "etc/b", "etc/sub", "etc/sub/c", "top", "conf"}


# ---- what is below an overlay layer ----


class Below:
    """A lower tree made of entries."""

    def __init__(self, *items: Item) -> None:
        pairs = [item if isinstance(item, tuple) else (item, b"") for item in items]
        self.found = {entry.name: (entry, data) for entry, data in pairs}

    def entry(self, path: bytes) -> Entry | None:
        return self.found.get(path, (None, b""))[0]

    def open(self, path: bytes) -> int:
        fd = os.memfd_create("lower")
        os.write(fd, self.found[path][1])
        os.lseek(fd, 0, os.SEEK_SET)
        return fd


def test_parents_come_from_below(place: str) -> None:
    below = Below(d("var", 0o1777, mtime=7, xattrs=((b"user.x", b"1"),)), d("var/tmp", 0o700, mtime=8))
    lay(place, f("var/tmp/f", b"x"), style="overlay", lower=below)
    tree = look(place)
    assert [(tree[n][0], tree[n][3]) for n in ("var", "var/tmp")] == [("0o41777", 7), ("0o40700", 8)]
    assert os.getxattr(f"{place}/var", "user.x") == b"1"


def test_symlinked_parents_below_are_followed(place: str) -> None:
    below = Below(ln("lib", "usr/lib"), d("usr"), d("usr/lib", 0o711))
    lay(place, f("lib/x.so", b"x"), f("lib/y.so", b"y"), style="overlay", lower=below)
    assert names(place) == {"usr", "usr/lib", "usr/lib/x.so", "usr/lib/y.so"}
    assert look(place)["usr/lib"][0] == "0o40711"


def test_what_is_hidden_below_does_not_count(place: str) -> None:
    below = Below(d("a", 0o700), ln("a/lib", "/etc"), d("a/sub", 0o700))
    lay(place, f(".wh.a"), f("a/lib/x"), f("a/sub/y"), style="overlay", lower=below)
    tree = look(place)
    assert set(tree) == {".", "a", "a/lib", "a/lib/x", "a/sub", "a/sub/y"}
    assert {tree[n][0] for n in ("a", "a/lib", "a/sub")} == {"0o40755"}


def test_a_hardlink_to_a_lower_file_brings_it_up(place: str) -> None:
    below = Below(d("a", 0o700), f("a/f", b"low content", 0o600, mtime=9), ln("a/l", "f"))
    lay(place, hard("twin", "a/f"), hard("l2", "a/l"), style="overlay", lower=below)
    assert os.path.samefile(f"{place}/twin", f"{place}/a/f")
    assert look(place)["twin"][:1] + look(place)["twin"][3:] == ("0o100600", 9, b"low content")
    assert os.readlink(f"{place}/l2") == "f"


def test_a_hardlink_to_what_the_layer_removes(place: str) -> None:
    below = Below(f("f", b"low"))
    with pytest.raises(InvalidArchive, match="which the layer removes"):
        lay(place, f(".wh.f"), hard("twin", "f"), style="overlay", lower=below)


# ---- attacks ----

ATTACKS: dict[str, list[Item]] = {
    "dotdot": [f("../outside/file", b"pwned")],
    "dotdot inside": [d("a"), f("a/../../outside/file", b"pwned")],
    "dotdot last": [d("a"), Entry(b"a/..", Kind.DIRECTORY, 0o777)],
    "dotdot alone": [Entry(b"..", Kind.DIRECTORY, 0o777)],
    "root is a symlink": [Entry(b"/.", Kind.SYMLINK, link=b"../outside")],
    "root is a symlink, dot": [Entry(b"./", Kind.SYMLINK, link=b"../outside")],
    "root is a file": [Entry(b"/.", Kind.FILE)],
    "root is a hardlink": [Entry(b".", Kind.HARDLINK, link=b"../outside/file")],
    "hardlink out": [hard("x", "../outside/file"), f("x", b"pwned")],
    "hardlink to the root": [hard("x", ".")],
    "hardlink to nothing": [hard("x", "nowhere")],
    "hardlink to a directory": [d("a"), hard("x", "a")],
    "hardlink to itself": [f("x"), hard("x", "x")],
    "hardlink into what it replaces": [f("x/y"), hard("x", "x/y")],
    "symlinks in a circle": [ln("a", "b"), ln("b", "a"), f("a/f")],
    "symlink to nothing": [ln("l", "")],
    "symlink to too much": [ln("l", "x/" * 2100)],
    "name of too much": [f("x" * 300)],
    "directory of too much": [f("x" * 300 + "/f")],
    "whiteout of too much": [f(".wh." + "x" * 300)],
    "hardlink to too much": [hard("h", "x" * 300)],
    "through too much": [ln("l", "x" * 300), f("l/f")],
    "whiteout of dotdot": [f("a/.wh..")],
    "whiteout beyond": [f("../.wh.outside")],
    "opaque beyond": [f("../outside/.wh..wh..opq")],
}  # fmt: skip


class RawWriter(TarWriter):
    """Says what a tar writer should refuse to say."""

    def add(self, entry: Entry, data: bytes = b"") -> None:
        from oci.tar import write

        check, write._check = write._check, lambda entry: None
        try:
            super().add(entry, data)
        finally:
            write._check = check


def hostile(*items: Item) -> TarReader:
    out: list[bytes] = []
    tar = RawWriter(out.append)
    for item in items:
        tar.add(*item) if isinstance(item, tuple) else tar.add(item)
    tar.finish()
    return TarReader(io.BytesIO(b"".join(out)))


@pytest.mark.parametrize("style", ["plain", "overlay"])
@pytest.mark.parametrize(("major", "minor"), [(4096, 1), (1, 1 << 20), (0o7777777, 0o7777777)])
def test_a_device_that_linux_cannot_have_is_left_out(place: str, style: str, major: int, minor: int) -> None:
    stats = unpack(hostile(Entry(b"dev", Kind.CHAR, major=major, minor=minor)), place, style)
    assert stats.notes == ("/dev is a device with a number that Linux does not have; left out",)


@pytest.mark.parametrize("style", ["plain", "overlay"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_that_are_refused(place: str, attack: str, style: str) -> None:
    """SECURITY.md S41."""
    with pytest.raises(InvalidArchive):
        unpack(hostile(*ATTACKS[attack]), place, style)


def test_the_root_can_only_be_a_directory(place: str) -> None:
    """SECURITY.md S42."""
    for attack in ("root is a symlink", "root is a symlink, dot", "root is a file", "root is a hardlink"):
        with pytest.raises(UnsafePath, match="can only be a directory"):
            unpack(hostile(*ATTACKS[attack]), place)


CONFINED: dict[str, tuple[list[Item], set[str]]] = {
    "absolute": ([f("/outside/file", b"x")], {"outside", "outside/file"}),
    "symlink, then through it": (
        [ln("l", "../outside"), f("l/file", b"x")],
        {"l", "outside", "outside/file"},
    ),
    "absolute symlink, then through it": (
        [ln("l", "/outside"), f("l/file", b"x")],
        {"l", "outside", "outside/file"},
    ),
    "symlink over symlink": (
        [ln("a", "../.."), ln("b", "a/../outside"), f("b/file", b"x")],
        {"a", "b", "outside", "outside/file"},
    ),
    "directory, then symlink in its place": (
        [d("a"), f("a/f"), ln("a", "../outside"), f("a/file", b"x")],
        {"a", "outside", "outside/file"},
    ),
    "write through a file symlink": ([ln("file", "../outside/file"), f("file", b"x")], {"file"}),
    "hardlink to a symlink": ([ln("l", "../outside/file"), hard("h", "l"), f("h", b"x")], {"l", "h"}),
    "hardlink through a symlink": (
        [ln("l", "../outside"), f("outside/file", b"mine"), hard("h", "l/file")],
        {"l", "outside", "outside/file", "h"},
    ),
    "directory over symlink": ([ln("l", "../outside"), d("l", 0o777), f("l/x")], {"l", "l/x"}),
    "pending directory swapped": (
        [d("a"), d("a/dir", 0o777, mtime=1), ln("a", "../outside")],
        {"a"},
    ),
    "whiteout through a symlink": ([ln("l", "../outside"), f("l/.wh.file")], {"l", "outside"}),
    "opaque through a symlink": ([ln("l", "../outside"), f("l/.wh..wh..opq")], {"l", "outside"}),
    "whiteout of a symlink": ([ln("l", "../outside"), f(".wh.l")], {"l"}),
    "fifo over symlink": ([ln("l", "../outside/file"), pipe("l", 0o777)], {"l"}),
    "deep dotdot link": (
        [ln("a/b/c", "../../../../../outside/dir"), f("a/b/c/x")],
        {"a", "a/b", "a/b/c", "outside", "outside/dir", "outside/dir/x"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("attack", CONFINED)
def test_attacks_that_stay_inside(place: str, attack: str) -> None:
    """SECURITY.md S41, S43."""
    items, left = CONFINED[attack]
    lay(place, *items)
    assert names(place) == left


@pytest.mark.parametrize("attack", CONFINED)
def test_attacks_that_stay_inside_an_overlay(place: str, attack: str) -> None:
    lay(place, *CONFINED[attack][0], style="overlay")


steps = st.sampled_from(
    ["a", "b", "a/b", "b/a", "a/b/c", "c", "../outside", "a/../../outside/dir", "/outside", ""]
)
targets = st.sampled_from(
    ["..", "../outside", "../../outside/dir", "a", "b/c", "/", "/a", "../outside/file", "."]
)
anything = st.one_of(
    st.builds(lambda n: f(n, b"pwned", 0o777, mtime=1), steps),
    st.builds(lambda n: d(n, 0o777, mtime=1), steps),
    st.builds(ln, steps, targets),
    st.builds(hard, steps, targets),
    st.builds(lambda n: f(n + "/.wh.file"), steps),
    st.builds(lambda n: f(n + "/.wh..wh..opq"), steps),
)


@given(st.lists(anything, max_size=12), st.sampled_from(["plain", "overlay"]))
def test_no_sequence_of_entries_reaches_outside(items: list[Item], style: str) -> None:
    """SECURITY.md S41, S43."""
    base = tempfile.mkdtemp(dir="/dev/shm")
    os.makedirs(f"{base}/outside/dir")
    os.mkdir(f"{base}/root")
    with open(f"{base}/outside/file", "wb") as out:
        out.write(b"precious")
    before = look(f"{base}/outside")
    try:
        for at in range(len(items) + 1):  # what one refuses, the next may do to what is there
            try:
                unpack(hostile(*items[at:]), f"{base}/root", style)
            except InvalidArchive:
                continue
        assert look(f"{base}/outside") == before
        assert sorted(os.listdir(base)) == ["outside", "root"]
        assert not any(name.rpartition("/")[2].startswith(".wh.") for name in names(f"{base}/root"))
    finally:
        shutil.rmtree(base)


def test_nesting_has_an_end_even_by_symlinks(place: str) -> None:
    chain: list[Item] = []
    for i in range(40):
        chain += [ln(f"l{i}", (f"l{i - 1}/" if i else "") + "/".join(["d"] * 10)), f(f"l{i}/x")]
    with pytest.raises((LimitExceeded, UnsafePath)):
        unpack(reader(*chain, limits=Limits(depth=100)), place)


def test_a_truncated_archive_is_an_error(place: str) -> None:
    out: list[bytes] = []
    tar = TarWriter(out.append)
    tar.add(*f("a", b"x" * 2000))
    tar.add(*f("b", b"y" * 2000))
    tar.finish()
    with pytest.raises(InvalidArchive, match="too early"):
        unpack(TarReader(io.BytesIO(b"".join(out)[:4000])), place)


# ---- options ----


def test_prefix_and_its_symlinks(place: str) -> None:
    os.makedirs(f"{place}/usr/share")
    os.symlink("/usr/share", f"{place}/data")
    lay(place, d("", 0o700), f("f", b"x"), hard("g", "f"), d("sub"), whiteouts=False, prefix=b"/data/pkg/")
    assert names(place) == {"data", "usr", "usr/share"} | {
        f"usr/share/pkg{n}" for n in ("", "/f", "/g", "/sub")
    }
    assert look(place)["usr/share/pkg"][0] == "0o40700"


def test_without_swaps_files_and_directories_stay_what_they_are(place: str) -> None:
    lay(place, d("dir"), f("dir/in", b"x"), f("file", b"old"), ln("link", "dir"), style="plain")
    before = names(place)
    for item in (f("dir"), ln("dir", "x"), hard("dir", "file"), d("file"), d("link"), f("file/in")):
        with pytest.raises(InvalidArchive):
            lay(place, item, swaps=False, style="plain")
    assert names(place) == before
    lay(place, d("dir", 0o700), f("file", b"new"), f("link", b"y"), swaps=False, style="plain")
    assert names(place) == before and os.path.isfile(f"{place}/link")


def test_filter_changes_and_leaves_out(place: str) -> None:
    def edit(entry: Entry) -> Entry | None:
        return None if entry.name == b"no" else replace(entry, mode=0o600, mtime=5)

    lay(place, f("no", b"x" * 5000), f("yes", b"data", 0o777), filter=edit)
    assert look(place)["yes"][0::3] == ("0o100600", 5)
    assert names(place) == {"yes"}


def test_owner_maps_ids(place: str) -> None:
    lay(
        place,
        f("a", uid=12345, gid=54321),
        d("b", uid=12345, gid=1),
        owner=mine,
    )
    assert look(place)["a"][1:3] == (os.geteuid(), os.getegid())


def test_a_descriptor_serves_as_destination(place: str) -> None:
    fd = os.open(place, os.O_PATH)
    try:
        apply(reader(f("a", b"x")), fd, style="plain", owner=mine)
        assert os.fstat(fd)
    finally:
        os.close(fd)
    assert names(place) == {"a"}


def test_more_than_the_disk_holds_is_said_before_writing(place: str) -> None:
    """SECURITY.md S48."""
    status = os.statvfs(place)
    size = status.f_bavail * status.f_frsize + (1 << 30)
    archive = TarReader(io.BytesIO(header(Entry(b"huge", Kind.FILE, size=size))))
    with pytest.raises(OSError, match="are free") as caught:
        unpack(archive, place)
    assert caught.value.errno == errno.ENOSPC
