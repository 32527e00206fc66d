"""Sends one request and hands back its answer. The only module that imports requests; redirects, retries and
authorization are decided in `calls`.

One session per origin, with as many pooled connections as there are parallel transfers. What requests would
do on its own is off: redirects, cookies, `.netrc`, retries, decoding of content.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPResponse
from typing import Any, ClassVar, TypeVar

import requests
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from requests.exceptions import ProxyError, RequestException, SSLError
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from oci.errors import LimitExceeded, RegistryError
from oci.registry import tls
from oci.registry.body import Outgoing
from oci.registry.config import HostConfig, host_name, is_loopback
from oci.registry.patience import Interrupted, Pace, Patience, Stop
from oci.registry.redact import redact

T = TypeVar("T", bound=bytes | memoryview)

PIECE = 1 << 20
"""The most bytes taken from a connection at once."""


class NotTls(RegistryError):
    """The other side does not speak TLS."""


class Refused(RegistryError):
    """Nobody listens there, or the name is unknown."""


class Answer:
    """Status, headers and body of a response. Use it in `with`; a body read to its end returns the
    connection."""

    def __init__(
        self,
        response: requests.Response,
        url: str,
        patience: Patience,
        stop: Stop,
        what: str,
        ended: Callable[[], object],
    ) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.url = url
        self._raw = response.raw
        self._patience = patience
        self._stop = stop
        self._what = what
        self._ended = ended
        self._broken = False
        self.content = b""
        """The body, once `document` has read it."""

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; one whose body was not read to its end is closed."""
        with suppress(HTTPError, OSError):
            if self._broken or not _drained(self._raw):
                self._raw.close()
            self._raw.release_conn()
        self._ended()

    def pieces(self) -> Iterator[bytes]:
        """The body as it arrives, undecoded. Raises Interrupted when it breaks off or stalls."""
        read = getattr(self._raw, "read1", None) or self._raw.read
        return self._arriving(lambda: read(PIECE, decode_content=False))

    def views(self) -> Iterator[bytes | memoryview]:
        """The same in one buffer that is used again and again: each piece is gone when the next one comes."""
        response = getattr(self._raw, "_fp", None)
        if not isinstance(response, _Response) or not response.is_plain():
            return self.pieces()
        buffer = memoryview(bytearray(PIECE))
        return self._arriving(lambda: buffer[: response.take(buffer)])

    def _arriving(self, read: Callable[[], T]) -> Iterator[T]:
        pace = Pace(self._patience)
        while True:
            self._stop.check()
            try:
                piece = read()
            except (HTTPError, OSError, ValueError) as error:
                self._broken = True
                self._stop.check()
                raise Interrupted(f"{self._what}: the connection broke off: {_reason(error)}") from None
            if not piece:
                return
            yield piece
            try:
                pace.moved(len(piece))
            except Interrupted as error:
                self._broken = True
                raise Interrupted(f"{self._what}: {error}") from None

    def document(self, limit: int) -> bytes:
        """A small body whole. Raises LimitExceeded beyond `limit` bytes, whatever its header says (S80)."""
        content = bytearray()
        for piece in self.pieces():
            content += piece
            if len(content) > limit:
                self._broken = True
                raise LimitExceeded(f"{self._what}: the answer has more than {limit} bytes")
        self.content = bytes(content)
        return self.content


class Transport:
    """Sessions by origin. Threads share it."""

    def __init__(self, *, parallel: int, patience: Patience, user_agent: str) -> None:
        self._parallel = parallel
        self._patience = patience
        self._user_agent = user_agent
        self._sessions: dict[object, requests.Session] = {}
        self._lock = threading.Lock()
        self._current = threading.local()
        self._busy: dict[Any, Stop] = {}
        self._last: dict[socket.socket | None, Stop] = {}

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.close()

    def break_off(self, stop: Stop) -> None:
        """Shut the connections down that work for `stop`, so that nobody waits on them."""
        for connection, owner in list(self._busy.items()):
            if owner is stop:
                _shut(connection.sock)
        for sock, owner in list(self._last.items()):
            if owner is stop:
                _shut(sock)

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Outgoing | None,
        config: HostConfig,
        stop: Stop,
        *,
        doing: str,
        wait: float | None = None,
    ) -> Answer:
        """One request, one answer, whatever its status; bodies are not read yet.

        `doing` begins every message. `wait` is how long the answer's first byte may take. Raises Interrupted
        for what may pass, Refused, NotTls, and RegistryError for the rest.
        """
        stop.check()
        address = url.split("/")[2]
        what = doing if address in doing else f"{doing}: {address}"
        session = self._session(url.split("/", 1)[0], address, config)
        self._current.stop = stop
        try:
            request = session.prepare_request(requests.Request(method, url, headers=dict(headers), data=body))
            response = session.send(
                request,
                stream=True,
                allow_redirects=False,
                timeout=(self._patience.connect, wait or self._patience.answer),
                proxies=_proxies(url),
            )
        except (RequestException, HTTPError, OSError, ValueError) as error:
            stop.check()
            raise self._failure(error, what, address) from None
        last = getattr(response.raw, "last", None)
        if last is not None:
            self._last[last] = stop
        return Answer(response, url, self._patience, stop, what, lambda: self._last.pop(last, None))

    def _failure(self, error: BaseException, what: str, address: str) -> RegistryError:
        chain = tuple(_chain(error))
        for cause in chain:
            if isinstance(cause, RegistryError):
                return Interrupted(f"{what}: {cause}")
            if isinstance(cause, socket.gaierror):
                if cause.errno == socket.EAI_AGAIN:
                    return Interrupted(
                        f"{what}: the name {host_name(address)} cannot be resolved at the moment"
                    )
                return Refused(f"{what}: no such host: {host_name(address)}")
            if isinstance(cause, ConnectionRefusedError):
                return Refused(f"{what}: connection refused: nothing listens at {address}")
        text = redact(str(error), 2000)
        if isinstance(error, SSLError) and tls.is_about_certificate(text):
            return RegistryError(f"{what}: {tls.distrusted(text)}")
        if isinstance(error, SSLError):
            return NotTls(
                f"{what}: no TLS there ({_reason(error)}); if it is plain http, set http = true for {address}"
            )
        if isinstance(error, ProxyError):
            return Interrupted(f"{what}: the proxy: {_reason(error)}")
        if isinstance(
            error, requests.exceptions.InvalidURL | requests.exceptions.InvalidHeader | UnicodeError
        ):
            return RegistryError(f"{what}: {_reason(error)}")
        if isinstance(error, requests.exceptions.Timeout):
            return Interrupted(f"{what}: no answer in time")
        return Interrupted(f"{what}: the connection broke off: {_reason(error)}")

    def _session(self, scheme: str, address: str, config: HostConfig) -> requests.Session:
        key = (scheme, address, config)
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = self._new_session(scheme, config)
            return self._sessions[key]

    def _new_session(self, scheme: str, config: HostConfig) -> requests.Session:
        session = requests.Session()
        session.trust_env = False  # no .netrc: credentials come from where people put them for registries
        session.headers.clear()
        session.headers.update({"User-Agent": self._user_agent, "Accept-Encoding": "identity"})
        session.cookies = _NoCookies()
        context = (
            tls.context_of(config, requests.utils.DEFAULT_CA_BUNDLE_PATH) if scheme == "https:" else None
        )
        session.mount(f"{scheme}//", _Adapter(self, context, self._parallel))
        return session


class _NoCookies(RequestsCookieJar):
    def extract_cookies(self, *args: Any, **keywords: Any) -> None:
        """A registry has nothing to remember us by."""


class _Adapter(HTTPAdapter):
    """requests' own, with our connections and one TLS context made once."""

    def __init__(self, transport: Transport, context: ssl.SSLContext | None, parallel: int) -> None:
        self._pools = _pools(transport)
        self._context = context
        super().__init__(pool_connections=2, pool_maxsize=parallel, max_retries=0)

    def init_poolmanager(self, *args: Any, **keywords: Any) -> None:
        if self._context:
            keywords["ssl_context"] = self._context
        super().init_poolmanager(*args, **keywords)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **keywords: Any) -> Any:
        if self._context:
            keywords["ssl_context"] = self._context
        proxies = super().proxy_manager_for(proxy, **keywords)
        proxies.pool_classes_by_scheme = self._pools
        return proxies

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        parts = super().build_connection_pool_key_attributes(request, True)[0]
        return parts, {}

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """The context knows it all; requests would read certifi's file again for every connection."""


class _Response(HTTPResponse):
    """The standard library's answer, whose body can also be had in a buffer of the caller's as it comes."""

    def is_plain(self) -> bool:
        """Whether the body is so many bytes, just as they are."""
        return not self.chunked and self.length is not None and self.fp is not None

    def take(self, buffer: memoryview) -> int:
        """What is there of the body, at most one read of the connection; 0 at its end. See `read1`, which
        makes a new object each time."""
        if self.fp is None or not self.length:
            return 0
        count: int = self.fp.readinto1(buffer[: self.length])
        self.length -= count
        if not count or not self.length:
            self._close_conn()  # type: ignore[attr-defined]
        return count


class _Plain(HTTPConnection):
    """urllib3's connection, which lets bodies write themselves and gives the head of an answer its time."""

    transport: ClassVar[Transport]
    response_class = _Response

    def request(self, *args: Any, **keywords: Any) -> None:
        self.transport._busy[self] = self.transport._current.stop
        super().request(*args, **keywords)

    def send(self, data: Any) -> None:
        if not isinstance(data, Outgoing):
            return super().send(data)
        assert self.sock is not None
        pace = Pace(self.transport._patience)
        stop: Stop = self.transport._current.stop

        def alive(count: int) -> None:
            stop.check()
            pace.moved(count)

        return data.write(self.sock, alive)

    def getresponse(self) -> Any:
        """However slowly the head drips, it ends (R15), and at once when all is stopped."""
        stop: Stop = self.transport._current.stop
        stop.check()  # `break_off` may have come too early to find this connection
        sock, late = self.sock, threading.Event()

        def end() -> None:
            late.set()
            _shut(sock)

        timer = threading.Timer(max(self.timeout or 0.0, 1.0) * 1.5, end)
        timer.daemon = True
        timer.start()
        try:
            response: Any = super().getresponse()
        finally:
            timer.cancel()
        if self.sock is None and sock is not None:  # the answer has it: no other one follows
            response.last = sock
        if late.is_set():  # what was there looked like a whole head
            response.close()
            raise TimeoutError("the head of the answer took too long")
        return response

    def close(self) -> None:
        self.transport._busy.pop(self, None)
        super().close()


class _Secure(_Plain, HTTPSConnection):
    """The same with TLS."""


class _SecurePool(HTTPSConnectionPool):
    """Connects without a word on `insecure`: that has been said already."""

    def _validate_conn(self, conn: Any) -> None:
        if conn.sock is None:
            conn.connect()


def _pools(transport: Transport) -> dict[str, type[HTTPConnectionPool]]:
    """Pools whose connections know their transport."""
    plain = type("_PlainOf", (_Plain,), {"transport": transport})
    secure = type("_SecureOf", (_Secure,), {"transport": transport})
    return {
        "http": type("_PlainPoolOf", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("_SecurePoolOf", (_SecurePool,), {"ConnectionCls": secure}),
    }


def _shut(sock: socket.socket | None) -> None:
    if sock is None:
        return
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _proxies(url: str) -> dict[str, str]:
    """The environment's proxy for a URL; none for this machine itself, as in Go's programs."""
    if is_loopback(url.split("/")[2]):
        return {}
    return dict(requests.utils.get_environ_proxies(url))


def _drained(raw: Any) -> bool:
    """Whether a body ends soon: what is left of it is small and here."""
    if raw.closed or raw._fp is None or getattr(raw._fp, "closed", True):
        return True
    left = getattr(raw._fp, "length", None)
    if left is None or left > 65536:
        return False
    deadline = time.monotonic() + 1.0
    with suppress(HTTPError, OSError):
        while raw.read(65536, decode_content=False) and time.monotonic() < deadline:
            pass
        return True
    return False


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it wraps, the ways requests and urllib3 wrap."""
    seen: set[int] = set()
    todo: list[object] = [error]
    while todo:
        item = todo.pop(0)
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        todo += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]


def _reason(error: BaseException) -> str:
    """The innermost words of an error, without the objects' names urllib3 puts around them."""
    inner = [
        item for item in _chain(error) if isinstance(item, OSError) and not isinstance(item, RequestException)
    ]
    text = str(inner[-1].strerror or inner[-1]) if inner else str(error)
    return redact(text.partition("object at 0x")[2].partition(": ")[2] or text, 200) or type(error).__name__
