"""What the tests with other tools share. All of it is made on first use and gone after the session.

| fixture | what it is |
|---|---|
| `memory_dir` | a directory on memory (or the temporary directory) for stores, archives and trees |
| `docker` | a client bound to a private dockerd: no bridge, so builds and runs take `--network=host` |
| `pybuild` | the installed command with a store of its own, shared by the session |
| `busybox_archive` | `busybox-test:latest` (judges/bases.py) as a `docker save` archive on disk |
| `busybox_image` | that image loaded into the store of `pybuild`; its value is the name |
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator

import pytest
from judges.bases import BUSYBOX, image_archive
from judges.dockerd import Docker, private_docker
from judges.pybuild import Pybuild


@pytest.fixture(scope="session")
def memory_dir() -> Iterator[str]:
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    # podman makes an image's name of a path in it: of mkdtemp's letters, not every row is one.
    directory = os.path.join(fast or tempfile.gettempdir(), f"pybuild-interop-{secrets.token_hex(6)}")
    os.mkdir(directory, 0o700)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def docker(memory_dir: str) -> Iterator[Docker]:
    with private_docker(os.path.join(memory_dir, "docker")) as client:
        yield client


@pytest.fixture(scope="session")
def pybuild(memory_dir: str) -> Pybuild:
    return Pybuild(os.path.join(memory_dir, "store"))


@pytest.fixture(scope="session")
def busybox_archive(memory_dir: str) -> str:
    path = os.path.join(memory_dir, "busybox-test.tar")
    with open(path, "wb") as out:
        out.write(image_archive(BUSYBOX))
    return path


@pytest.fixture(scope="session")
def busybox_image(pybuild: Pybuild, busybox_archive: str) -> str:
    pybuild.run("load", "--input", busybox_archive)
    return BUSYBOX
