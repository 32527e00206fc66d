"""What registries, token servers and credential files say."""

from __future__ import annotations

import os
from unittest.mock import patch

from oci.errors import RegistryError, Unauthorized
from oci.registry.auth import Credential, CredentialStore
from oci.registry.config import Endpoint
from oci.registry.refusals import refusal
from oci.registry.tokens import Authority, pulling

SEEDS = (
    b'\x00{"token":"abc","expires_in":300,"issued_at":"2020-01-01T00:00:00Z"}',
    b'\x01Bearer realm="https://auth.r.example/token?x=y",service="r",scope="repository:a/b:pull,push"',
    b'\x02{"errors":[{"code":"DENIED","message":"no","detail":{"a":[1]}}]}',
    (
        b'\x03{"auths":{"https://r.example/v1/":{"auth":"YTpi"},"r.example/a":{"identitytoken":"x"}},'
        b'"credHelpers":{"x":"y"},"credsStore":"none"}'
    ),
)
WORDS = tuple(
    b'"token": "access_token": "expires_in": realm= service= scope= Basic Bearer "errors": "auths": "auth":'
    b' "credsStore": "credHelpers": 1e999 NaN [[[[[[[[ {"a":'.split()
)


class Said:
    """An answer with a body."""

    def __init__(self, status: int, content: bytes) -> None:
        self.status = status
        self.headers = {"Content-Type": "application/json"}
        self._content = content

    def document(self, limit: int) -> bytes:
        return self._content[:limit]


def target(data: bytes) -> None:
    """The first byte chooses who speaks."""
    number, content = (data[0] if data else 0), data[1:]
    try:
        match number % 4:
            case 0:
                _authority(content).header(pulling("a/b"))
            case 1:
                authority = _authority(b'{"token":"t"}', content.decode("latin-1"))
                header = authority.header(pulling("a/b"))
                assert "\n" not in header and "\r" not in header
            case 2:
                error = refusal(Said(400 + number, content), "asking")  # type: ignore[arg-type]
                assert isinstance(error, RegistryError) and str(error) and "\n" not in str(error)
            case _:
                _file(content)
    except Unauthorized as error:
        assert str(error)


def _authority(content: bytes, challenge: str = 'Bearer realm="https://r.example/token"') -> Authority:
    authority = Authority(
        Endpoint.of("r.example"),
        lambda repository: Credential("user", "password"),
        lambda method, url, headers, body: (200, content),
        plain_http=False,
    )
    authority.answer(challenge, pulling("a/b"), "")
    return authority


def _file(content: bytes) -> None:
    fd = os.memfd_create("auth")
    try:
        os.write(fd, content)
        store = CredentialStore((f"/proc/self/fd/{fd}",))
        with patch.dict(os.environ, PATH="/nonexistent"):  # no helper is ever started
            for host in ("r.example", "docker.io"):
                store.get(host, "a/b")
    finally:
        os.close(fd)
