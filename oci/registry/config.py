"""How registries are reached: mirrors, plain http, certificates, per host, in the shape of BuildKit's TOML.

    [registry."docker.io"]
    mirrors = ["mirror.example:5000", "cache.example/hub"]   # in order; a path goes before the repository's
    fallback = false                                         # never ask docker.io itself

    [registry."mirror.example:5000"]
    http = true                     # plain http
    insecure = true                 # https without verification
    ca = ["/etc/ssl/mirror.pem"]
    keypair = [{ key = "/etc/ssl/key.pem", cert = "/etc/ssl/cert.pem" }]
    realms = ["login.other.example"]   # token servers on other sites that may see this registry's password

    chunk = 50000000                   # pushes send no more bytes than this in one request

`fallback`, `realms` and `chunk` are ours; the rest is BuildKit's.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any

from oci.data import dataclass
from oci.errors import InvalidDocument
from oci.reference import DEFAULT_DOMAIN, Reference

DOCKER_HUB = "registry-1.docker.io"
"""Where `docker.io` really answers."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A client certificate: paths of PEM files."""

    cert: str
    key: str


@dataclass(frozen=True, slots=True)
class HostConfig:
    """One registry host. `http` is None when nobody said anything, which loopback hosts make use of."""

    mirrors: tuple[str, ...] = ()
    fallback: bool = True
    http: bool | None = None
    insecure: bool = False
    ca: tuple[str, ...] = ()
    keypair: tuple[KeyPair, ...] = ()
    realms: tuple[str, ...] = ()
    chunk: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place to ask for a repository.

    `host` is the registry as people and credential files name it, `address` the host[:port] to connect to,
    `prefix` a mirror's path with a trailing slash. `mirrors` is the registry it stands in for, "" if none.
    """

    host: str
    address: str
    prefix: str = ""
    mirrors: str = ""

    @classmethod
    def of(cls, host: str) -> Endpoint:
        """The registry itself."""
        return cls(host, DOCKER_HUB if host == DEFAULT_DOMAIN else host)


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """What is known about hosts. `tls_verify` False, one call's own word, makes every host `insecure`; `ca`
    and `keypair` are one call's own certificates, for every host."""

    hosts: Mapping[str, HostConfig] = field(default_factory=dict, hash=False)
    tls_verify: bool | None = None
    ca: tuple[str, ...] = ()
    keypair: tuple[KeyPair, ...] = ()

    @classmethod
    def load(cls, path: str | None) -> RegistryConfig:
        """Read the file; without one, nothing is configured. Raises InvalidDocument with file and key."""
        if path is None:
            return cls()
        import tomllib

        try:
            with open(path, "rb") as file:
                table = tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidDocument(f"{path}: not valid TOML: {error}") from None
        return cls.of(table, path)

    @classmethod
    def of(cls, table: Mapping[str, Any], where: str = "config") -> RegistryConfig:
        """The `registry` part of a parsed file; other parts are not ours to judge."""
        registries = _Table(table.get("registry", {}), f"{where}: registry")
        return cls(
            {host: _host(_Table(registries[host], f'{where}: registry."{host}"')) for host in registries}
        )

    def with_directory(self, directory: str) -> RegistryConfig:
        """The same with the certificates of a directory in the form of Docker's `certs.d`, for every host.

        Raises InvalidDocument for a directory that cannot be read, or holds a certificate without its key.
        """
        ca, keypair = _tls_directory(directory, "certificates")
        for pair in keypair:
            if not os.path.exists(pair.key):
                raise InvalidDocument(f"{pair.cert} has no key beside it: {pair.key} is not there")
        return replace(self, ca=tuple(ca), keypair=tuple(keypair))

    def host(self, host: str) -> HostConfig:
        """What holds for `host` (host[:port])."""
        found = self.hosts.get(host, HostConfig())
        if self.ca or self.keypair:
            found = replace(found, ca=(*found.ca, *self.ca), keypair=(*found.keypair, *self.keypair))
        if self.tls_verify is None:
            return found
        http = None if found.http and self.tls_verify else found.http
        return replace(found, insecure=not self.tls_verify, http=http)

    def endpoints(self, reference: Reference, *, write: bool = False) -> tuple[Endpoint, ...]:
        """Where to look for an image, in order. Only the registry itself is written to."""
        own = Endpoint.of(reference.domain)
        found = self.host(reference.domain)
        if write or not found.mirrors:
            return (own,)
        mirrors = tuple(_mirror(text, reference.domain) for text in found.mirrors)
        return (*mirrors, own) if found.fallback else mirrors

    def schemes(self, host: str) -> tuple[str, ...]:
        """`https` and `http` in the order to try. Plain http needs a word for it, or a loopback host; those
        are asked in plain text first, as many servers never answer TLS that they do not understand."""
        found = self.host(host)
        if found.http is not None and not found.insecure:
            return ("http",) if found.http else ("https",)
        if found.http is not False and found.insecure:
            return ("https", "http")
        unsaid = not (found.ca or found.keypair or self.tls_verify) and found.http is None
        return ("http", "https") if unsaid and is_loopback(host) else ("https",)


def _mirror(text: str, registry: str) -> Endpoint:
    host, _, path = text.partition("/")
    return Endpoint(
        host, Endpoint.of(host).address, f"{path.strip('/')}/" if path.strip("/") else "", registry
    )


def is_loopback(host: str) -> bool:
    """Whether host[:port] names this machine."""
    name = host_name(host)
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = ip_literal(name)
    return address is not None and address.is_loopback


def host_name(address: str) -> str:
    """The host of host[:port], lower case, without the brackets of IPv6; a bare IPv6 address is one too."""
    if address.startswith("["):
        return address[1:].partition("]")[0].lower()
    if address.count(":") > 1:
        return address.lower()
    return address.partition(":")[0].lower()


def ip_literal(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address `name` spells (an IPv4 one within IPv6 is taken out), None for other names."""
    try:
        address = ipaddress.ip_address(name.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


class _Table:
    """A TOML table being read, with messages that name the key."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise InvalidDocument(f"{where}: expected a table, not {value!r}")
        self.value: dict[str, Any] = value
        self.where = where

    def __iter__(self) -> Any:
        return iter(self.value)

    def __getitem__(self, key: str) -> Any:
        return self.value[key]

    def flag(self, key: str) -> bool | None:
        value = self.value.get(key)
        if value is not None and not isinstance(value, bool):
            raise InvalidDocument(f"{self.where}.{key}: expected true or false, not {value!r}")
        return value

    def size(self, key: str) -> int:
        value = self.value.get(key, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise InvalidDocument(f"{self.where}.{key}: expected a number of bytes, not {value!r}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.value.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise InvalidDocument(f"{self.where}.{key}: expected a list of strings, not {value!r}")
        return tuple(value)

    def known(self, *keys: str) -> None:
        for key in self.value:
            if key not in keys:
                raise InvalidDocument(f"{self.where}.{key}: no such key; known are {', '.join(keys)}")


def _host(table: _Table) -> HostConfig:
    table.known("mirrors", "fallback", "http", "insecure", "ca", "keypair", "realms", "chunk", "tlsconfigdir")
    ca, keypair = list(table.texts("ca")), list(_keypairs(table))
    for directory in table.texts("tlsconfigdir"):
        more_ca, more_pairs = _tls_directory(directory, f"{table.where}.tlsconfigdir")
        ca += more_ca
        keypair += more_pairs
    return HostConfig(
        mirrors=tuple(_mirror_text(text, table.where) for text in table.texts("mirrors")),
        fallback=table.flag("fallback") is not False,
        http=table.flag("http"),
        insecure=bool(table.flag("insecure")),
        ca=tuple(ca),
        keypair=tuple(keypair),
        realms=table.texts("realms"),
        chunk=table.size("chunk"),
    )


def _mirror_text(text: str, where: str) -> str:
    if "://" in text or "@" in text or not text.partition("/")[0]:
        raise InvalidDocument(f"{where}.mirrors: {text!r}; expected host[:port][/path], without a scheme")
    return text


def _keypairs(table: _Table) -> list[KeyPair]:
    value = table.value.get("keypair", [])
    items = [
        _Table(item, f"{table.where}.keypair") for item in (value if isinstance(value, list) else [value])
    ]
    for item in items:
        item.known("key", "cert")
        if not all(isinstance(item.value.get(key), str) for key in ("key", "cert")):
            raise InvalidDocument(f"{item.where}: expected `key` and `cert`, both paths")
    return [KeyPair(item["cert"], item["key"]) for item in items]


def _tls_directory(directory: str, where: str) -> tuple[list[str], list[KeyPair]]:
    """A directory as Docker's `certs.d` has them: *.crt are authorities, NAME.cert goes with NAME.key."""
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise InvalidDocument(f"{where}: {directory}: {error.strerror}") from None
    paths = [os.path.join(directory, name) for name in names]
    pairs = [KeyPair(path, path.removesuffix(".cert") + ".key") for path in paths if path.endswith(".cert")]
    return [path for path in paths if path.endswith(".crt")], pairs
