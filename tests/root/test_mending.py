"""`run` and `export` of an image with a damaged blob: it is fetched again on the way (SECURITY.md R16)."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci.layout import Layout
from oci.registry.server import Options, RegistryServer
from tests.builder.cli.damage import DAMAGES, PARTS, damage

pytestmark = pytest.mark.root

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Shop:
    """A store with the image `name`, which a registry has too."""

    def __init__(self, work: Path, name: str) -> None:
        self.root = str(work / "store")
        self.name = name
        (work / "root/bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", work / "root/bin/busybox")
        os.symlink("busybox", work / "root/bin/echo")
        with tarfile.open(work / "root.tar", "w") as archive:
            archive.add(work / "root", ".")
        assert self("import", "-c", 'CMD ["echo", "here"]', str(work / "root.tar"), name).returncode == 0
        assert self("push", name).returncode == 0

    def __call__(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        line = [sys.executable, "-m", "builder.cli.main", "--root", self.root, *args]
        return subprocess.run(
            line, env={**os.environ, "PYTHONPATH": ROOT}, capture_output=True, check=False, timeout=60
        )

    def forget_directories(self) -> None:
        """Blobs are read only where no directory was made of them yet."""
        shutil.rmtree(f"{self.root}/snapshots", ignore_errors=True)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    work = tmp_path_factory.mktemp("mending")
    with RegistryServer(Layout.create(work / "registry"), Options(port=0)) as server:
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        yield Shop(work, f"127.0.0.1:{server.port}/team/app:1")
        server.stop()
        thread.join()


@pytest.mark.parametrize(("part", "how"), list(itertools.product(PARTS, DAMAGES)))
def test_run_and_export(shop: Shop, tmp_path: Path, part: str, how: str) -> None:
    """SECURITY.md R16."""
    shop.forget_directories()
    damage(shop.root, shop.name, part, how)
    ran = shop("run", "--network=none", shop.name)
    assert (ran.returncode, ran.stdout) == (0, b"here\n"), ran
    assert b"it was fetched again from" in ran.stderr
    shop.forget_directories()
    damage(shop.root, shop.name, part, how)
    ran = shop("export", "-o", f"{tmp_path}/files.tar", shop.name)
    assert ran.returncode == 0, ran
    with tarfile.open(tmp_path / "files.tar") as archive:
        assert "bin/echo" in archive.getnames()


def test_what_nobody_has(shop: Shop, tmp_path: Path) -> None:
    """It says so; a container that never began is told as docker tells it, and no file is there."""
    with tarfile.open(tmp_path / "other.tar", "w") as archive:
        archive.add("/bin/busybox", "bin/other")
    for verb in (("run", "--pull=never"), ("export", "-o", f"{tmp_path}/files.tar")):
        assert shop("import", "-c", 'CMD ["/bin/other"]', f"{tmp_path}/other.tar", "lonely").returncode == 0
        shop.forget_directories()
        damage(shop.root, "docker.io/library/lonely:latest", "layer", "flipped")
        ran = shop(*verb, "lonely")
        assert ran.returncode == (125 if verb[0] == "run" else 1), ran
        assert verb[0] == "export" or b"no registry is known to have it: build or load" in ran.stderr, ran
        assert not os.path.exists(tmp_path / "files.tar")
