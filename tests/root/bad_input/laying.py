"""Makes good and bad things: context files, tar archives, images in both archive forms."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from typing import Any

OCI = "application/vnd.oci.image"


def files(texts: Mapping[str, str]) -> Callable[[], None]:
    """Lays text files into the working directory."""

    def make() -> None:
        for path, text in texts.items():
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)

    return make


def written(path: str, content: Callable[[], bytes]) -> Callable[[], None]:
    """Lays one file, whose bytes are made then."""

    def make() -> None:
        with open(path, "wb") as file:
            file.write(content())

    return make


def tar(*entries: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    """A tar of files (name and content) or of entries as they are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for each in entries:
            if isinstance(each, tarfile.TarInfo):
                archive.addfile(each, io.BytesIO(b"x" * each.size))
            else:
                entry = tarfile.TarInfo(each[0])
                entry.size, entry.mode = len(each[1]), 0o755
                archive.addfile(entry, io.BytesIO(each[1]))
    return out.getvalue()


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    """A link of either kind."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def resealed(archive: bytes, at: int, piece: bytes) -> bytes:
    """An archive with bytes of its first header replaced, and the header's checksum made right again."""
    header = bytearray(archive[:512])
    header[at : at + len(piece)] = piece
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + archive[512:]


def text(value: object) -> bytes:
    """A JSON document."""
    return json.dumps(value).encode()


def hex_of(content: bytes) -> str:
    """Its sha256."""
    return hashlib.sha256(content).hexdigest()


LAYER = tar(("hello", b"hello\n"))


def config(*layers: bytes) -> dict[str, Any]:
    """An image's config."""
    diff_ids = [f"sha256:{hex_of(layer)}" for layer in layers]
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }


def docker_archive(
    *,
    manifest: bytes = b"",
    settings: bytes = b"",
    config_name: str = "",
    layer: bytes = LAYER,
    more: tuple[tuple[str, bytes] | tarfile.TarInfo, ...] = (),
) -> bytes:
    """A good `docker save`, but for what is given."""
    settings = settings or text(config(LAYER))
    config_name = config_name or hex_of(settings) + ".json"
    manifest = manifest or text([{"Config": config_name, "RepoTags": ["bad:1"], "Layers": ["layer.tar"]}])
    return tar((config_name, settings), ("layer.tar", layer), ("manifest.json", manifest), *more)


def descriptor(kind: str, content: bytes, **more: Any) -> dict[str, Any]:
    """A pointer to `content`."""
    return {"mediaType": kind, "digest": f"sha256:{hex_of(content)}", "size": len(content), **more}


def oci_archive(
    *,
    change: Callable[[dict[str, Any]], None] = lambda manifest: None,
    rewrite: Callable[[bytes], bytes] = lambda manifest: manifest,
    settings: dict[str, Any] | None = None,
    layer_blob: tuple[tuple[str, bytes], ...] = ((hex_of(LAYER), LAYER),),
    version: str = "1.0.0",
) -> bytes:
    """A good OCI archive, but for what is given: `change` edits the manifest, `rewrite` its bytes."""
    settings_bytes = text(settings or config(LAYER))
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": descriptor(f"{OCI}.config.v1+json", settings_bytes),
        "layers": [descriptor(f"{OCI}.layer.v1.tar", LAYER)],
    }
    change(manifest)
    manifest_bytes = rewrite(text(manifest))
    name = {"org.opencontainers.image.ref.name": "bad:1"}
    pointer = descriptor(f"{OCI}.manifest.v1+json", manifest_bytes, annotations=name)
    blobs = [(hex_of(settings_bytes), settings_bytes), (hex_of(manifest_bytes), manifest_bytes), *layer_blob]
    return tar(
        ("oci-layout", text({"imageLayoutVersion": version})),
        ("index.json", text({"schemaVersion": 2, "manifests": [pointer]})),
        *((f"blobs/sha256/{digest}", content) for digest, content in blobs),
    )
