"""Blobs of a store, damaged in the ways that disks and crashes have."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from oci.layout import Layout
from oci.model import Manifest

PARTS = ("layer", "config", "manifest")


def _flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": _flipped,
    "truncated": lambda content: content[:-1],
    "empty": lambda content: b"",
}


def damage(root: str, name: str, part: str, how: str) -> str:
    """Damage the part of an image of the store; its digest."""
    layout = Layout.open(root)
    found = layout.find(name)
    assert found is not None, json.dumps([each.annotations for each in layout.descriptors()])
    manifest = Manifest.from_json(layout.blobs.document(found), found.media_type)
    digest = {"layer": manifest.layers[0], "config": manifest.config, "manifest": found}[part].digest
    path = Path(layout.blobs.path(digest))
    path.write_bytes(DAMAGES[how](path.read_bytes()))
    return str(digest)
