"""A real image, from the distribution's packages to an answer over HTTP, in the hands of every usual tool.

The base is made by mmdebstrap from this machine's own mirrors, the build installs python3 with apt inside a
private network, and the image then runs under runc (a bundle unpacked by umoci), podman, Docker and pybuild.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from judges.dockerd import Docker, private_docker, unmount_below
from judges.podman import forget_podman
from judges.pybuild import Pybuild
from ports import free_port

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
IMAGE, TAG = "real/app:1.0", "1.0"
ANSWER_SECONDS = 60.0
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# The machine may not let a container raise its limits to podman's defaults, and crun wants pure cgroup v2.
PODMAN_RUN = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network=host"]

DOCKERFILE = """\
FROM debian-base:latest
RUN apt-get update && apt-get install -y --no-install-recommends python3 && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 4711 app
WORKDIR /srv/app
COPY --chown=app app/ .
ENV GREETING="hello there"
LABEL org.example.kind=real
EXPOSE {port}
USER app
ENTRYPOINT ["python3", "answer.py"]
CMD ["{port}"]
"""
APPLICATION = """\
import http.server, json, os, sys


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(
            {"uid": os.getuid(), "cwd": os.getcwd(), "greeting": os.environ["GREETING"],
             "owner": os.stat("answer.py").st_uid}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


with http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer) as server:
    server.handle_request()
"""
ANSWER = {"uid": 4711, "cwd": "/srv/app", "greeting": "hello there", "owner": 4711}


@dataclass(frozen=True, slots=True)
class Real:
    """The built image: its store, both archives, and the port it answers on."""

    store: Pybuild
    oci: str
    docker: str
    port: int


@pytest.fixture(scope="module")
def ground() -> Iterator[str]:
    """A directory on a fast file system, with nothing mounted in it afterwards."""
    parent = (
        "/dev/shm" if os.statvfs("/dev/shm").f_bavail * os.statvfs("/dev/shm").f_frsize > 4 << 30 else None
    )
    with tempfile.TemporaryDirectory(prefix="pybuild-real-", dir=parent) as directory:
        try:
            yield directory
        finally:
            unmount_below(directory)


@pytest.fixture(scope="module")
def real(ground: str) -> Real:
    """Base made, imported, application built: once for all tests here."""
    base = run(os.path.join(CHECKOUT, "scripts", "make-debian-base")).decode().strip()
    store = Pybuild(os.path.join(ground, "store"))
    store.run("import", base, "debian-base:latest")
    made = Real(store, f"{ground}/real-oci.tar", f"{ground}/real-docker.tar", free_port())
    context = write_context(f"{ground}/context", made.port)
    outputs = ["-o", f"type=oci,dest={made.oci}", "-o", f"type=docker,dest={made.docker}"]
    store.run("build", "-t", IMAGE, *outputs, context)
    return made


@pytest.fixture(scope="module")
def layout(real: Real, ground: str) -> str:
    """The oci-archive unpacked: an image layout directory."""
    directory = f"{ground}/layout"
    os.mkdir(directory)
    run("tar", "-xf", real.oci, "-C", directory)
    return directory


def test_runs_under_pybuild(real: Real) -> None:
    """`pybuild run`, from the store it was built in."""
    program = [os.path.join(sysconfig.get_path("scripts"), "pybuild"), "--root", real.store.root]
    assert answer_of([*program, "run", "--network", "host", IMAGE], real.port) == ANSWER


def test_runs_under_runc(real: Real, layout: str, ground: str) -> None:
    """A bundle unpacked by umoci; of its configuration only the terminal and the network are changed."""
    bundle = f"{ground}/bundle"
    run("umoci", "unpack", "--image", f"{layout}:{TAG}", bundle)
    share_network(f"{bundle}/config.json")
    argv = ["runc", "--root", f"{ground}/runc", "run", "--bundle", bundle, f"pybuild-real-{os.getpid()}"]
    assert answer_of(argv, real.port) == ANSWER


def test_runs_under_podman(real: Real, ground: str) -> None:
    """Loaded from our oci-archive, run by podman with runc."""
    podman = ["podman", "--root", f"{ground}/podman", "--runroot", f"{ground}/podman-run"]
    podman += ["--tmpdir", f"{ground}/podman-tmp", "--storage-driver", "vfs", "--runtime", "runc"]
    podman += ["--cgroup-manager", "cgroupfs", "--events-backend", "none"]
    try:
        loaded = run(*podman, "load", "--quiet", "--input", real.oci).decode().split()[-1]
        assert answer_of([*podman, "run", "--rm", *PODMAN_RUN, loaded], real.port) == ANSWER
    finally:
        forget_podman()


def test_runs_under_docker(real: Real, ground: str) -> None:
    """Loaded by `docker load`, under the name it was given."""
    with private_docker(f"{ground}/dockerd") as docker:
        docker.run("load", "--input", real.docker)
        argv = [docker.client, "--host", docker.host, "run", "--rm", "--network", "host", IMAGE]
        assert answer_of(argv, real.port) == ANSWER
        assert settings_in(docker) == expected_settings(real)


def test_skopeo_inspects(real: Real) -> None:
    """What the Dockerfile set is what skopeo reads, from either archive."""
    for source in (f"oci-archive:{real.oci}", f"docker-archive:{real.docker}"):
        inspected = json.loads(run("skopeo", "inspect", source))
        assert (inspected["Os"], inspected["Labels"]) == ("linux", {"org.example.kind": "real"})
        config = json.loads(run("skopeo", "inspect", "--config", source))
        assert expected_settings(real).items() <= config["config"].items()
        assert len(config["rootfs"]["diff_ids"]) == len(inspected["Layers"])


def test_skopeo_copies_to_and_from(real: Real, layout: str, ground: str) -> None:
    """A directory keeps our manifest's bytes; skopeo's docker-archive comes back with the same layers."""
    directory, archive, back = f"{ground}/dir", f"{ground}/skopeo.tar", f"{ground}/back"
    run("skopeo", "copy", f"oci-archive:{real.oci}", f"dir:{directory}")
    with open(f"{directory}/manifest.json", "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    assert os.path.exists(f"{layout}/blobs/sha256/{digest}")
    run("skopeo", "copy", f"dir:{directory}", f"oci:{back}:{TAG}")
    run("skopeo", "copy", f"docker-archive:{real.docker}", f"oci:{back}:other")
    run("skopeo", "copy", f"oci:{back}:{TAG}", f"docker-archive:{archive}:back/app:2")
    assert os.path.exists(f"{back}/blobs/sha256/{digest}")
    store = Pybuild(f"{ground}/second-store")
    store.run("load", "-i", archive)
    again = f"{ground}/again.tar"
    store.run("save", "-o", again, "back/app:2")
    assert diff_ids(f"oci-archive:{again}") == diff_ids(f"oci-archive:{real.oci}")
    assert diff_ids(f"oci:{back}:other") == diff_ids(f"oci-archive:{real.oci}")


def test_umoci_finds_nothing_amiss(layout: str) -> None:
    """Its list and history are read from our layout as they are."""
    assert TAG in run("umoci", "list", "--layout", layout).decode().split()
    history = json.loads(run("umoci", "stat", "--image", f"{layout}:{TAG}", "--json"))["history"]
    assert sum(not entry.get("empty_layer") for entry in history) == len(diff_ids(f"oci:{layout}:{TAG}"))


def test_validate_finds_nothing(real: Real, layout: str) -> None:
    """Our own judge, over both archives, the layout and the store."""
    for path in (real.oci, real.docker, layout, real.store.root):
        real.store.run("validate", path)


def write_context(directory: str, port: int) -> str:
    """The Dockerfile and the application."""
    os.makedirs(f"{directory}/app")
    for name, text in (("Dockerfile", DOCKERFILE.format(port=port)), ("app/answer.py", APPLICATION)):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)
    return directory


def expected_settings(real: Real) -> dict[str, object]:
    """The part of an image's configuration that the Dockerfile sets."""
    return {
        "User": "app",
        "WorkingDir": "/srv/app",
        "ExposedPorts": {f"{real.port}/tcp": {}},
        "Entrypoint": ["python3", "answer.py"],
        "Cmd": [str(real.port)],
        "Labels": {"org.example.kind": "real"},
    }


def settings_in(docker: Docker) -> dict[str, object]:
    """The same part, as Docker has it."""
    config = json.loads(docker.run("inspect", "--format", "{{json .Config}}", IMAGE).stdout)
    return {
        name: config[name] for name in ("User", "WorkingDir", "ExposedPorts", "Entrypoint", "Cmd", "Labels")
    }


def diff_ids(source: str) -> list[str]:
    """The layers of an image, by what is in them."""
    found: list[str] = json.loads(run("skopeo", "inspect", "--config", source))["rootfs"]["diff_ids"]
    return found


def share_network(config: str) -> None:
    """Make a bundle's container use the host's network, and no terminal."""
    with open(config, encoding="utf-8") as file:
        bundle = json.load(file)
    bundle["process"]["terminal"] = False
    spaces = bundle["linux"]["namespaces"]
    bundle["linux"]["namespaces"] = [each for each in spaces if each["type"] != "network"]
    # A new sysfs cannot be mounted in a network namespace that is not the container's.
    bundle["mounts"] = [each for each in bundle["mounts"] if each["type"] not in ("sysfs", "cgroup")]
    with open(config, "w", encoding="utf-8") as file:
        json.dump(bundle, file)


def answer_of(argv: list[str], port: int) -> object:
    """Start `argv`, ask the port until it answers, and see the program end well."""
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            answer = ask(process, port)
            said, _ = process.communicate(timeout=ANSWER_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 0, said.decode(errors="replace")
    return answer


def ask(process: subprocess.Popen[bytes], port: int) -> object:
    """The JSON at `port`, once something listens there."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with DIRECT.open(f"http://127.0.0.1:{port}/", timeout=60) as response:
                return json.load(response)
        except OSError:
            time.sleep(0.05)
    process.kill()
    said, _ = process.communicate()
    raise AssertionError(f"{process.args!r} never answered: {said.decode(errors='replace')}")


def run(*argv: str) -> bytes:
    """What `argv` prints; a failure shows all it said."""
    done = subprocess.run(argv, capture_output=True, env=os.environ | {"TMPDIR": tempfile.gettempdir()})
    assert done.returncode == 0, f"{argv!r}: {(done.stdout + done.stderr).decode(errors='replace')}"
    return done.stdout


def test_tools_are_here() -> None:
    """A missing judge is a failure, never a skip."""
    names = ("mmdebstrap", "skopeo", "umoci", "runc", "podman", "dockerd")
    missing = [name for name in names if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")]
    assert not missing
