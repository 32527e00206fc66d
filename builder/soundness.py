"""Which blobs were read lately and found sound, so that they need not be read again (R17)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from oci.errors import OciError

if TYPE_CHECKING:
    from builder.state import StateDir
    from oci.blobs import BlobStore
    from oci.digest import Digest

AGAIN_S = 7 * 86400.0
"""How long a blob that was found sound, and was not touched since, is passed over."""


class Soundness:
    """What `state.db` remembers of the blobs of a store. It may be lost: they are read once more then."""

    def __init__(self, state: StateDir, blobs: BlobStore) -> None:
        self._state = state
        self._blobs = blobs

    def known(self, digests: Iterable[Digest]) -> set[Digest]:
        """Those that were found sound lately and are the same files still."""
        wanted = list(digests)
        rows = self._state.content().get_many(_row(each) for each in wanted)
        oldest = time.time() - AGAIN_S
        found = set()
        for digest in wanted:
            with suppress(ValueError, TypeError, KeyError, OciError):
                when, *identity = json.loads(rows[_row(digest)])
                if oldest < when <= time.time() and identity == [*self._blobs.identity(digest)]:
                    found.add(digest)
        return found

    def remember(self, digest: Digest) -> None:
        """A blob was read to its end and is sound."""
        with suppress(OciError):
            value = json.dumps([time.time(), *self._blobs.identity(digest)]).encode()
            self._state.content().put(_row(digest), value)


def _row(digest: Digest) -> bytes:
    return f"sound:{digest}".encode()
