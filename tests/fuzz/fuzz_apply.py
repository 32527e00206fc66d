"""A layer's tar, read and unpacked."""

from __future__ import annotations

import errno
import io
import os
import shutil
import tarfile
import tempfile

from archives import repaired, tar
from harness import scratch
from holding import descriptors, no_descriptor_more_than

from oci.apply import apply
from oci.compress import Limits
from oci.errors import InvalidArchive, LimitExceeded
from oci.tar import TarReader

LIMITS = Limits(total=1 << 22, slack=1 << 22, entries=2000)
REG, DIR, SYM, HARD, FIFO = (
    tarfile.REGTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.FIFOTYPE,
)
SEEDS = (
    b"\x00"
    + tar(("a", DIR, ""), ("a/b", REG, "content"), ("l", SYM, "a"), ("l/c", REG, "x"), ("h", HARD, "a/b")),
    b"\x01"
    + tar(("l", SYM, "../outside"), ("l/x", REG, "x"), ("a/.wh.b", REG, ""), ("a/.wh..wh..opq", REG, "")),
    b"\x02" + tar(("f", FIFO, ""), ("é" * 90, REG, "x"), ("a/" * 100 + "b", DIR, "")),
    b"\x03" + tar(("x" * 120, REG, "y"), ("y" * 120, SYM, "z" * 120), form=tarfile.GNU_FORMAT),
    b"\x00"
    + tar(("a", REG, "x"), ("a", DIR, ""), ("a/../../b", REG, ""), ("/etc/x", REG, ""), ("h", HARD, "../x")),
    b"\x00" + tar(("a/b", REG, "x"), pax={"SCHILY.xattr.user.x": "y", "mtime": "1.5", "uid": "7"}),
    b"\x01" + tar(("a", REG, "xyz"), pax={"GNU.sparse.size": "9", "GNU.sparse.map": "0,1,5,2"}),
    b"\x00"
    + tar(
        ("a", REG, "2\n0\n1\n5\n2\n".ljust(515, "\0")),
        pax={
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "b",
            "GNU.sparse.realsize": "9",
        },
    ),
    b"\x04" + tar(("a", REG, "x"), ("l", SYM, "y"), pax={"path": "p/../q", "linkpath": "/r", "size": "1"}),
)
WORDS = (
    b".wh.",
    b".wh..wh..opq",
    b"../",
    b"SCHILY.xattr.",
    b"GNU.sparse.",
    b"path=",
    b"linkpath=",
    b"size=",
    b"ustar",
)
LEGITIMATE = (errno.ENOSPC, errno.EDQUOT, errno.EPERM, errno.EACCES)
"""The disk's limits, and what this user may not do: the only errors that are not about the archive."""
OUTSIDE = b"nobody's business"


def target(data: bytes) -> None:
    """The first byte chooses the style. Nothing beside the root may change."""
    flags, content = data[0] if data else 0, repaired(data[1:])
    top = tempfile.mkdtemp(prefix="pybuild-fuzz-", dir=scratch())
    try:
        root, outside = os.path.join(top, "root"), os.path.join(top, "outside")
        os.makedirs(os.path.join(root, "a"))
        os.mkdir(outside)
        with open(os.path.join(outside, "x"), "wb") as file:
            file.write(OUTSIDE)
        before, opened = untouched(top), descriptors()
        _apply(content, root, flags)
        assert untouched(top) == before
        no_descriptor_more_than(opened)
    finally:
        remove(top)


def _apply(content: bytes, root: str, flags: int) -> None:
    try:
        stats = apply(
            TarReader(io.BytesIO(content), LIMITS),
            root,
            style="plain" if flags & 1 else "overlay",
            userxattr=True,
            whiteouts=not flags & 2,
            prefix=b"p/q" if flags & 4 else b"",
            owner=lambda uid, gid: (os.geteuid(), os.getegid()),
            unmapped=lambda path, entry: None,
        )
        assert all(stats.notes)
    except (InvalidArchive, LimitExceeded) as error:
        assert str(error)
    except OSError as error:
        if error.errno not in LEGITIMATE:
            raise


def untouched(top: str) -> list[object]:
    """What lies beside the root, in all that can be told of it."""
    found: list[object] = sorted(os.listdir(top))
    for directory, _, files in os.walk(os.path.join(top, "outside")):
        for path in (directory, *(os.path.join(directory, name) for name in files)):
            status = os.lstat(path)
            found.append((path, status.st_mode, status.st_uid, status.st_mtime_ns, status.st_nlink))
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    found.append(file.read())
    return found


def remove(top: str) -> None:
    for directory, _, _ in os.walk(top):  # modes may forbid us to look, and thus to remove
        try:
            os.chmod(directory, 0o700)
        except OSError:
            continue
    shutil.rmtree(top, ignore_errors=True)
