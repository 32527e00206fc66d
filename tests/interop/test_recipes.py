"""The recipes for CI in docs/rootless.md do what they say: the pod is made by podman from the very manifest,
the job runs the very script in a container of Docker's.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator

import pytest
from judges.dockerd import Docker
from judges.podman import forget_podman

pytestmark = pytest.mark.interop

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMAGE = "recipes:1"
PATH = "/opt:/usr/bin:/usr/sbin"
DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-c"]
RUN /bin/busybox touch /given && /bin/busybox chown 1234:1234 /given && echo the step ran
"""


def recipe(language: str, first: str) -> str:
    """The block of code in the documentation that begins with `first`."""
    with open(f"{CHECKOUT}/docs/rootless.md") as file:
        blocks = re.findall(rf"```{language}\n(.*?)```", file.read(), re.S)
    return next(block for block in blocks if block.startswith(first))


def places() -> list[str]:
    """What a container is shown, each at its own path: the system, the interpreter, the code."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    found = ["/usr", CHECKOUT, packages]
    return found if os.path.realpath(sys.executable).startswith("/usr/") else [*found, sys.base_prefix]


def image() -> bytes:
    """Directories, links to /usr, and a `pybuild` that is this checkout's."""
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    command = f"#!/bin/sh\nexport PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={CHECKOUT}:{packages}\n"
    command += f'exec {os.path.realpath(sys.executable)} -m builder.cli.main "$@"\n'
    files = {"opt/pybuild": (command, 0o755), "etc/passwd": ("root:x:0:0::/:/bin/sh\n", 0o644)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("etc", "opt", "usr", "proc", "sys", "dev", "run", "store", "context", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name in ("store", "tmp") else 0o755
            tar.addfile(entry)
        for name in ("bin", "lib", "lib64", "sbin"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{name}"
            tar.addfile(entry)
        for name, (text, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), mode
            tar.addfile(entry, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture
def context(memory_dir: str) -> Iterator[str]:
    os.chmod(memory_dir, 0o755)
    folder = tempfile.mkdtemp(prefix="recipe-", dir=memory_dir)
    os.chmod(folder, 0o755)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", f"{folder}/busybox")
    with open(f"{folder}/Dockerfile", "w") as file:
        file.write(DOCKERFILE)
    yield folder


def manifest(context: str) -> str:
    """The pod as documented, with an image and a context, and with what the image lacks."""
    text = recipe("yaml", "apiVersion")
    shown = list(enumerate(places()))
    mounts = "".join(f"{{name: p{n}, mountPath: {path}, readOnly: true}}, " for n, path in shown)
    volumes = "".join(f"{{name: p{n}, hostPath: {{path: {path}}}}}, " for n, path in shown)
    for old, new in (
        ("IMAGE-WITH-PYBUILD", f"localhost/{IMAGE}"),
        ("{name: context, emptyDir: {}}", f"{{name: context, hostPath: {{path: {context}}}}}"),
        ("volumeMounts: [", f"volumeMounts: [{mounts}"),
        ("volumes: [", f"volumes: [{volumes}"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def test_the_pod(context: str) -> None:
    """As user 1000, without Docker's filter: the build runs its step, and says what is weaker there."""
    if shutil.which("catatonit") is None:
        pytest.skip("catatonit, the first process of podman's pods, is not installed")
    place = tempfile.mkdtemp(prefix="recipe-", dir="/tmp")
    with open(f"{place}/containers.conf", "w") as file:
        # The machine may not let a container raise its limits to podman's defaults.
        file.write('[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n')
    with open(f"{place}/pod.yaml", "w") as file:
        file.write(manifest(context))
    options = ["--root", f"{place}/root", "--runroot", f"{place}/run", "--tmpdir", f"{place}/tmp"]
    options += ["--storage-driver", "vfs", "--runtime", "runc", "--cgroup-manager", "cgroupfs"]

    def podman(*words: str, stdin: bytes | None = None) -> str:
        done = subprocess.run(
            ["podman", *options, "--events-backend", "none", *words],
            input=stdin,
            env={**os.environ, "CONTAINERS_CONF": f"{place}/containers.conf"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0, said
        return said

    try:
        podman("import", "--change", f"ENV PATH={PATH}", "-", f"localhost/{IMAGE}", stdin=image())
        podman("play", "kube", "--network", "none", f"{place}/pod.yaml")
        try:
            status = podman("wait", "build-pybuild").split()[-1]
            said = podman("logs", "build-pybuild")
        finally:
            podman("pod", "rm", "-f", "-t", "0", "build")
        assert status == "0" and "the step ran" in said, said
        assert "isolation is weaker: /proc" in said, said
    finally:
        forget_podman()
        shutil.rmtree(place, ignore_errors=True)


def test_the_job(docker: Docker, context: str) -> None:
    """As the root of a container with Docker's filter, in the checkout."""
    (line,) = re.findall(r"script: (.*)", recipe("yaml", "build:"))
    docker.run("import", "--change", f"ENV PATH={PATH}", "-", IMAGE, stdin=image())
    volumes = [f"--volume={path}:{path}:ro" for path in places()]
    words = ["run", "--rm", "--network=host", "--workdir=/context", f"--volume={context}:/context", *volumes]
    done = docker.run(*words, IMAGE, "/bin/sh", "-c", f"({line}) 2>&1")
    said = done.stdout.decode(errors="replace")
    assert "the step ran" in said and "steps run as root in a changed root directory" in said
