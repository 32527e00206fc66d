"""Hashing blobs while the program is still starting, in a process of its own.

What is pushed is hashed again on its way out (S83), and before anything leaves, the modules that speak to
registries are loaded: by one processor, while the others have nothing to do. So as soon as it is known what
will be sent, a child is forked that begins with the hashes:

    with store.hashing_ahead(digests):              nothing happens where there is nothing to gain
        ...                                         modules are loaded
        verdict = store.verdict(digest)             None: the child has not come to it, and will not any more
        ... all of the blob but its end leaves
        if verdict and verdict.is_right(fd): ...    waits for the child, if it is still at this blob

With the first question the child is told that it is enough: it finishes the blob that it is at and ends, for
from then on the processors have other work. Nothing rests on it: a blob of which it has no word, or that is
no longer the file it read, is hashed by whoever sends it, who then has the error (`oci.beside`).
"""

from __future__ import annotations

import hashlib
import mmap
import os
import select
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from oci import beside
from oci.beside import Beside
from oci.data import dataclass
from oci.digest import Digest
from oci.durable import identity_of

if TYPE_CHECKING:
    from oci.blobs import BlobStore

WORTHWHILE = 64 << 20
"""Below so many bytes in all a child costs more than it saves."""
_MOST = 1000
"""Blobs that are looked at; there is no time for more."""
_PIECE = 512 << 10
_LOOK_MS = 100

_BEGUN, _RIGHT, _USELESS = 1, 2, 3
_IDENTITY = struct.Struct("=QQqqq")


class Ahead:
    """A child that hashes blobs of `store`, one after the other. Use it in `with`; ends with it."""

    def __init__(self, store: BlobStore, digests: Mapping[Digest, int] | tuple[Digest, ...]) -> None:
        self._store = store
        self._digests = tuple(digests)[:_MOST]
        self._numbers = {digest: number for number, digest in enumerate(self._digests)}
        # A byte that says that it is enough, one for each blob's state, and their identities.
        self._first = 1 + len(self._digests)
        self._shared = mmap.mmap(-1, self._first + len(self._digests) * _IDENTITY.size)
        self._child = Beside(self._work)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child if it is still there."""
        if self._child.close():
            self._shared.close()

    def verdict(self, digest: Digest) -> Verdict | None:
        """What the child found of a blob, or will have found soon; None if it has not begun with it. It
        begins with nothing more. From any thread, within the `with`."""
        self._shared[0] = 1
        number = self._numbers.get(digest)
        return None if number is None or not self._shared[1 + number] else Verdict(self, number)

    def _found(self, number: int, alive: Callable[[], None]) -> tuple[int, ...] | None:
        """The identity of the file whose content is right; waits while the child is at it."""
        poll = select.poll()
        poll.register(self._child.told, select.POLLIN)
        while self._shared[1 + number] == _BEGUN:
            alive()
            if poll.poll(_LOOK_MS) and not os.read(self._child.told, _MOST):
                break  # the child has ended, perhaps just after this blob
        if self._shared[1 + number] != _RIGHT:
            return None
        return _IDENTITY.unpack_from(self._shared, self._first + number * _IDENTITY.size)

    def _work(self, telling: int, go_on: Callable[[], None]) -> None:
        buffer = memoryview(bytearray(_PIECE))
        for number, digest in enumerate(self._digests):
            if self._shared[0]:
                break
            self._shared[1 + number] = _BEGUN
            self._shared[1 + number] = self._judged(number, digest, buffer, go_on)
            os.write(telling, b".")

    def _judged(self, number: int, digest: Digest, buffer: memoryview, go_on: Callable[[], None]) -> int:
        try:
            fd = self._store.open_fd(digest)
        except Exception:  # whoever sends it meets it again, and says it
            return _USELESS
        try:
            identity = identity_of(fd)
            hasher, position = hashlib.new(digest.algorithm), 0
            while count := os.preadv(fd, [buffer], position):
                go_on()
                hasher.update(buffer[:count])
                position += count
        finally:
            os.close(fd)
        if hasher.hexdigest() != digest.hex:
            return _USELESS
        _IDENTITY.pack_into(self._shared, self._first + number * _IDENTITY.size, *identity)
        return _RIGHT


@dataclass(frozen=True, slots=True)
class Verdict:
    """The child's word on one blob."""

    ahead: Ahead
    number: int

    def is_right(self, fd: int, alive: Callable[[], None] = lambda: None) -> bool:
        """Whether the child has hashed the very file that is open as `fd`, nobody wrote to it since, and it
        is right. May wait; `alive` is called meanwhile, and may raise."""
        found = self.ahead._found(self.number, alive)
        return found is not None and found == identity_of(fd)


def begun(store: BlobStore, blobs: Mapping[Digest, int]) -> Ahead | None:
    """A child for these blobs (and their sizes), the first ones first; None where it would gain nothing, or
    cannot be had."""
    if sum(blobs.values()) < WORTHWHILE or not beside.is_possible() or len(os.sched_getaffinity(0)) < 2:
        return None
    with suppress(OSError):
        return Ahead(store, blobs)
    return None
