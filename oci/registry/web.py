"""Files behind any URL, by the registries' ways with the network: redirects, retries, borders (S54, S84).

    with Web() as web:
        found = web.download(Wanted("https://host/file"), store, web.stop())

Nothing becomes a blob before it is whole, within its limit, and what its checksum promises.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import field
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from oci.blobs import BlobStore, BlobWriter
from oci.data import dataclass
from oci.digest import Digest
from oci.errors import LimitExceeded, RegistryError, WrongContent
from oci.registry.calls import Calls, Request, Warn, origin
from oci.registry.config import RegistryConfig
from oci.registry.patience import Attempts, Interrupted, Patience, Stop
from oci.registry.redact import shown_url

if TYPE_CHECKING:
    from oci.registry.transport import Answer

LARGEST = 16 << 30
"""The most bytes one file may have, unless the caller says otherwise."""

_UNCHANGED = 304
_NAME = re.compile(r"""filename\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))""", re.IGNORECASE)
_NAME_8BIT = re.compile(r"filename\*\s*=\s*utf-8'[^']*'([^\s;]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to fetch. `headers` may hold validators (If-None-Match), `authorization` is for this origin alone.

    `limit` is in bytes; `checksum` is what the content must be.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: str = field(default="", repr=False)
    limit: int = LARGEST
    checksum: Digest | None = None

    @property
    def shown(self) -> str:
        """The URL for messages."""
        return shown_url(self.url)


@dataclass(frozen=True, slots=True)
class Found:
    """A file that is now a blob. `name` is what the server calls it, if it does."""

    digest: Digest
    size: int
    etag: str = ""
    last_modified: str = ""
    name: str = ""


class Web(Calls):
    """URLs that are no registry's. Threads share it; use it in `with`."""

    def __init__(
        self,
        config: RegistryConfig | None = None,
        *,
        offline: bool = False,
        patience: Patience | None = None,
        warn: Warn | None = None,
        sleep: Callable[[float, Stop], None] | None = None,
    ) -> None:
        super().__init__(
            config or RegistryConfig(), None, offline=offline, patience=patience, warn=warn, sleep=sleep
        )

    def __enter__(self) -> Web:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def download(self, wanted: Wanted, store: BlobStore, stop: Stop) -> Found | None:
        """Fetch a file into `store`; None when the server says that the one we have is still the same.

        Raises RegistryError and its children, WrongContent for another checksum, LimitExceeded.
        """
        if self.offline:
            raise RegistryError(f"{wanted.shown}: not asked, because of --offline")
        attempts = Attempts(self.patience, self._backoff(urlsplit(wanted.url).netloc))
        while True:
            try:
                with self._get(wanted, stop) as answer:
                    return None if answer.status == _UNCHANGED else _taken(wanted, answer, store)
            except Interrupted as error:
                self.failed(error, attempts)

    def _get(self, wanted: Wanted, stop: Stop) -> Answer:
        ok = (200, _UNCHANGED) if wanted.headers else (200,)
        request = Request("GET", wanted.url, wanted.shown, stop, wanted.headers, ok=ok)
        own = origin(wanted.url) if wanted.authorization else None
        attempts = Attempts(self.patience, self._backoff(urlsplit(wanted.url).netloc))
        return self._tried(lambda: self._follow(request, own, wanted.authorization), request, attempts)


def _taken(wanted: Wanted, answer: Answer, store: BlobStore) -> Found:
    length = answer.headers.get("Content-Length", "")
    promised = int(length) if length.isdigit() else None
    if promised is not None and promised > wanted.limit:
        raise LimitExceeded(f"{wanted.shown} has {promised} bytes; the limit is {wanted.limit}")
    with store.writer(hashing=False) as writer:
        hashes = _received(wanted, answer, writer)
        if promised is not None and writer.size != promised:
            raise Interrupted(f"{wanted.shown} ended after {writer.size} of {promised} bytes")
        _check(wanted, hashes)
        size = writer.size
        headers = answer.headers
        return Found(
            writer.commit(hashes["sha256"]),
            size,
            headers.get("ETag", "")[:1024],
            headers.get("Last-Modified", "")[:64],
            _file_name(headers.get("Content-Disposition", "")),
        )


def _received(wanted: Wanted, answer: Answer, writer: BlobWriter) -> dict[str, Digest]:
    """Take the body in; its digests by algorithm."""
    names = {"sha256", wanted.checksum.algorithm} if wanted.checksum else {"sha256"}
    hashes = [hashlib.new(name) for name in names]
    for piece in answer.pieces():
        if writer.size + len(piece) > wanted.limit:
            raise LimitExceeded(f"{wanted.shown} goes on after {wanted.limit} bytes, which is the limit")
        writer.write(piece)
        for each in hashes:
            each.update(piece)
    return {each.name: Digest(each.name, each.hexdigest()) for each in hashes}


def _check(wanted: Wanted, hashes: Mapping[str, Digest]) -> None:
    checksum = wanted.checksum
    if checksum is not None and hashes[checksum.algorithm] != checksum:
        raise WrongContent(
            f"{wanted.shown} is not what its checksum says: "
            f"expected {checksum}, got {hashes[checksum.algorithm]}"
        )


def _file_name(disposition: str) -> str:
    """The name in a Content-Disposition (RFC 6266), when it is a plain one."""
    disposition = disposition[:4096]
    extended = _NAME_8BIT.search(disposition)
    plain = _NAME.search(disposition)
    name = ""
    if extended:
        name = unquote(extended[1])
    elif plain:
        name = re.sub(r"\\(.)", r"\1", plain[1]) if plain[1] is not None else plain[2]
    bad = "/" in name or name in ("", ".", "..") or not name.isprintable() or len(name.encode()) > 255
    return "" if bad else name
