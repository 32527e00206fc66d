"""Registries in memory, a proxy that spoils, and clients that never really wait."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos import Proxy, chaos
from small_registry import Registry, serving
from specimens import CALM, MakeClient, Scene, Waiting, noise

from oci.blobs import BlobStore
from oci.image import Image
from oci.layout import Layout
from oci.registry.client import Client


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory where flushing costs nothing."""
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="pybuild-registry-", dir=fast) as path:
        yield Path(path)


@pytest.fixture
def layout(memory: Path) -> Layout:
    return Layout.create(memory / "layout")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving(Registry()) as registry:
        yield registry


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Proxy]:
    with chaos(registry.address) as proxy:
        yield proxy


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def make_client(waiting: Waiting, warned: list[str]) -> Iterator[MakeClient]:
    clients: list[Client] = []

    def make(*args: object, **options: object) -> Client:
        given = {"patience": CALM, "sleep": waiting.sleep, "clock": waiting.clock, "warn": warned.append}
        clients.append(Client(*args, **{**given, **options}))  # type: ignore[arg-type]
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(make_client: MakeClient) -> Client:
    return make_client()


@pytest.fixture
def other(memory: Path) -> BlobStore:
    """A second store, empty."""
    return Layout.create(memory / "other").blobs


@pytest.fixture
def image(store: BlobStore) -> Image:
    """Three layers of noise, of 200, 70 and 0.1 KB, in `store`."""
    return noise(store, 200_000, 70_000, 100)


@pytest.fixture
def scene(
    client: Client, proxy: Proxy, registry: Registry, store: BlobStore, image: Image, other: BlobStore
) -> Scene:
    return Scene(client, proxy, registry, store, image, other)
