"""Names stay inside their root; openat2(2) with RESOLVE_IN_ROOT is the judge."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from holding import descriptors, no_descriptor_more_than
from hypothesis import given
from hypothesis import strategies as st

from oci.rooted import Root, follow

_RESOLVE_IN_ROOT = 0x10
_SYS_OPENAT2 = 437
_libc = ctypes.CDLL(None, use_errno=True)


def kernel(root: int, path: bytes, follow_last: bool) -> tuple[int, int] | int:
    """(device, inode) of what the kernel finds, or its errno."""
    flags = os.O_PATH | os.O_CLOEXEC | (0 if follow_last else os.O_NOFOLLOW)
    how = (ctypes.c_uint64 * 3)(flags, 0, _RESOLVE_IN_ROOT)
    while (fd := _libc.syscall(_SYS_OPENAT2, root, path or b".", how, ctypes.sizeof(how))) < 0:
        # A rename or mount anywhere on the machine may have disturbed a `..`: openat2(2) asks to try again.
        if ctypes.get_errno() != errno.EAGAIN:
            return ctypes.get_errno()
    status = os.fstat(fd)
    os.close(fd)
    return status.st_dev, status.st_ino


def ours(root: Root, path: bytes, follow_last: bool) -> tuple[int, int] | int:
    try:
        status = root.stat(path) if follow_last else root.lstat(path)
    except OSError as error:
        return error.errno or 0
    return status.st_dev, status.st_ino


@pytest.fixture
def tree(tmp_path: os.PathLike[str]) -> Iterator[Root]:
    base = os.fsencode(tmp_path)
    os.makedirs(base + b"/root/usr/lib")
    os.makedirs(base + b"/root/etc")
    with open(base + b"/root/usr/lib/file", "wb") as out:
        out.write(b"inside")
    with open(base + b"/secret", "wb") as out:
        out.write(b"outside")
    links = {
        b"lib": b"usr/lib",
        b"abs": b"/usr/lib",
        b"up": b"../../../../usr",
        b"out": b"../secret",
        b"host": b"/etc/passwd",
        b"etc/passwd": b"/usr/lib/file",
        b"loop": b"loop",
        b"ping": b"pong",
        b"pong": b"ping",
        b"gone": b"nowhere/at/all",
        b"self": b".",
        b"top": b"/",
        b"dots": b"usr/..",
    }
    for name, target in links.items():
        os.symlink(target, base + b"/root/" + name)
    with Root.at(base + b"/root") as root:
        yield root


PATHS = [
    b"", b"/", b".", b"..", b"../../..", b"lib", b"lib/file", b"abs/file", b"up/lib/file", b"out",
    b"host", b"loop", b"loop/x", b"ping", b"gone", b"gone/x", b"self/self/lib/../lib/file",
    b"top/top/usr", b"top", b"dots", b"dots/usr", b"usr/../lib", b"usr/lib/file", b"usr/lib/file/x",
    b"usr/lib/file/..", b"missing", b"missing/..", b"lib/../etc", b"//usr//lib//file", b"up/..",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("follow_last", [True, False])
def test_resolves_as_the_kernel_does(tree: Root, path: bytes, follow_last: bool) -> None:
    assert ours(tree, path, follow_last) == kernel(tree.fd, path, follow_last)


names = st.sampled_from([b"a", b"b", b"c"])
paths = st.tuples(
    st.booleans(), st.lists(st.one_of(names, st.sampled_from([b"..", b".", b""])), min_size=1, max_size=5)
).map(lambda p: (b"/" if p[0] else b"") + b"/".join(p[1]))


@st.composite
def trees(draw: st.DrawFn) -> list[tuple[bytes, bytes | None]]:
    """Directories (None) and symlinks, by path."""
    where = st.lists(names, min_size=1, max_size=3).map(b"/".join)
    return draw(st.lists(st.tuples(where, st.one_of(st.none(), paths.filter(bool))), max_size=12))


@given(trees(), st.lists(paths, min_size=1, max_size=8))
def test_any_tree_as_the_kernel_does(made: list[tuple[bytes, bytes | None]], asked: list[bytes]) -> None:
    base = tempfile.mkdtemp(dir="/dev/shm").encode()
    try:
        for path, target in made:
            try:
                os.mkdir(base + b"/" + path) if target is None else os.symlink(target, base + b"/" + path)
            except OSError:
                continue
        with Root.at(base) as root:
            for path in asked:
                for follow_last in (True, False):
                    if not follow_last and path.endswith((b"/", b"/.")):
                        continue  # the kernel follows a link before a slash; names of archives have none
                    assert ours(root, path, follow_last) == kernel(root.fd, path, follow_last), path
                _same_as_pure(base, root, path)
    finally:
        shutil.rmtree(base)


def _same_as_pure(base: bytes, root: Root, path: bytes) -> None:
    """`follow` over a description of the tree agrees wherever the tree has an answer."""

    def readlink(name: bytes) -> bytes | None:
        try:
            return os.readlink(base + b"/" + name)
        except OSError:
            return None

    try:
        resolved = root.resolve(path)
    except OSError:
        return
    assert follow(path, readlink) == resolved


def test_resolve_gives_names_without_links(tree: Root) -> None:
    assert tree.resolve(b"/abs/file") == b"usr/lib/file"
    assert tree.resolve(b"lib", follow_last=False) == b"lib"
    assert tree.resolve(b"lib") == b"usr/lib"
    assert tree.resolve(b"top") == b""
    assert tree.resolve(b"lib/new/../deep/x", missing_ok=True) == b"usr/lib/deep/x"
    assert tree.resolve(b"gone/x", missing_ok=True) == b"nowhere/at/all/x"
    assert tree.resolve(b"new/../../../x", missing_ok=True) == b"x"
    with pytest.raises(FileNotFoundError):
        tree.resolve(b"new")


def test_reading_and_making(tree: Root, tmp_path: os.PathLike[str]) -> None:
    fd = tree.open(b"up/lib/file")
    assert os.read(fd, 100) == b"inside"
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert tree.readlink(b"self/lib") == b"usr/lib"
    assert tree.listdir(b"abs") == [b"file"]
    tree.mkdir(b"abs/made")
    assert tree.makedirs(b"up/../abs/made/x/y") == b"usr/lib/made/x/y"
    assert tree.makedirs(b"gone/z") == b"nowhere/at/all/z"
    assert os.path.isdir(f"{tmp_path}/root/usr/lib/made/x/y")
    assert sorted(os.listdir(tmp_path)) == ["root", "secret"]
    with pytest.raises(NotADirectoryError):
        tree.makedirs(b"usr/lib/file")
    with pytest.raises(OSError, match="symbolic links"):
        tree.open(b"lib", follow_last=False)


def test_creating_through_a_dangling_link_stays_inside(tree: Root, tmp_path: os.PathLike[str]) -> None:
    os.close(tree.open(b"out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    with open(f"{tmp_path}/secret", "rb") as outside:
        assert outside.read() == b"outside"
    assert os.path.exists(f"{tmp_path}/root/secret")


def test_forty_links_are_enough(tree: Root, tmp_path: os.PathLike[str]) -> None:
    for i in range(41):
        os.symlink(f"chain{i + 1}", f"{tmp_path}/root/chain{i}")
    os.mkdir(f"{tmp_path}/root/chain41")
    assert tree.resolve(b"chain1") == b"chain41"
    with pytest.raises(OSError, match="symbolic links") as caught:
        tree.resolve(b"chain0")
    assert caught.value.errno == errno.ELOOP


def test_no_descriptor_is_left_open(tree: Root) -> None:
    before = descriptors()
    for path in PATHS:
        ours(tree, path, True)
    no_descriptor_more_than(before)
    assert os.fstat(tree.fd)


def test_follow_stops_at_loops() -> None:
    with pytest.raises(OSError, match="symbolic links"):
        follow(b"a/b", lambda _: b"/a")
