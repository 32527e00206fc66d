"""Image layouts whose documents lie, contradict each other, or lack what they point at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bad_input.case import Case
from bad_input.laying import LAYER, config, hex_of, oci_archive, written

SCHEMA = "{found[0].path}"


def _case(name: str, content: Callable[[], bytes], says: tuple[str, ...], check: str) -> Case:
    return Case(name, written("bad.tar", content), ("load", "-i", "bad.tar"), says, check)


def _put(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest.update(values)


def _layer(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["layers"][0].update(values)


CASES = (
    _case(
        "unknown-layout-version",
        lambda: oci_archive(version="9.0.0"),
        ("layout.imageLayoutVersion: '9.0.0' is not one of ['1.0.0']",),
        SCHEMA,
    ),
    _case(
        "layer-not-there",
        lambda: oci_archive(layer_blob=()),
        (f"the archive lacks sha256:{hex_of(LAYER)}",),
        "the archive lacks",
    ),
    _case(
        "wrong-size",
        lambda: oci_archive(change=_layer(size=len(LAYER) + 1)),
        (f"has {len(LAYER)} bytes; its descriptor promises {len(LAYER) + 1}",),
        "{item.digest} has",
    ),
    _case(
        "bytes-of-another-digest",
        lambda: oci_archive(layer_blob=((hex_of(LAYER), LAYER.replace(b"hello\n", b"HELLO\n")),)),
        (f"expected the bytes of sha256:{hex_of(LAYER)}",),
        "expected the bytes of {expected}, got {actual} ({self.size}",
    ),
    _case(
        "a-key-twice",
        lambda: oci_archive(rewrite=lambda raw: raw.replace(b"{", b'{"layers": [], ', 1)),
        ("manifest", "key 'layers' stands twice in one object"),
        "stands twice in one object",
    ),
    _case(
        "manifest-and-index-at-once",
        lambda: oci_archive(change=_put(manifests=[])),
        ("manifest.manifests: must not be here",),
        SCHEMA,
    ),
    _case(
        "old-schema",
        lambda: oci_archive(change=_put(schemaVersion=1)),
        ("manifest.schemaVersion: 2 was expected",),
        SCHEMA,
    ),
    _case(
        "more-diff-ids-than-layers",
        lambda: oci_archive(settings=config(LAYER, LAYER)),
        ("config.rootfs.diff_ids: 2, but the manifest has 1 layers",),
        "config.rootfs.diff_ids: {",
    ),
    _case(
        "fields-of-the-wrong-kind",
        lambda: oci_archive(settings=config(LAYER) | {"config": {"Env": "A=b"}}),
        ("config.config.Env: expected an array, not str",),
        "expected an array, not",
    ),
)
