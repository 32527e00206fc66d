"""What `pybuild registry serve` fetches from elsewhere: our own client, as the server wants to see it."""

from __future__ import annotations

import sys
from dataclasses import replace
from urllib.parse import urlsplit

from builder import origins
from builder.cli.session import Session
from builder.config import registries
from builder.errors import UsageError
from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import InvalidReference
from oci.layout import Layout
from oci.model import Descriptor
from oci.reference import Reference
from oci.registry.auth import CredentialStore
from oci.registry.client import Client
from oci.registry.config import HostConfig, RegistryConfig
from oci.registry.moving import Watch

_HUB = ("registry-1.docker.io", "index.docker.io")


class Registry:
    """Fetches from one registry with this user's configuration and credentials."""

    def __init__(self, session: Session, url: str) -> None:
        self._host, self._prefix, config = _configured(url, registries(session.config))
        self._client = Client(config, CredentialStore.default(), warn=_warn)

    def fetch_manifest(self, repository: str, reference: str) -> tuple[str, bytes]:
        """A manifest by tag or digest."""
        separator = "@" if ":" in reference else ":"
        descriptor, content = self._client.fetch_manifest(
            self._reference(f"{repository}{separator}{reference}")
        )
        return descriptor.media_type, content

    def has_blob(self, repository: str, descriptor: Descriptor) -> bool:
        """Whether it has a blob."""
        return self._client.has_blob(self._reference(repository), descriptor)

    def fetch_blob(self, repository: str, descriptor: Descriptor, store: BlobStore, watch: Watch) -> None:
        """A blob into the store, verified."""
        self._client.fetch_blob(self._reference(repository), descriptor, store, watch)

    def close(self) -> None:
        """End what is under way."""
        self._client.interrupt()

    def _reference(self, text: str) -> Reference:
        return Reference.parse(f"{self._host}/{self._prefix}{text}")


class Places:
    """Where the layers of sparse images are (docs/decisions/0008), and how they are fetched."""

    def __init__(self, session: Session, layout: Layout) -> None:
        self._layout = layout
        self._client = Client(registries(session.config), CredentialStore.default(), warn=_warn)

    def places(self, digest: Digest) -> tuple[Reference, ...]:
        """Repositories that have a blob."""
        return origins.places(self._layout, {digest}).get(digest, ())

    def has_blob(self, place: Reference, descriptor: Descriptor) -> bool:
        """Whether a repository has a blob."""
        return self._client.has_blob(place, descriptor)

    def fetch_blob(self, place: Reference, descriptor: Descriptor, store: BlobStore, watch: Watch) -> None:
        """A blob into the store, verified."""
        self._client.fetch_blob(place, descriptor, store, watch)

    def close(self) -> None:
        """End what is under way."""
        self._client.interrupt()


def _configured(url: str, config: RegistryConfig) -> tuple[str, str, RegistryConfig]:
    """Host, path prefix and configuration that a URL, or a bare host, stands for."""
    parts = urlsplit(url if "://" in url else f"https://{url}")
    host = "docker.io" if parts.netloc in _HUB else parts.netloc
    prefix = parts.path.strip("/")
    try:
        right = parts.scheme in ("http", "https") and Reference.parse(f"{host}/a/b").domain == host
    except InvalidReference:
        right = False
    if not right or parts.username or parts.query or parts.fragment:
        raise UsageError(f"--proxy {url!r} is no registry", hint="e.g. https://registry.example:5000")
    if "://" in url:
        known = config.hosts.get(host, HostConfig())
        config = replace(config, hosts={**config.hosts, host: replace(known, http=parts.scheme == "http")})
    return host, f"{prefix}/" if prefix else "", config


def _warn(message: str) -> None:
    sys.stderr.write(f"warning: {message}\n")
