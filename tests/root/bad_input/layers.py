"""Root file systems and archives that must not become a layer."""

from __future__ import annotations

import gzip
import random
import tarfile
from collections.abc import Callable

from bad_input.case import Case
from bad_input.laying import files, link, resealed, tar, written


def _import(name: str, content: Callable[[], bytes], says: tuple[str, ...], check: str) -> Case:
    return Case(name, written("bad.tar", content), ("import", "bad.tar", "bad:1"), says, check)


def _add(name: str, content: Callable[[], bytes], says: tuple[str, ...], check: str, code: int) -> Case:
    """The same bytes, unpacked by an ADD."""

    def make() -> None:
        files({"Dockerfile": "FROM busybox\nADD bad.tar /there/\n"})()
        written("bad.tar", content)()

    return Case(name, make, ("build", "."), ("Dockerfile:2", ">>> ADD bad.tar /there/", *says), check, code)


def _damaged_gzip() -> bytes:
    noise = random.Random(8).randbytes(3_000_000)  # so much that the damage is not seen at the first look
    packed = bytearray(gzip.compress(tar(("noise", noise)), 1))
    packed[-8] ^= 1  # the checksum of the content
    return bytes(packed)


def _negative_owner() -> bytes:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 10
    return tar(entry, ("hello", b"hello\n")).replace(b"x" * 10, b"10 uid=-1\n")


CASES = (
    _import(
        "climbs-out",
        lambda: tar(("../../etc/cron.d/evil", b"* * * * * root true\n")),
        ("../../etc/cron.d/evil",),
        "leaves the root",
    ),
    _import(
        "hardlink-to-nothing",
        lambda: tar(link("a", tarfile.LNKTYPE, "not/there")),
        ("is a hardlink to", "not/there"),
        "is a hardlink to",
    ),
    _import(
        "damaged-header",
        lambda: tar(("hello", b"hello\n")).replace(b"hello\0", b"jello\0", 1),
        ("a header's checksum is wrong",),
        "this is no tar archive, or a damaged one",
    ),
    _import(
        "cut-short",
        lambda: tar(("hello", b"h" * 5000))[:3000],
        ("bytes too early",),
        "the archive ends {beyond} bytes",
    ),
    _import(
        "no-number",
        lambda: resealed(tar(("hello", b"hello\n")), 124, b"99999999999\0"),
        ("a header's size is", "no octal number"),
        "which is no octal number",
    ),
    _import(
        "negative-size",
        lambda: resealed(tar(("hello", b"hello\n")), 124, b"\xff" * 12),
        ("a header announces -1 bytes",),
        "a header announces",
    ),
    _import(
        "unknown-kind",
        lambda: resealed(tar(("hello", b"hello\n")), 156, b"Z"),
        ("/hello is of type 'Z'", "no file type of tar"),
        "which is no file type of tar",
    ),
    _import(
        "pax-negative-owner",
        _negative_owner,
        ("pax record uid=b'-1': expected a number that is not negative",),
        "expected a number that is not negative",
    ),
    _add(
        "added-climbs-out",
        lambda: tar(("a/../../../etc/passwd", b"root::0:0::/:/bin/sh\n")),
        ("bad.tar holds /a/../../../etc/passwd, which would leave the destination",),
        "which would leave the destination",
        1,
    ),
    _add(
        "added-whiteout",
        lambda: tar((".wh.bin", b"")),
        ("/there/.wh.bin cannot be in an image", "rename it"),
        "cannot be in an image",
        1,
    ),
    _add(
        "added-damaged-gzip",
        _damaged_gzip,
        ("bad.tar", "the gzip stream is damaged"),
        "the {self._form} stream is damaged",
        1,
    ),
)
