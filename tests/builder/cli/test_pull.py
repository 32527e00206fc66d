"""`pybuild pull` and `pybuild tags`: what they say of what is not as it was asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.registries import hint
from oci import platforms
from oci.errors import ManifestUnknown, Unauthorized
from oci.layout import Layout
from oci.reference import Reference
from oci.registry.server import Options, RegistryServer

Pybuild = Any
OTHER = "linux/riscv64" if platforms.host().architecture != "riscv64" else "linux/amd64"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    with RegistryServer(Layout.create(tmp_path / "registry"), Options(port=0)) as server:
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.port}"
        server.stop()
        thread.join()


def test_an_image_that_is_for_another_platform_only(pybuild: Pybuild, rootfs: str, host: str) -> None:
    name = f"{host}/team/app:1"
    pybuild.ok("import", rootfs, name)
    pybuild.ok("push", name)
    ran = pybuild("pull", "--platform", OTHER, name)
    said = f"warning: {name} is for {platforms.host()}, not for {OTHER}: there is no other image"
    assert ran.code == 0 and said in ran.err, ran
    for line in (("--platform", str(platforms.host())), (), ("--all-platforms",)):
        assert "warning" not in pybuild("pull", *line, name).err


def test_nobody_is_told_to_check_a_name_that_is_right() -> None:
    """A file of passwords that cannot be read and a layer that is gone have nothing to do with names."""
    name = Reference.parse("r.example/app:1")
    assert hint(Unauthorized("auth.json: not valid JSON"), name) == ""
    assert hint(Unauthorized("401", status=401), name).endswith("pybuild login r.example")
    assert hint(ManifestUnknown("404", codes=("BLOB_UNKNOWN",)), name) == ""
    said = "pybuild tags r.example/app lists what is there"
    assert hint(ManifestUnknown("404", codes=("MANIFEST_UNKNOWN",)), name) == said


def test_the_tags_of_a_repository_that_is_not_there(pybuild: Pybuild, host: str) -> None:
    ran = pybuild("tags", f"{host}/no/such")
    assert ran.code == 3 and "is the name right?" in ran.err and "lists what is there" not in ran.err, ran
    assert f"pybuild tags {host}/no/such lists what is there" in pybuild("pull", f"{host}/no/such:1").err
