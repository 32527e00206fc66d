"""How a server behaves, and what its surroundings hand in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from oci.digest import Digest
from oci.registry.server.proxy import Origins, Upstream
from oci.registry.server.sessions import LIFE_SECONDS


class Protection(Protocol):
    """Keeps blobs from a collector of garbage in another process while a block runs."""

    def add(self, digests: Iterable[Digest]) -> object:
        """Protect older blobs too; look whether they exist after this."""


Guard = Callable[[], AbstractContextManager[Protection]]
"""Within its block, blobs made since it began, and those added, are not deleted by others."""


class _Nobody:
    def add(self, digests: Iterable[Digest]) -> None:
        """Nobody collects."""


@contextmanager
def unguarded() -> Iterator[Protection]:
    """The guard of a layout that nobody else deletes from."""
    yield _Nobody()


@dataclass(frozen=True, slots=True)
class Options:
    """What may be said about a server. Times are in seconds, sizes in bytes.

    `hostname` is the registry's name in the store's image names, host[:port]; if empty, its address.
    `upstream` makes it a cache of another registry; `origins` knows where the layers of sparse images are.
    """

    host: str = "127.0.0.1"
    port: int = 5000
    hostname: str = ""
    htpasswd: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    read_only: bool = False
    upstream: Upstream | None = None
    origins: Origins | None = None
    log: Callable[[bytes], object] | None = None
    guard: Guard = unguarded
    connections: int = 256
    uploads: int = 512
    upload_idle: float = LIFE_SECONDS
    chunk_min_length: int = 0
    grace: float = 10.0
