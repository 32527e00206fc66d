"""One request after all: the right scheme, Authorization that stays with its host, redirects, retries.

Borders (S84-S87): Authorization goes to the registry's own origin and nowhere else; whoever redirects us
elsewhere, or names another origin for an upload, gets the request without it, and never less TLS than before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from oci.data import dataclass
from oci.errors import LimitExceeded, RegistryError, TooManyRequests
from oci.registry.auth import Credential, CredentialStore
from oci.registry.body import Outgoing
from oci.registry.config import Endpoint, HostConfig, RegistryConfig, host_name, ip_literal, is_loopback
from oci.registry.headers import retry_after
from oci.registry.patience import Attempts, Backoff, Interrupted, Patience, Stop
from oci.registry.redact import redact, shown_url
from oci.registry.refusals import refusal, warnings_of
from oci.registry.tokens import MAX_TOKEN, NOTHING, Authority, Scopes

if TYPE_CHECKING:
    from oci.registry.transport import Answer, Transport

Warn = Callable[[str], None]
Body = Callable[[], Outgoing] | bytes | None

_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 429, 500, 502, 503, 504)
_MAX_REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. `target` is a path below `/v2/`, or a URL the registry gave us; `doing` begins every
    message.

    `body` is made anew for each attempt. `ok` are the statuses hoped for. With `limit` the body of the
    answer, so many bytes at most, is read within the attempt and kept in `Answer.content`. `wait` is how
    long the answer may take to begin, in seconds. Without `retry` the first failure is the last.
    """

    method: str
    target: str
    doing: str
    stop: Stop
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = None
    scopes: Scopes = NOTHING
    ok: tuple[int, ...] = (200,)
    retry: bool = True
    wait: float | None = None
    limit: int | None = None


class Calls:
    """Requests to registries, for all threads of a client. `sleep(seconds, stop)` waits; tests give their
    own."""

    def __init__(
        self,
        config: RegistryConfig,
        credentials: CredentialStore | None,
        *,
        offline: bool = False,
        parallel: int = 6,
        patience: Patience | None = None,
        warn: Warn | None = None,
        sleep: Callable[[float, Stop], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        user_agent: str = "pybuild",
    ) -> None:
        self.config = config
        self.offline = offline
        self.parallel = parallel
        self.patience = patience or Patience()
        self._credentials = credentials
        self._warn = warn or (lambda text: None)
        self._sleep = sleep or (lambda seconds, stop: stop.sleep(seconds))
        self._clock = clock
        self._user_agent = user_agent
        self._lock = threading.RLock()
        self._made: Transport | None = None
        self._schemes: dict[str, str] = {}
        self._authorities: dict[Endpoint, Authority] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._found: dict[tuple[str, str], Credential | None] = {}
        self._warned: set[str] = set()
        self._answering: set[str] = set()
        self.singles: dict[str, bool] = {}
        self.anywhere: dict[str, bool] = {}

    def close(self) -> None:
        """Close all connections."""
        if self._made:
            self._made.close()

    def stop(self) -> Stop:
        """A new operation's stop; setting it wakes what waits on the network for it."""
        stop = Stop()
        stop.on_stop(lambda: self._made.break_off(stop) if self._made else None)
        return stop

    def warn(self, text: str) -> None:
        """Tell the user something once."""
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)

    def attempts(self, endpoint: Endpoint) -> Attempts:
        """A fresh count of failures, waiting with all others who use the host."""
        return Attempts(self.patience, self._backoff(endpoint.address))

    def use(self, endpoint: Endpoint, credential: Credential) -> None:
        """Use this credential for a registry, as `login` does before it keeps one."""
        with self._lock:
            self._found = {key: value for key, value in self._found.items() if key[0] != endpoint.host}
            self._found[(endpoint.host, "")] = credential
            self._authorities.pop(endpoint, None)

    def base(self, endpoint: Endpoint, stop: Stop) -> str:
        """`https://address/v2/`, or `http`, once it is known which."""
        with self._lock:
            if endpoint.address not in self._schemes:
                self._check_online(endpoint.host)
                self._schemes[endpoint.address] = self._scheme(endpoint, stop)
            return f"{self._schemes[endpoint.address]}://{endpoint.address}/v2/"

    def call(self, endpoint: Endpoint, request: Request) -> Answer:
        """The answer to a request, its status one of `request.ok`. Use it in `with`.

        Raises Unauthorized, ManifestUnknown, TooManyRequests, RegistryError; and Interrupted without
        `request.retry`: then what may pass is left to the caller, who knows better how to go on.
        """
        request = replace(request, target=urljoin(self.base(endpoint, request.stop), request.target))
        return self._tried(lambda: self._authorized(endpoint, request), request, self.attempts(endpoint))

    def fetch(self, request: Request) -> Answer:
        """The answer from a URL that is no registry's (a layer's `urls`); no credential goes there."""
        attempts = Attempts(self.patience, self._backoff(urlsplit(request.target).netloc))
        return self._tried(lambda: self._follow(request, None, ""), request, attempts)

    def failed(self, error: Interrupted, attempts: Attempts) -> None:
        """Count a failure of an operation that retries by itself; raises when it was the last."""
        try:
            attempts.failed(error)
        except Interrupted:
            kind = TooManyRequests if error.status == 429 else RegistryError
            raise kind(
                f"{error} (given up after trying again)", status=error.status, codes=error.codes
            ) from None

    def _tried(self, send: Callable[[], Answer], request: Request, attempts: Attempts) -> Answer:
        while True:
            try:
                return self._judged(send(), request)
            except Interrupted as error:
                if not request.retry:
                    raise
                self.failed(error, attempts)

    def _judged(self, answer: Answer, request: Request) -> Answer:
        """The answer, if it is one that was hoped for, with its body if that was asked for."""
        for text in warnings_of(answer.headers):
            self.warn(f"{urlsplit(answer.url).netloc}: {text}")
        if answer.status in request.ok:
            if request.limit is not None:
                _read(answer, request.limit)
            return answer
        with answer:
            error = refusal(answer, request.doing)
        if answer.status in _PASSING:
            asked = retry_after(answer.headers.get("Retry-After", ""), time.time())
            raise Interrupted(str(error), status=error.status, codes=error.codes, delay=asked)
        raise error

    def _authorized(self, endpoint: Endpoint, request: Request) -> Answer:
        """Send with Authorization. A token may have expired, and a scheme be unknown yet: so up to three
        times."""
        authority = self._authority(endpoint, request.stop)
        own = origin(self.base(endpoint, request.stop))
        for last in (False, False, True):
            sent = authority.header(request.scopes) if origin(request.target) == own else ""
            answer = self._follow(request, own, sent)
            if answer.status != 401 or last or origin(answer.url) != own:
                return answer
            if not authority.answer(answer.headers.get("WWW-Authenticate", ""), request.scopes, sent):
                return answer
            answer.close()
        raise AssertionError

    def _follow(self, request: Request, own: str | None, authorization: str) -> Answer:
        """Send, and go where redirects lead; Authorization goes to `own` alone."""
        url = request.target
        for _ in range(_MAX_REDIRECTS + 1):
            self._wait(url, request.stop)
            secret = {"Authorization": authorization} if authorization and origin(url) == own else {}
            answer = self._send(replace(request, target=url, headers={**request.headers, **secret}))
            location = answer.headers.get("Location", "")
            if answer.status not in _REDIRECTS or not location:
                return answer
            answer.close()
            if answer.status == 303 and request.method not in ("GET", "HEAD"):
                raise RegistryError(
                    f"{request.doing}: redirected by 303, which would lose the request's body"
                )
            url = redirected(url, location, request.doing)
        raise RegistryError(f"{request.doing}: more than {_MAX_REDIRECTS} redirects")

    def _send(self, request: Request) -> Answer:
        from oci.registry.transport import Refused

        address = urlsplit(request.target).netloc
        try:
            body = request.body() if callable(request.body) else request.body
            answer = self._transport.send(
                request.method,
                request.target,
                request.headers,
                body,
                self._host(address),
                request.stop,
                doing=request.doing,
                wait=request.wait,
            )
        except Refused as error:
            if address in self._answering:  # it was there a moment ago: it restarts, perhaps
                raise Interrupted(str(error)) from None
            raise
        self._answering.add(address)
        return answer

    def _wait(self, url: str, stop: Stop) -> None:
        backoff = self._backoff(urlsplit(url).netloc)
        while remaining := backoff.remaining():
            self._sleep(remaining, stop)
            stop.check()

    def _backoff(self, address: str) -> Backoff:
        with self._lock:
            if address not in self._backoffs:
                self._backoffs[address] = Backoff(self.patience, clock=self._clock)
            return self._backoffs[address]

    def _host(self, address: str) -> HostConfig:
        """What holds for an address. The call's own --tls-verify is about registries that were asked for,
        not about token servers and others they lead to (S87)."""
        with self._lock:
            name = "docker.io" if address == "registry-1.docker.io" else address
            if address in self._schemes:
                return self.config.host(name)
            return self.config.hosts.get(name, HostConfig())

    def _authority(self, endpoint: Endpoint, stop: Stop) -> Authority:
        plain = self.base(endpoint, stop).startswith("http://")
        with self._lock:
            if endpoint not in self._authorities:
                self._authorities[endpoint] = Authority(
                    endpoint,
                    lambda repository: self._credential(endpoint.host, repository),
                    lambda *request: self._ask(endpoint, *request, stop=stop),
                    plain_http=plain,
                    realms=self.config.host(endpoint.host).realms,
                    clock=self._clock,
                )
            return self._authorities[endpoint]

    def _credential(self, host: str, repository: str) -> Credential | None:
        with self._lock:
            if self._found.get((host, "")):
                return self._found[(host, "")]
            key = (host, repository)
            if key not in self._found:
                self._found[key] = self._credentials.get(host, repository) if self._credentials else None
            return self._found[key]

    def _ask(
        self,
        endpoint: Endpoint,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        stop: Stop,
    ) -> tuple[int, bytes]:
        """Ask a token server. It may not redirect a password anywhere."""
        doing = f"{endpoint.host}: asking {shown_url(url)} for a token"
        anything = tuple(status for status in range(200, 600) if status not in _PASSING)
        request = Request(method, url, doing, stop, headers, body, ok=anything, limit=MAX_TOKEN)
        attempts = Attempts(self.patience, self._backoff(urlsplit(url).netloc))

        def send() -> Answer:
            self._wait(url, stop)
            return self._send(request)

        with self._tried(send, request, attempts) as answer:
            return answer.status, answer.content

    def _scheme(self, endpoint: Endpoint, stop: Stop) -> str:
        schemes = self.config.schemes(endpoint.host)
        found = self.config.host(endpoint.host)
        if found.insecure and "https" in schemes:
            self.warn(f"{endpoint.host}: its certificate is not verified (insecure)")
        if len(schemes) == 1:
            return schemes[0]
        self._schemes[endpoint.address] = schemes[0]
        attempts = self.attempts(endpoint)
        try:
            while True:
                try:
                    return self._first_to_answer(endpoint, schemes, stop)
                except Interrupted as error:
                    self.failed(error, attempts)
                    self._wait(f"{schemes[0]}://{endpoint.address}/v2/", stop)
        finally:
            del self._schemes[endpoint.address]

    def _first_to_answer(self, endpoint: Endpoint, schemes: tuple[str, ...], stop: Stop) -> str:
        """Which scheme a host speaks. Nothing secret is sent to find out."""
        failure: RegistryError | None = None
        request = Request("GET", "", f"{endpoint.host}: looking for a registry", stop, wait=10.0)
        for scheme in schemes:
            try:
                with self._send(replace(request, target=f"{scheme}://{endpoint.address}/v2/")) as answer:
                    location = answer.headers.get("Location", "")
                    if scheme == "http" and (answer.status == 400 or location.startswith("https://")):
                        continue  # what TLS servers answer to plain text
                    return scheme
            except RegistryError as error:
                # Who speaks TLS and is not believed says more than a connection that broke off.
                if failure is None or (isinstance(failure, Interrupted) and type(error) is RegistryError):
                    failure = error
        raise failure or RegistryError(f"{endpoint.host}: no registry answers there")

    @property
    def _transport(self) -> Transport:
        with self._lock:
            if self._made is None:
                from oci.registry.transport import Transport

                self._made = Transport(
                    parallel=self.parallel, patience=self.patience, user_agent=self._user_agent
                )
            return self._made

    def _check_online(self, host: str) -> None:
        if self.offline:
            raise RegistryError(f"{host}: not asked, because of --offline")


def origin(url: str) -> str:
    """Scheme, host and port of a URL, the way borders are drawn."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{(parts.hostname or '').lower()}:{port}"


def redirected(url: str, location: str, doing: str) -> str:
    """Where `location` leads from `url`. Raises RegistryError for what nobody should follow: other schemes,
    less TLS, user information, and from the outside to addresses of this machine or its link."""
    try:
        target = urljoin(url, location)
        here, there = urlsplit(url), urlsplit(target)
        name, _ = there.hostname or "", there.port
    except ValueError:
        raise RegistryError(f"{doing}: sent on to {redact(repr(location), 100)}, which is no URL") from None
    shown = shown_url(target)
    if there.scheme not in ("http", "https") or not name or "@" in there.netloc:
        raise RegistryError(f"{doing}: sent on to {shown}, which is no plain http(s) URL")
    if here.scheme == "https" and there.scheme == "http":
        raise RegistryError(f"{doing}: sent on from https to plain http ({shown}); not followed")
    address = ip_literal(name)
    inner = is_loopback(name) or (address is not None and (address.is_link_local or address.is_unspecified))
    if inner and not is_loopback(host_name(here.netloc)) and name != (here.hostname or ""):
        raise RegistryError(
            f"{doing}: sent on to {shown}, an address of this machine or its link; not followed"
        )
    return target


def _read(answer: Answer, limit: int) -> None:
    try:
        with answer:
            answer.document(limit)
    except LimitExceeded as error:
        raise RegistryError(str(error)) from None
