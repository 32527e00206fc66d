"""Files behind URLs: asked for once per build, and only fetched again when they changed (I29, S54).

What a URL gave last time is remembered in the store: its digest, and what lets a server say that nothing is
new (ETag, Last-Modified). The content itself is a blob; when that was pruned, it is fetched once more.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote, urlsplit, urlunsplit

from builder.errors import FetchFailed
from builder.snapshot.view import IndexLayer, View
from builder.tree import Node
from oci.digest import Digest
from oci.errors import BlobNotFound, DigestMismatch, InvalidDigest, OciError, Unauthorized
from oci.registry.config import is_loopback
from oci.registry.web import Found, Wanted, Web
from oci.tar.entry import Kind

if TYPE_CHECKING:
    from builder.contexts.content import Memory
    from oci.blobs import BlobStore

Secret: TypeAlias = Callable[[str], "bytes | None"]
"""The value of a secret by its id; None when there is none."""

UNNAMED = "__unnamed__"
"""What a file is called whose URL and server give it no name."""

_NANO = 1_000_000_000


def no_secret(_: str) -> None:
    """There are no secrets."""


@dataclass(frozen=True, slots=True)
class Address:
    """A URL without its user information, which is `userinfo` (`user:password`, still quoted)."""

    url: str
    userinfo: str = ""

    @classmethod
    def of(cls, text: str) -> Address:
        """Take a URL apart; its fragment is nothing to a server. Raises FetchFailed for what is none."""
        try:
            parts = urlsplit(text)
            userinfo, _, place = parts.netloc.rpartition("@")
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
                raise ValueError
        except ValueError:
            raise FetchFailed("a URL that cannot be read: it has no host, or a strange port") from None
        return cls(urlunsplit((parts.scheme, place, parts.path, parts.query, "")), userinfo)

    @property
    def host(self) -> str:
        """`host[:port]`."""
        return urlsplit(self.url).netloc.lower()


class Downloads:
    """The files of one build, by URL and checksum. Threads share it."""

    def __init__(self, web: Web, blobs: BlobStore, memory: Memory, secret: Secret = no_secret) -> None:
        self._web = web
        self._blobs = blobs
        self._memory = memory
        self._secret = secret
        self._stop = web.stop()
        self._found: dict[tuple[str, str], Found] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()
        self._sound: set[Digest] = set()

    def cancel(self) -> None:
        """End every transfer. From any thread."""
        self._stop.set()

    def find(self, url: str, checksum: str = "") -> Found:
        """What `url` holds now. Its content is fetched only when that is not known already.

        Raises FetchFailed when it cannot be had, or is not what `checksum` says.
        """
        address = Address.of(url)
        with self._of_url(address.url):
            found = self._found.get((address.url, checksum))
            if found is None:
                found = self._find(address, checksum)
                self._found[address.url, checksum] = found
            return found

    def open(self, url: str, found: Found) -> int:
        """A descriptor of the content that `find` promised. Raises FetchFailed when it is gone."""
        for _ in range(2):
            try:
                if found.digest not in self._sound:
                    self._blobs.verify(found.digest)
                    self._sound.add(found.digest)
                return self._blobs.open_fd(found.digest)
            except BlobNotFound:
                self._fetch_again(url, found)
            except DigestMismatch:
                self._blobs.quarantine(found.digest)
        self._fetch_again(url, found)
        return self._blobs.open_fd(found.digest)

    def tree(self, url: str, name: str = "", checksum: str = "") -> View:
        """A tree with this one file: mode 0600, and the time that its server says (I29)."""
        found = self.find(url, checksum)
        node = Node(
            Kind.FILE,
            0o600,
            size=found.size,
            mtime_ns=modified(found) * _NANO,
            content=bytes.fromhex(found.digest.hex),
        )
        path = os.fsencode(name or _name_of(url) or found.name or UNNAMED)
        return View([IndexLayer({path: node}, lambda _: self.open(url, found))])

    # ---- inside ----

    def _of_url(self, url: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(url, threading.Lock())

    def _find(self, address: Address, checksum: str) -> Found:
        known = self._remembered(address)
        if known is not None and checksum and str(known.digest) == checksum:
            return known  # the checksum answers for it: nobody need be asked
        if known is not None and self._web.offline and not checksum:
            return known  # what it was when somebody could still be asked
        headers = {}
        if known is not None and known.etag:
            headers["If-None-Match"] = known.etag
        if known is not None and known.last_modified:
            headers["If-Modified-Since"] = known.last_modified
        if checksum and not checksum.startswith("sha256:"):
            headers = {}  # what is known of the content does not tell whether it is the right one
        found = self._fetch(address, checksum, headers)
        if found is None:
            assert known is not None
            if checksum and str(known.digest) != checksum:
                raise FetchFailed(_mismatch(address, checksum, known))
            return known
        self._sound.add(found.digest)
        self._memory.put_many([(_row(address), json.dumps(_plain(found)).encode())])
        return found

    def _fetch_again(self, url: str, found: Found) -> None:
        address = Address.of(url)
        with self._of_url(address.url):
            if self._fetch(address, str(found.digest), {}) is None:
                raise FetchFailed(f"{Wanted(address.url).shown} gave nothing")

    def _fetch(self, address: Address, checksum: str, headers: dict[str, str]) -> Found | None:
        wanted = Wanted(
            address.url,
            headers,
            authorization(address, self._secret),
            checksum=Digest.parse(checksum) if checksum else None,
        )
        try:
            return self._web.download(wanted, self._blobs, self._stop)
        except Unauthorized as error:
            failure = FetchFailed(
                f"{wanted.shown}: the server wants to know who asks ({error.status})",
                hint=f"give a secret with the id HTTP_AUTH_TOKEN_{address.host}",
            )
            failure.exit_code = error.exit_code
            raise failure from None
        except OciError as error:
            raise FetchFailed(str(error)) from None

    def _remembered(self, address: Address) -> Found | None:
        row = self._memory.get(_row(address))
        with suppress(ValueError, TypeError, InvalidDigest, KeyError):
            fields = json.loads(row or b"null")
            return Found(**{**fields, "digest": Digest.parse(fields["digest"])})
        return None


def authorization(address: Address, secret: Secret) -> str:
    """The Authorization for a URL: of a secret for exactly this host (I33), else of the URL itself.

    Nothing secret goes over plain http to another machine.
    """
    if address.url.startswith("http://") and not is_loopback(address.host):
        return ""
    if header := _text(secret(f"HTTP_AUTH_HEADER_{address.host}")):
        return header
    if token := _text(secret(f"HTTP_AUTH_TOKEN_{address.host}")):
        return f"Bearer {token}"
    if address.userinfo:
        user, _, password = address.userinfo.partition(":")
        return "Basic " + b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return ""


def modified(found: Found) -> int:
    """The time of a file in seconds since 1970, as its server says; 0 when it does not."""
    from email.utils import parsedate_to_datetime

    try:
        return max(0, int(parsedate_to_datetime(found.last_modified).timestamp()))
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0


def _name_of(url: str) -> str:
    name = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    return "" if name in (".", "..") or "\0" in name else name


def _mismatch(address: Address, checksum: str, known: Found) -> str:
    shown = Wanted(address.url).shown
    return f"{shown} is not what its checksum says: expected {checksum}, got {known.digest}"


def _text(value: bytes | None) -> str:
    return value.decode("latin-1").strip() if value else ""


def _row(address: Address) -> bytes:
    return b"http:" + hashlib.sha256(address.url.encode("utf-8", "surrogateescape")).digest()


def _plain(found: Found) -> dict[str, object]:
    return asdict(found) | {"digest": str(found.digest)}
