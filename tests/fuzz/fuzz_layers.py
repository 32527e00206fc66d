"""Layers one on the other, made of few names and many tricks: links out, links in the way, whiteouts,
hardlinks, the same name as this and that."""

from __future__ import annotations

import io
import os
import tempfile

from fuzz_apply import LEGITIMATE, OUTSIDE, remove, untouched
from harness import Bits, scratch
from holding import descriptors, no_descriptor_more_than

from oci.apply import apply
from oci.errors import InvalidArchive
from oci.tar import TarReader

NAMES = (
    b"a",
    b"b",
    b"c",
    b"l",
    b"..",
    b".",
    b"",
    b".wh.a",
    b".wh.b",
    b".wh..wh..opq",
    b".wh..wh.x",
    b".wh.",
    b"outside",
)
FLAGS = b"0055512634K"
SEEDS = (
    bytes(range(256)),
    bytes(range(255, -1, -1)),
    b"\x03\x01\x00\x02\x09\x04" * 60,
    b"\x05\x02\x03\x00\x01\x04\x0c" * 60,
)


def target(data: bytes) -> None:
    """Up to four layers."""
    bits = Bits(data)
    top = tempfile.mkdtemp(prefix="pybuild-fuzz-", dir=scratch())
    try:
        root, outside = os.path.join(top, "root"), os.path.join(top, "outside")
        os.mkdir(root)
        os.mkdir(outside)
        with open(os.path.join(outside, "a"), "wb") as file:
            file.write(OUTSIDE)
        before, opened = untouched(top), descriptors()
        style = bits.flag()
        for _ in range(1 + bits.number(3)):
            content = b"".join(_member(bits) for _ in range(bits.number(12))) + bytes(1024)
            try:
                apply(
                    TarReader(io.BytesIO(content)),
                    root,
                    style="plain" if style else "overlay",
                    userxattr=True,
                    whiteouts=not style or bits.flag(),
                    owner=lambda uid, gid: (os.geteuid(), os.getegid()),
                    unmapped=lambda path, entry: None,
                )
            except InvalidArchive as error:
                assert str(error)
            except OSError as error:
                if error.errno not in LEGITIMATE:
                    raise
            assert untouched(top) == before
        no_descriptor_more_than(opened)
    finally:
        remove(top)


def _member(bits: Bits) -> bytes:
    flag, name, link = bits.number(len(FLAGS) - 1), _path(bits), _path(bits)
    content = b"content" if flag < 2 else b""
    if FLAGS[flag : flag + 1] == b"K":
        content = link + b"\0"
    head = name[:99].ljust(100, b"\0") + (b"%07o\0" % (0o700 | bits.number(0o7777))) + b"0000000\0" * 2
    head += b"%011o\0" % len(content) + b"00000000001\0"
    tail = FLAGS[flag : flag + 1] + link[:99].ljust(100, b"\0") + b"ustar\x0000" + bytes(64)
    tail += b"0000001\0" * 2 + bytes(167)
    total = sum(head) + sum(tail) + 256
    return head + b"%06o\0 " % total + tail + content.ljust(-(-len(content) // 512) * 512, b"\0")


def _path(bits: Bits) -> bytes:
    slash = b"/" if bits.flag() else b""
    return slash + b"/".join(bits.pick(NAMES) for _ in range(1 + bits.number(4)))
