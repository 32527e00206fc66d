"""The hash of a file's content, by which a COPY knows it again (K01). It stays in our own records: no image
or registry ever sees it.

Small files take sha256, which needs no module of its own; files beyond `SMALL` bytes BLAKE3, which reads them
three times as fast. Both are collision-resistant: two projects that share a store must not be able to
take each other's layers.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

SMALL = 1 << 20
"""Files up to this size, in bytes, are read and hashed at once."""


class Hash(Protocol):
    """A hash under construction; 32 bytes in the end."""

    def update(self, data: bytes, /) -> object: ...
    def digest(self) -> bytes: ...


def hasher(size: int) -> Hash:
    """The hash for a file of `size` bytes."""
    if size <= SMALL:
        return hashlib.sha256()
    from blake3 import blake3

    return blake3()
