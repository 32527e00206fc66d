"""`pybuild fsck` from outside, and what every command does with a damaged blob."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oci.layout import Layout
from oci.registry.server import Options, RegistryServer

Pybuild = Any


def damaged_layer(root: str) -> str:
    """Damage the one layer of a store; its digest."""
    for blob in Path(root, "blobs/sha256").iterdir():
        content = blob.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            blob.write_bytes(content[:-9] + bytes([content[-9] ^ 255]) + content[-8:])
            return f"sha256:{blob.name}"
    raise AssertionError("no layer")


@pytest.fixture
def pushed(pybuild: Pybuild, rootfs: str, tmp_path: Path) -> Iterator[str]:
    """The name of an image of the store that a registry has too."""
    layout = Layout.create(tmp_path / "registry")
    with RegistryServer(layout, Options(port=0)) as server:
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        name = f"127.0.0.1:{server.port}/team/app:1"
        pybuild.ok("import", rootfs, name)
        pybuild.ok("push", name)
        yield name
        server.stop()
        thread.join()


def test_fsck(pybuild: Pybuild, rootfs: str) -> None:
    pybuild.ok("import", rootfs, "app")
    ran = pybuild("fsck")
    assert (ran.code, ran.out) == (0, "") and "nothing wrong" in ran.err
    digest = damaged_layer(pybuild.root)
    ran = pybuild("fsck")
    assert ran.code == 1 and f"blob {digest}: " in ran.out and "1 fault" in ran.err
    assert pybuild("fsck", "-q").out == ""
    (row,) = json.loads(pybuild("fsck", "--format", "json").out)
    assert row["what"] == digest and not row["mended"]
    ran = pybuild("fsck", "--repair")
    assert f"{pybuild.root}/quarantine/" in ran.out
    assert os.listdir(f"{pybuild.root}/quarantine") == [digest.replace(":", "-")]
    ran = pybuild("fsck", "--repair")
    assert ran.code == 1 and "nobody is known to have it" in ran.out
    pybuild.ok("import", rootfs, "app")
    assert pybuild("fsck", "--incremental").code == 0


def test_whoever_meets_a_damaged_blob_puts_it_aside(pybuild: Pybuild, rootfs: str) -> None:
    pybuild.ok("import", rootfs, "app")
    digest = damaged_layer(pybuild.root)
    out = f"{pybuild.root}-out.tar"
    ran = pybuild("save", "-o", out, "app")
    assert ran.code != 0 and "is damaged" in ran.err and "put aside" in ran.err and not os.path.exists(out)
    assert os.listdir(f"{pybuild.root}/quarantine") == [digest.replace(":", "-")]
    pybuild.ok("import", rootfs, "app")
    pybuild.ok("save", "-o", out, "app")


@pytest.mark.parametrize("what", ["layer", "everything"])
def test_a_pull_mends_what_is_damaged(pybuild: Pybuild, pushed: str, what: str) -> None:
    if what == "layer":
        damaged_layer(pybuild.root)
    else:
        for blob in Path(pybuild.root, "blobs/sha256").iterdir():
            blob.write_bytes(blob.read_bytes()[:-1])
    assert pybuild("fsck").code == 1
    ran = pybuild("pull", pushed)
    assert ran.code == 0 and "was damaged and is put aside" in ran.err
    assert pybuild("fsck").code == 0
    assert "damaged" not in pybuild("pull", pushed).err
