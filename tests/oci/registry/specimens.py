"""Images for registries, clients that never really wait, and what stores hold afterwards."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from chaos import Proxy
from small_registry import Registry

from oci import media_types, platforms
from oci.blobs import BlobStore
from oci.image import Image
from oci.model import Descriptor, ImageConfig, Platform
from oci.reference import Reference
from oci.registry.client import Client
from oci.registry.patience import Patience, Stop


@dataclass
class Waiting:
    """Time that passes when somebody sleeps, and never otherwise slower than the real one."""

    slept: list[float] = field(default_factory=list)
    ahead: float = 0.0

    def clock(self) -> float:
        return time.monotonic() + self.ahead

    def sleep(self, seconds: float, stop: Stop) -> None:
        self.slept.append(seconds)
        self.ahead += seconds


CALM = Patience(connect=60.0, answer=60.0, commit=60.0, window=60.0)
"""Timeouts that no busy machine reaches: what comes late is not for a test to count as lost."""
BRISK = Patience(connect=60.0, answer=1.0, commit=60.0, window=0.2, slowest=2000.0)
"""Timeouts that are to be reached, as a test can bear them. One more attempt must do no harm."""

MakeClient = Callable[..., Client]


@dataclass(frozen=True)
class Scene:
    """All that a transfer takes: a client, a registry behind a proxy that spoils, `image` in `store`, and a
    store to pull into."""

    client: Client
    proxy: Proxy
    registry: Registry
    store: BlobStore
    image: Image
    other: BlobStore

    def publish(self) -> str:
        """Push the image past the proxy; the digest of its largest layer."""
        self.client.push(self.store, self.image.descriptor, [named(self.registry.address)])
        return str(self.image.layers[0].digest)

    def pull(self) -> None:
        """Pull it through the proxy: it comes whole."""
        self.client.pull(named(self.proxy.address), self.other, platforms.host())
        assert visible(self.other) == everything(self.image)


def noise(store: BlobStore, *sizes: int, seed: int = 1, platform: Platform | None = None) -> Image:
    """An image whose layers are bytes of no meaning."""
    contents = [random.Random(seed + size).randbytes(size) for size in sizes]
    layers = tuple(store.put(media_types.OCI_LAYER, content) for content in contents)
    config = ImageConfig(platform or platforms.host(), diff_ids=tuple(layer.digest for layer in layers))
    image = Image.of(config, layers)
    image.write(store)
    return image


def named(address: str, rest: str = "app:v1") -> Reference:
    return Reference.parse(f"{address}/{rest}")


def visible(store: BlobStore) -> set[str]:
    """Every blob of a store; each of them is verified."""
    for digest in store:
        store.verify(digest)
    return {str(digest) for digest in store}


def everything(image: Image) -> set[str]:
    return {str(item.digest) for item in (*image.layers, image.manifest.value.config, image.descriptor)}


def plain(descriptor: Descriptor) -> tuple[str, str, int]:
    return descriptor.media_type, str(descriptor.digest), descriptor.size
