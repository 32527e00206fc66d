"""Stores, layouts and small real images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from oci import platforms
from oci.blobs import BlobStore
from oci.compress import codec
from oci.image import Image
from oci.layer import Layer, LayerSink
from oci.layout import Layout
from oci.model import History, Platform, RunConfig
from oci.tar import Entry, Kind, TarWriter

MakeLayer = Callable[..., Layer]
MakeImage = Callable[..., Image]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.create(tmp_path / "layout")


@pytest.fixture
def store(layout: Layout) -> BlobStore:
    return layout.blobs


@pytest.fixture
def make_layer() -> MakeLayer:
    """A layer of small files, in a store."""

    def make(store: BlobStore, files: dict[str, bytes], packed: str = "gzip") -> Layer:
        with LayerSink(codec(packed), store) as sink:
            tar = TarWriter(sink)
            for name, content in files.items():
                tar.add(Entry(name.encode(), Kind.FILE, size=len(content)), content)
            tar.finish()
            return sink.finish()

    return make


@pytest.fixture
def make_image(make_layer: MakeLayer) -> MakeImage:
    """An image of two layers, stored; its platform and the packing of its layers are the caller's choice."""

    def make(
        store: BlobStore, text: bytes = b"hello", platform: Platform | None = None, packed: str = "gzip"
    ) -> Image:
        image = Image.scratch(platform or platforms.host())
        for name in ("a", "b"):
            layer = make_layer(store, {name: text + name.encode()}, packed)
            image = image.append(layer, History(created="2024-01-01T00:00:00Z", created_by=f"COPY {name}"))
        run = RunConfig(cmd=("/a",), env=("PATH=/bin",))
        image = image.with_config(replace(image.config.value, config=run, created="2024-01-01T00:00:00Z"))
        image.write(store)
        return image

    return make
