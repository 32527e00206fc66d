"""pybuild inside containers that others made, without extra privilege: what `doctor` says there is what a
build gets.

The container's image is nothing but names of directories: the machine's own /usr (with its Python) and this
checkout are mounted into it read-only.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from judges.dockerd import Docker
from judges.podman import forget_podman

pytestmark = pytest.mark.interop

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMAGE = "nested:1"
USER = 1000
SCRIPT = """\
set -e
export PYTHONPATH=$PACKAGES PYTHONDONTWRITEBYTECODE=1 HOME=/work PATH=/usr/bin:/usr/sbin
P="$PYTHON -m builder.cli.main --root /work/store"
$P load -i /work/busybox.tar >&2
$P doctor --format json > /work/doctor.json || true
for name in copy run; do
  if $P build --network=none --progress plain -o type=oci,dest=/work/$name.tar -t $name \
    -f /work/$name.Dockerfile /work/context > /work/$name.out 2>&1
  then echo 0 > /work/$name.code; else echo $? > /work/$name.code; fi
done
"""
COPY = "FROM busybox-test\nCOPY file /\nENV A=b\n"
RUN = (
    "FROM busybox-test\n"
    "RUN touch /given && chown 1234:1234 /given && chmod 4755 /given\n"
    "USER 1234:1234\nWORKDIR /tmp/here\nRUN touch mine\n"
)


@dataclass(frozen=True, slots=True)
class Result:
    """What came out of one container: `doctor`'s JSON, and of each build its exit code, words and files."""

    doctor: dict[str, Any]
    codes: dict[str, int]
    said: dict[str, str]
    owners: dict[str, tuple[int, int, int]]


Inside = Callable[..., Result]


@pytest.fixture
def room(memory_dir: str, busybox_archive: str) -> Iterator[str]:
    """A directory that a container gets as /work."""
    path = tempfile.mkdtemp(prefix="nested-", dir=memory_dir)
    os.chmod(memory_dir, 0o755)
    os.mkdir(f"{path}/context")
    for name, text in {
        "script": SCRIPT,
        "context/file": "hello\n",
        "copy.Dockerfile": COPY,
        "run.Dockerfile": RUN,
    }.items():
        with open(f"{path}/{name}", "w") as file:
            file.write(text)
    shutil.copy(busybox_archive, f"{path}/busybox.tar")
    yield path


def image() -> bytes:
    """An image of directories and of the links that lead to /usr, as one tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("etc", "usr", "tmp", "work", "proc", "sys", "dev", "run", "checkout"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for name in ("bin", "lib", "lib64", "sbin"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(entry)
        text = f"root:x:0:0::/:/bin/sh\nuser:x:{USER}:{USER}::/:/bin/sh\n".encode()
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    return out.getvalue()


def mounts(room: str) -> list[str]:
    """Options that show a container the interpreter, the code, and its room."""
    python = os.path.realpath(sys.executable)
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    places = {f"{room}": "/work", CHECKOUT: CHECKOUT, packages: packages, "/usr": "/usr"}
    if not python.startswith("/usr/"):
        places[sys.base_prefix] = sys.base_prefix
    found = [
        f"--volume={source}:{target}{'' if target == '/work' else ':ro'}" for source, target in places.items()
    ]
    return [*found, f"--env=PYTHON={python}", f"--env=PACKAGES={CHECKOUT}:{packages}"]


def result(room: str) -> Result:
    def text(name: str) -> str:
        with open(f"{room}/{name}") as file:
            return file.read()

    owners: dict[str, tuple[int, int, int]] = {}
    if os.path.exists(f"{room}/run.tar"):
        owners = layers(f"{room}/run.tar")
    return Result(
        json.loads(text("doctor.json")),
        {name: int(text(f"{name}.code")) for name in ("copy", "run")},
        {name: text(f"{name}.out") for name in ("copy", "run")},
        owners,
    )


def layers(path: str) -> dict[str, tuple[int, int, int]]:
    """Mode and owner of what the layers of an OCI archive hold."""
    found = {}
    with tarfile.open(path) as archive:
        index = json.load(archive.extractfile("index.json"))  # type: ignore[arg-type]
        digest = index["manifests"][0]["digest"].partition(":")[2]
        manifest = json.load(archive.extractfile(f"blobs/sha256/{digest}"))  # type: ignore[arg-type]
        for layer in manifest["layers"]:
            blob = archive.extractfile(f"blobs/sha256/{layer['digest'].partition(':')[2]}")
            with tarfile.open(fileobj=blob) as tar:
                found |= {each.name: (each.mode, each.uid, each.gid) for each in tar}
    return found


@pytest.fixture
def in_docker(docker: Docker, room: str) -> Inside:
    docker.run("import", "-", IMAGE, stdin=image())

    def run(*options: str) -> Result:
        docker.run("run", "--rm", "--network=host", *options, *mounts(room), IMAGE, "/bin/sh", "/work/script")
        return result(room)

    return run


@pytest.fixture
def in_podman(room: str, memory_dir: str) -> Iterator[Inside]:
    runroot = tempfile.mkdtemp(prefix="nested-", dir="/tmp")
    podman = ["podman", "--root", f"{runroot}/root", "--runroot", runroot]
    podman += ["--tmpdir", f"{runroot}/tmp", "--storage-driver", "vfs", "--runtime", "runc"]
    podman += ["--cgroup-manager", "cgroupfs", "--events-backend", "none"]
    name = f"{IMAGE}.{os.path.basename(runroot)}"
    done = subprocess.run([*podman, "import", "-", name], input=image(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    # The machine may not let a container raise its limits to podman's defaults.
    limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--network=none"]

    def run(*options: str) -> Result:
        argv = [*podman, "run", "--rm", *limits, *options, *mounts(room), name, "/bin/sh", "/work/script"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return result(room)

    try:
        yield run
    finally:
        forget_podman()
        shutil.rmtree(runroot, ignore_errors=True)


def give(room: str) -> None:
    """Have the room belong to the ordinary user."""
    for folder, folders, files in os.walk(room):
        for name in (*folders, *files, "."):
            os.chown(os.path.join(folder, name), USER, USER)


def check_owners(found: Result) -> None:
    """What the steps gave away belongs to whom it was given, on every rung."""
    assert found.codes == {"copy": 0, "run": 0}, found.said
    assert found.owners["given"] == (0o4755, 1234, 1234)
    assert found.owners["tmp/here"][1:] == (1234, 1234)
    assert found.owners["tmp/here/mine"][1:] == (1234, 1234)


def test_dockers_filter_forbids_namespaces(in_docker: Inside) -> None:
    """COPY and ENV build all the same; RUN says what forbids it, and what `docker run` would need."""
    found = in_docker()
    assert (found.doctor["rung"], found.doctor["run"]) == (5, False)
    assert found.codes["copy"] == 0 and found.codes["run"] != 0
    assert "seccomp=unconfined" in found.said["run"]
    assert any("seccomp=unconfined" in each["mend"] for each in found.doctor["checks"]["isolation"])


def test_docker_without_its_filter(in_docker: Inside) -> None:
    found = in_docker("--security-opt=seccomp=unconfined")
    assert (found.doctor["rung"], found.doctor["snapshots"]) == (2, "overlay")
    check_owners(found)
    assert "isolation is weaker" in found.said["run"], "Docker masks /proc"


def test_docker_with_a_read_only_root_and_a_user(in_docker: Inside, room: str) -> None:
    give(room)
    found = in_docker("--security-opt=seccomp=unconfined", "--read-only", f"--user={USER}")
    assert (found.doctor["rung"], found.doctor["run"]) == (4, True)
    check_owners(found)


def test_docker_with_nothing_masked(in_docker: Inside) -> None:
    found = in_docker("--security-opt=seccomp=unconfined", "--security-opt=systempaths=unconfined")
    check_owners(found)
    assert "isolation is weaker" not in found.said["run"]


def test_podman_as_it_is(in_podman: Inside) -> None:
    found = in_podman()
    assert (found.doctor["rung"], found.doctor["snapshots"]) == (2, "overlay")
    check_owners(found)


def test_podman_with_a_read_only_root_and_a_user(in_podman: Inside, room: str) -> None:
    give(room)
    found = in_podman("--read-only", f"--user={USER}")
    assert found.doctor["rung"] == 4
    check_owners(found)
