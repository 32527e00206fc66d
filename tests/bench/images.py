"""Images for the registry scenarios, as image layouts that every tool reads; made without our own code."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import multiprocessing
import os
import platform
import random
import tarfile
from collections.abc import Callable, Iterator

from workarea import WorkArea

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

BIG_LAYERS, BIG_BYTES = 8, 125_000_000
MANY_LAYERS, FILES_IN_A_LAYER = 40, 100


def made(make: Callable[[WorkArea], None], area: WorkArea) -> None:
    """Make an image in a process of its own: a process's peak of memory counts for those it starts too."""
    process = multiprocessing.get_context("fork").Process(target=make, args=(area,))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{make.__name__}: exit code {process.exitcode}")


def one_gigabyte(area: WorkArea) -> None:
    """1 GB in 8 layers that nothing compresses: the layout `layout-big`, with the tag `big`."""

    def layers() -> Iterator[bytes]:
        for number in range(BIG_LAYERS):
            files = [(f"data/{number}.bin", random.Random(number).randbytes(BIG_BYTES))]
            yield _layer(files, level=0)

    _layout(area, "big", layers())


def forty_layers(area: WorkArea) -> None:
    """40 layers of 100 small files each, spread over directories that all layers share: `layout-many`."""
    chance = random.Random(40)
    words = [chance.randbytes(3).hex() for _ in range(500)]

    def layers() -> Iterator[bytes]:
        for number in range(MANY_LAYERS):
            files = []
            for file in range(FILES_IN_A_LAYER):
                text = " ".join(chance.choices(words, k=chance.randrange(20, 1500)))
                files.append((f"usr/share/part{file // 10}/of{number:02}/file{file:02}", text.encode()))
            yield _layer(files, level=6)

    _layout(area, "many", layers())


def _layer(files: list[tuple[str, bytes]], level: int) -> bytes:
    """The tar of some files and the directories they need."""
    out = io.BytesIO()
    made: set[str] = set()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=level, mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, content in files:
                for parent in _parents(name):
                    if parent not in made:
                        made.add(parent)
                        tar.addfile(_entry(parent, tarfile.DIRTYPE, 0o755))
                entry = _entry(name, tarfile.REGTYPE, 0o644)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


def _parents(name: str) -> Iterator[str]:
    parts = name.split("/")[:-1]
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.mtime = kind, mode, 1_700_000_000
    return entry


def _layout(area: WorkArea, name: str, layers: Iterator[bytes]) -> None:
    root = area.directory(f"layout-{name}")
    descriptors, diff_ids = [], []
    for layer in layers:
        descriptors.append(_blob(root, LAYER, layer))
        diff_ids.append(f"sha256:{hashlib.sha256(gzip.decompress(layer)).hexdigest()}")
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": f"layer {number}"} for number in range(len(diff_ids))],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _blob(root, CONFIG, _json(config)),
        "layers": descriptors,
    }
    entry = _blob(root, MANIFEST, _json(manifest))
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{**entry, "annotations": {"org.opencontainers.image.ref.name": name}}],
    }
    for path, value in (("oci-layout", {"imageLayoutVersion": "1.0.0"}), ("index.json", index)):
        with open(os.path.join(root, path), "wb") as file:
            file.write(_json(value))


def _blob(root: str, kind: str, content: bytes) -> dict[str, object]:
    digest = hashlib.sha256(content).hexdigest()
    directory = os.path.join(root, "blobs", "sha256")
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, digest), "wb") as file:
        file.write(content)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
