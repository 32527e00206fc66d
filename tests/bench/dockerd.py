"""The other side: the distribution's Docker, with a daemon of its own that leaves the machine as it is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

from workarea import WorkArea, unmount_below

CLIENT = "/usr/bin/docker"


class DockerMissing(Exception):
    """There is no Docker of the distribution's to compare with."""


class Docker:
    """A client bound to one private daemon."""

    def __init__(self, socket: str, home: str) -> None:
        self.env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": home,
            "DOCKER_HOST": f"unix://{socket}",
            "DOCKER_BUILDKIT": "1",
        }

    def run(self, *argv: str, log: str = os.devnull) -> None:
        """`docker ARGV`; a failure shows what it printed."""
        with open(log, "ab") as out:
            done = subprocess.run(
                [CLIENT, *argv], env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE
            )
        if done.returncode:
            raise RuntimeError(f"docker {' '.join(argv)}: {done.stderr.decode(errors='replace')[-2000:]}")

    def text(self, *argv: str) -> str:
        """What `docker ARGV` prints."""
        return subprocess.run(
            [CLIENT, *argv], env=self.env, check=True, capture_output=True, text=True
        ).stdout.strip()

    def forget(self) -> None:
        """Nothing cached: no build records, no copy of a context."""
        self.run("builder", "prune", "--all", "--force")

    def version(self) -> str:
        """Client and server, as one line."""
        return self.text("version", "--format", "client {{.Client.Version}}, server {{.Server.Version}}")


def require_distribution_client() -> None:
    """Refuse a `docker` that no Debian package owns: the figures would not be comparable."""
    if not os.access(CLIENT, os.X_OK):
        raise DockerMissing(f"{CLIENT} is not there: install the package docker.io")
    owner = subprocess.run(["dpkg-query", "-S", CLIENT], capture_output=True, text=True)
    if owner.returncode or owner.stdout.split(":")[0] not in ("docker.io", "docker-cli"):
        raise DockerMissing(f"{CLIENT} is not the distribution's: install the package docker.io")


@contextlib.contextmanager
def daemon(area: WorkArea) -> Iterator[Docker]:
    """A private dockerd: no bridge, no firewall rule, everything in the work area."""
    require_distribution_client()
    base = area.directory("docker")
    socket, log = os.path.join(base, "sock"), open(os.path.join(base, "log"), "wb")  # noqa: SIM115
    places = ["--data-root", f"{base}/data", "--exec-root", f"{base}/exec", "-p", f"{base}/pid"]
    places += ["-H", f"unix://{socket}"]
    process = subprocess.Popen(
        ["dockerd", *places, "--iptables=false", "--ip6tables=false", "--bridge=none"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    docker = Docker(socket, area.directory("docker-home"))
    try:
        _wait_until_it_answers(docker, process, log.name)
        yield docker
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
        unmount_below(base)


def _wait_until_it_answers(docker: Docker, process: subprocess.Popen[bytes], log: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        probe = subprocess.run([CLIENT, "info"], env=docker.env, capture_output=True)
        if probe.returncode == 0:
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    with open(log, encoding="utf-8", errors="replace") as file:
        raise DockerMissing(f"dockerd did not start: {file.read()[-2000:]}")
