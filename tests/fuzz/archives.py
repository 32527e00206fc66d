"""Tars for targets: seeds, and repairs without which nothing but a checksum would ever be tried."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping


def tar(
    *members: tuple[str, bytes, str], form: int = tarfile.PAX_FORMAT, pax: Mapping[str, str] | None = None
) -> bytes:
    """An archive of (name, type flag, content or link target), each with these records."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.mode = 0o755
            info.pax_headers = dict(pax or {})
            if kind == tarfile.REGTYPE:
                content = text.encode()
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.linkname = text
                archive.addfile(info)
    return out.getvalue()


def repaired(data: bytes) -> bytes:
    """The same with the checksum of every block that looks like a header put right."""
    blocks = bytearray(data)
    for start in range(0, len(blocks) - 511, 512):
        block = blocks[start : start + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            blocks[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return bytes(blocks)
