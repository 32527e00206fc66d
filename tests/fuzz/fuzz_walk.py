"""Where the path of a mount leads inside a tree of somebody else's making: our own walk, for kernels without
openat2, against the kernel's; and the mount points that are made there and removed again."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile

from harness import Bits, scratch
from holding import descriptors, no_descriptor_more_than

from builder.sandbox.spec import Bind, File, Sandbox, Tmpfs
from builder.sandbox.stubs import StubMaker, remove_stubs, stub_tree
from builder.sandbox.syscalls import open_in_root
from builder.sandbox.walk import open_by_walking

NAMES = (b"a", b"b", b"c", b"l", b"m")
STEPS = (*NAMES, b"..", b".", b"", b"missing")
FLAGS = (
    os.O_PATH,
    os.O_PATH | os.O_DIRECTORY,
    os.O_PATH | os.O_NOFOLLOW,
    os.O_RDONLY | os.O_DIRECTORY,
    os.O_RDONLY,
)
SEEDS = (
    bytes(range(200)),
    bytes(range(255, 40, -1)),
    b"\x02\x01\x03\x00" * 40,
    b"\x04\x03\x02\x05\x06\x09" * 30,
)


def target(data: bytes) -> None:
    """A small tree full of links, and paths through it."""
    bits = Bits(data)
    top = tempfile.mkdtemp(prefix="pybuild-fuzz-", dir=scratch())
    try:
        base = os.path.join(top, "root").encode()
        os.mkdir(base)
        with open(os.path.join(top, "secret"), "wb") as file:
            file.write(b"x")
        _furnish(base, bits)
        root = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        opened = descriptors()
        try:
            for _ in range(8):
                path, flags, links = _path(bits), bits.pick(FLAGS), bits.flag()
                ours, kernels = (
                    _found(way, root, path, flags, links) for way in (open_by_walking, open_in_root)
                )
                # On a busy machine the kernel may not get through a long way of links and `..` at all.
                assert ours == kernels or kernels == errno.EAGAIN, (path, flags, links, ours, kernels)
            _mount_points(base, root, bits)
            no_descriptor_more_than(opened)
        finally:
            os.close(root)
        _stubs(os.path.join(top, "stubs"), bits)
        assert sorted(os.listdir(top)) == ["root", "secret", "stubs"]
    finally:
        shutil.rmtree(top, ignore_errors=True)


def _mount_points(base: bytes, root: int, bits: Bits) -> None:
    """Each is where its path leads, inside; and when they are removed, all is as it was."""
    before = _tree(base)
    maker = StubMaker(root, b"", base)
    for _ in range(bits.number(4)):
        path, directory = _path(bits), bits.flag()
        try:
            fd, place = maker.make(path, directory=directory)
        except OSError as error:
            assert error.errno is not None
            continue
        try:
            assert (os.readlink(f"/proc/self/fd/{fd}") + "/").startswith(os.fsdecode(base) + "/")
            status = os.fstat(fd)
            same = (status.st_dev, status.st_ino)
            led = _found(open_in_root, root, path, os.O_PATH, True)
            assert led in (same, errno.ENOTDIR), (path, place, led)  # `file/..` is its directory to us
            assert _found(open_in_root, root, place or b".", os.O_PATH, False) == same
        finally:
            os.close(fd)
    assert remove_stubs(maker.made, maker.copied) == []
    assert _tree(base) == before


def _tree(base: bytes) -> list[object]:
    found: list[object] = []
    for directory, below, files in os.walk(base):
        for name in (b"", *below, *files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            found.append((path, status.st_mode, status.st_ino, status.st_mtime_ns, status.st_size))
    return sorted(found, key=repr)


def _furnish(base: bytes, bits: Bits) -> None:
    for _ in range(bits.number(12)):
        path = os.path.join(base, *(bits.pick(NAMES) for _ in range(1 + bits.number(2))))
        if not os.path.realpath(os.path.dirname(path)).startswith(base):
            continue  # a link made before leads out
        try:
            match bits.number(3):
                case 0:
                    os.makedirs(path)
                case 1:
                    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                case _:
                    os.symlink(_path(bits) or b"a", path)
        except OSError:
            continue


def _path(bits: Bits) -> bytes:
    slash = b"/" if bits.flag() else b""
    return slash + b"/".join(bits.pick(STEPS) for _ in range(bits.number(6)))


def _found(way: object, root: int, path: bytes, flags: int, links: bool) -> object:
    """What was found, or that nothing was."""
    try:
        fd = way(root, path, flags, links=links)  # type: ignore[operator]
    except OSError as error:
        return error.errno
    try:
        status = os.fstat(fd)
        return status.st_dev, status.st_ino
    finally:
        os.close(fd)


def _stubs(folder: str, bits: Bits) -> None:
    """Mount points that are made beforehand stay in their folder."""
    os.mkdir(folder)
    mounts = tuple(
        bits.pick((Tmpfs(path), File(path, b""), Bind("/", path, path="x", directory=bits.flag())))
        for path in (os.fsdecode(_path(bits)) for _ in range(bits.number(4)))
    )
    try:
        made = stub_tree(folder, Sandbox(Bind("/"), ("x",), mounts=mounts))
    except OSError as error:  # one mount point below another that is a file
        assert error.errno is not None
        return
    assert os.path.dirname(made) == folder and os.path.isdir(made)
