"""Authorization for one registry: Basic, or Bearer tokens from the token server it names (distribution's
token authentication specification; GET, and POST for identity tokens).

Who sees what is decided here (S85): a realm must be https unless the registry itself is plain http, may not
lead to addresses of the inner network, and sees a password only if it lives on the registry's own site.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from oci.data import dataclass
from oci.errors import Unauthorized
from oci.registry.auth import Credential
from oci.registry.config import Endpoint, host_name, ip_literal, is_loopback
from oci.registry.headers import Challenge, challenges
from oci.registry.redact import redact, shown_url

MAX_TOKEN = 1 << 20
"""The longest answer of a token server that is read, in bytes (S80)."""

_SKEW_S = 10.0
_DEFAULT_LIFE_S = 60.0

Scopes = frozenset[str]
"""Single permissions, `repository:NAME:ACTION`."""

NOTHING: Scopes = frozenset()


def pulling(*paths: str) -> Scopes:
    """The right to read repositories."""
    return frozenset(f"repository:{path}:pull" for path in paths)


def pushing(path: str, *sources: str) -> Scopes:
    """The right to write a repository, and to read those it mounts blobs from."""
    return frozenset({f"repository:{path}:push"}) | pulling(path, *sources)


def deleting(path: str) -> Scopes:
    """The right to delete in a repository."""
    return frozenset({f"repository:{path}:delete"}) | pulling(path)


class Ask(Protocol):
    """Sends one request to a token server: status and body."""

    def __call__(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, bytes]: ...


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    until: float


class Authority:
    """What one registry has asked for and what we have got for it. Threads share it; one of them asks."""

    def __init__(
        self,
        endpoint: Endpoint,
        find: Callable[[str], Credential | None],
        ask: Ask,
        *,
        plain_http: bool,
        realms: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._find = find
        self._ask = ask
        self._plain_http = plain_http
        self._realms = realms
        self._clock = clock
        self._challenge: Challenge | None = None
        self._tokens: dict[Scopes, _Token] = {}
        self._lock = threading.RLock()

    def header(self, scopes: Scopes) -> str:
        """The Authorization header for a request, "" for none. May ask the token server; raises
        Unauthorized."""
        with self._lock:
            if self._challenge is None:
                return ""
            credential = self._credential(scopes)
            if self._challenge.scheme == "basic":
                return _basic(credential) if credential and credential.username else ""
            if credential and credential.registry_token:
                return f"Bearer {credential.registry_token}"
            return f"Bearer {self._token(scopes, credential)}"

    def answer(self, header: str, scopes: Scopes, sent: str) -> bool:
        """Take in a 401's WWW-Authenticate; whether asking again has a chance.

        `sent` is the Authorization that was refused. A token may just have expired (R14), so it is dropped
        and the caller tries once more.
        """
        found = _best(challenges(header))
        if found is None:
            return False
        with self._lock:
            if found.scheme == "bearer":
                for key in [key for key, token in self._tokens.items() if f"Bearer {token.text}" == sent]:
                    del self._tokens[key]
            changed = self._challenge is None or self._challenge.scheme != found.scheme
            self._challenge = found
            if found.scheme == "basic":
                credential = self._credential(scopes)
                return bool(credential and credential.username) and (changed or not sent)
            return True

    def _credential(self, scopes: Scopes) -> Credential | None:
        repositories = sorted(
            {scope.split(":")[1] for scope in scopes if scope.endswith((":push", ":delete"))}
        )
        repositories = repositories or sorted({scope.split(":")[1] for scope in scopes})
        return self._find(repositories[0] if repositories else "")

    def _token(self, scopes: Scopes, credential: Credential | None) -> str:
        now = self._clock()
        for held, token in self._tokens.items():
            if scopes <= held and token.until > now:
                return token.text
        scopes |= self._suggested(scopes)
        token = self._fetch(scopes, credential)
        self._tokens[scopes] = token
        return token.text

    def _suggested(self, scopes: Scopes) -> Scopes:
        """What the registry's own words add for the repositories at hand; no others (S85)."""
        assert self._challenge is not None
        ours = {scope.rpartition(":")[0] for scope in scopes}
        offers = (text.rpartition(":") for text in self._challenge.get("scope").split())
        return frozenset(
            f"{name}:{action}" for name, _, actions in offers if name in ours for action in actions.split(",")
        )

    def _fetch(self, scopes: Scopes, credential: Credential | None) -> _Token:
        assert self._challenge is not None
        realm = self._challenge.get("realm")
        check_realm(realm, self._endpoint, self._plain_http, self._realms, with_secret=credential is not None)
        asked_at = self._clock()
        if credential and credential.identity_token:
            status, content = self._post(
                realm, scopes, grant_type="refresh_token", refresh_token=credential.identity_token
            )
        else:
            status, content = self._get(realm, scopes, credential)
            if status in (404, 405) and credential:
                form = {"username": credential.username, "password": credential.password}
                status, content = self._post(realm, scopes, grant_type="password", **form)
        return self._read(status, content, realm, credential, asked_at)

    def _get(self, realm: str, scopes: Scopes, credential: Credential | None) -> tuple[int, bytes]:
        parts = urlsplit(realm)
        query = [*parse_qsl(parts.query, keep_blank_values=True), *self._service()]
        query += [("scope", scope) for scope in joined(scopes)]
        url = urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(query), ""))
        headers = {"Authorization": _basic(credential)} if credential and credential.username else {}
        return self._ask("GET", url, headers, None)

    def _post(self, realm: str, scopes: Scopes, **form: str) -> tuple[int, bytes]:
        fields = [
            *self._service(),
            ("client_id", "pybuild"),
            ("scope", " ".join(joined(scopes))),
            *form.items(),
        ]
        body = urlencode(fields).encode()
        return self._ask("POST", realm, {"Content-Type": "application/x-www-form-urlencoded"}, body)

    def _service(self) -> list[tuple[str, str]]:
        assert self._challenge is not None
        service = self._challenge.get("service")
        return [("service", service)] if service else []

    def _read(
        self, status: int, content: bytes, realm: str, credential: Credential | None, asked_at: float
    ) -> _Token:
        where = f"{self._endpoint.host}: its token server {shown_url(realm)}"
        if status != 200:
            said = redact(content.decode("utf-8", "replace"), 200)
            who = "the user name or password" if credential else "to give anybody a token"
            refused = f"refused {who}" if status in (400, 401, 403) else f"answered {status}"
            raise Unauthorized(
                f"{where} {refused}" + (f": {said}" if said else "") + _hint(credential, self._endpoint)
            )
        try:
            value = json.loads(content)
            text = value.get("token") or value.get("access_token")
            life = float(value.get("expires_in") or _DEFAULT_LIFE_S)
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            text, life = None, 0.0
        if not isinstance(text, str) or not text.isascii() or not text.isprintable() or " " in text:
            raise Unauthorized(f"{where} sent no JSON with a token")
        return _Token(text, asked_at + max(life - _SKEW_S, life / 2))


def check_realm(
    realm: str, endpoint: Endpoint, plain_http: bool, allowed: tuple[str, ...], *, with_secret: bool
) -> None:
    """Raise Unauthorized unless a registry may name this token server, and our password may go there."""
    try:
        parts = urlsplit(realm)
        name = (parts.hostname or "").lower()
        _ = parts.port
    except ValueError:
        parts, name = urlsplit(""), ""
    where = f"{endpoint.host}: the token server it names, {shown_url(realm) or 'none'},"
    if not name or parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise Unauthorized(f"{where} is no http(s) URL")
    if parts.scheme == "http" and not plain_http:
        raise Unauthorized(f"{where} is plain http, though the registry is https; nothing was sent there")
    own = host_name(endpoint.address)
    if name == own or name in allowed or parts.netloc.lower() in allowed:
        return
    if (ip_literal(name) or is_loopback(name)) and not (is_loopback(name) and is_loopback(own)):
        raise Unauthorized(
            f"{where} is an address, not a name of the registry's site; nothing was sent there"
        )
    if with_secret and not same_site(name, own):
        raise Unauthorized(
            f"{where} belongs to another site, so the password was not sent there; if that is right, "
            f'add realms = ["{name}"] to [registry."{endpoint.host}"] in the configuration'
        )


def same_site(one: str, other: str) -> bool:
    """Whether two host names share their registrable domain, as far as that can be told without a list."""
    if one == other:
        return True
    left, right = one.split("."), other.split(".")
    shared = 0
    while shared < min(len(left), len(right)) and left[-1 - shared] == right[-1 - shared]:
        shared += 1
    needed = 3 if shared >= 2 and len(left[-1]) == 2 and len(left[-2]) <= 3 else 2  # co.uk, com.au
    return shared >= needed


def joined(scopes: Iterable[str]) -> list[str]:
    """Scopes as token servers want them: the actions of one repository together."""
    actions: dict[str, list[str]] = {}
    for scope in sorted(scopes):
        name, _, action = scope.rpartition(":")
        actions.setdefault(name, []).append(action)
    return [f"{name}:{','.join(sorted(found, key=_rank))}" for name, found in actions.items()]


def _rank(action: str) -> tuple[int, str]:
    order = ("pull", "push", "delete")
    return (order.index(action) if action in order else len(order), action)


def _best(found: Iterable[Challenge]) -> Challenge | None:
    by_scheme = {challenge.scheme: challenge for challenge in reversed(tuple(found))}
    bearer = by_scheme.get("bearer")
    return bearer if bearer and bearer.get("realm") else by_scheme.get("basic")


def _basic(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _hint(credential: Credential | None, endpoint: Endpoint) -> str:
    return "" if credential else f"; log in with `pybuild login {endpoint.host}`"
