"""Paths resolved inside a root without openat2: as the kernel does it, where it can."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.sandbox import syscalls
from builder.sandbox.walk import open_by_walking

LINKS = {
    "absolute": "/etc",
    "to-file": "etc/passwd",
    "up": "../../../../etc/passwd",
    "far": "/../../../etc",
    "chain": "one",
    "one": "two",
    "two": "/etc",
    "circle": "circle",
    "nowhere": "/missing/file",
    "dot": ".",
    "deep/up": "../etc",
    "deep/beyond": "../../..",
}
NAMES = [*LINKS, "etc", "etc/passwd", "", "/", ".", "..", "missing", "deep", "etc/passwd/x", "fifo"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in ("etc", "deep/er"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("of the image")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("of the host")
    os.mkfifo(root / "fifo")
    for name, target in LINKS.items():
        os.symlink(target, root / name)
    return root


def _outcome(opened: Callable[[], int]) -> tuple[int, int] | int:
    try:
        fd = opened()
    except OSError as error:
        return error.errno or 0
    info = os.fstat(fd)
    os.close(fd)
    return info.st_dev, info.st_ino


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("flags", [os.O_PATH, os.O_PATH | os.O_DIRECTORY, os.O_PATH | os.O_NOFOLLOW])
def test_s18_as_the_kernel_does_it(root: Path, flags: int, links: bool) -> None:
    """Every pair of names, one after the other: the same inode, or the same error."""
    if not _kernel_resolves():
        pytest.skip("this kernel has no openat2 to compare with")
    at = os.open(root, os.O_PATH)
    paths = [os.fsencode(f"{first}/{second}") for first in NAMES for second in (*NAMES, "../etc", "./..")]
    for path in [os.fsencode(name) for name in NAMES] + paths:
        kernel = _outcome(lambda path=path: syscalls.open_in_root(at, path, flags, links=links))
        own = _outcome(lambda path=path: open_by_walking(at, path, flags, links=links))
        assert own == kernel, path
    os.close(at)


def _kernel_resolves() -> bool:
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(437, -100, b"/", how, len(how))
    if fd >= 0:
        os.close(fd)
    return bool(fd >= 0)


def test_s13_doors_of_proc_are_refused() -> None:
    """Links to what a process has open lead anywhere; those in the root of /proc are links like others."""
    at = os.open("/", os.O_PATH)
    for path in (b"/proc/self/root", b"/proc/self/cwd/x", b"/proc/self/fd/0", b"/proc/1/exe"):
        with pytest.raises(OSError) as caught:
            open_by_walking(at, path, os.O_PATH)
        assert caught.value.errno == errno.ELOOP
    os.close(open_by_walking(at, b"/proc/self/status", os.O_PATH))
    os.close(open_by_walking(at, b"/proc/mounts", os.O_PATH))
    os.close(at)


def test_what_is_found_can_be_read(root: Path) -> None:
    at = os.open(root, os.O_PATH)
    fd = open_by_walking(at, b"up", os.O_RDONLY)
    assert os.read(fd, 99) == b"of the image"
    os.close(fd)
    os.close(at)


def test_s18_exchanging_directories_leads_nowhere(root: Path) -> None:
    """A neighbour exchanges a directory for a link to the host's while paths through it are opened."""
    outside = root.parent / "etc"
    (root / "a").mkdir()
    (root / "a/passwd").write_text("of the image")
    os.symlink(outside, root / "b")
    stop = threading.Event()
    libc = ctypes.CDLL(None, use_errno=True)

    def exchange() -> None:
        while not stop.is_set():
            libc.renameat2(-100, os.fsencode(root / "a"), -100, os.fsencode(root / "b"), 2)

    neighbour = threading.Thread(target=exchange)
    neighbour.start()
    at = os.open(root, os.O_PATH)
    try:
        for _ in range(2000):
            try:
                fd = open_by_walking(at, b"a/passwd", os.O_RDONLY)
            except OSError:
                continue
            assert os.read(fd, 99) == b"of the image"
            os.close(fd)
    finally:
        stop.set()
        neighbour.join()
        os.close(at)
