"""A Docker daemon of our own: private root, private socket, gone afterwards with everything it mounted.

It has no bridge and touches no firewall rule, so builds take `--network=host`. Needs uid 0 and Debian's
`docker.io` (20.10, whose BuildKit is the judge of tests/interop/equality).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class JudgeUnavailable(RuntimeError):
    """A tool these tests compare with is missing or does not start."""


@dataclass(frozen=True, slots=True)
class Docker:
    """A client bound to one private daemon."""

    client: str
    host: str
    config: str

    def run(self, *args: str, check: bool = True, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """`docker ARGS`, with BuildKit; both streams captured.

        Raises AssertionError with what it said when `check` and the client fails.
        """
        done = subprocess.run(
            [self.client, *args], env=self._environment(), input=stdin, capture_output=True, check=False
        )
        if check and done.returncode:
            said = done.stderr.decode(errors="replace")
            raise AssertionError(f"docker {' '.join(args)} exited {done.returncode}:\n{said}")
        return done

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "DOCKER_HOST": self.host,
            "DOCKER_CONFIG": self.config,
            "DOCKER_BUILDKIT": "1",
        }


@contextmanager
def private_docker(directory: str) -> Iterator[Docker]:
    """Run a daemon with every file below `directory`; at the end stop it and unmount what it left."""
    daemon = _find("dockerd")
    for name in ("data", "exec", "config"):
        os.makedirs(os.path.join(directory, name))
    with open(os.path.join(directory, "daemon.json"), "w") as config:
        config.write("{}")
    docker = Docker(_client(), f"unix://{directory}/docker.sock", os.path.join(directory, "config"))
    with open(os.path.join(directory, "log"), "wb") as log:
        process = subprocess.Popen(
            [
                # The daemon ends with us, also when we are killed.
                *(["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []),
                daemon,
                f"--data-root={directory}/data",
                f"--exec-root={directory}/exec",
                f"--host={docker.host}",
                f"--pidfile={directory}/pid",
                f"--config-file={directory}/daemon.json",
                "--bridge=none",
                "--iptables=false",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _await_socket(docker, process, directory)
        yield docker
    finally:
        _stop(process)
        unmount_below(directory)


def unmount_below(directory: str) -> None:
    """Unmount all mount points inside `directory`, the deepest first."""
    with open("/proc/self/mountinfo", "rb") as table:
        points = [os.fsdecode(line.split()[4]) for line in table]
    inside = os.path.realpath(directory) + "/"
    for point in sorted((p for p in points if p.startswith(inside)), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


def _find(name: str) -> str:
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    found = shutil.which(name, path=path)
    if found is None:
        raise JudgeUnavailable(f"`{name}` is not installed: `make test` installs Debian's docker.io")
    return found


def _client() -> str:
    """The client that came with the daemon: one from elsewhere may want a plug-in to use BuildKit."""
    return "/usr/bin/docker" if os.access("/usr/bin/docker", os.X_OK) else _find("docker")


def _await_socket(docker: Docker, process: subprocess.Popen[bytes], directory: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while docker.run("version", check=False).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            with open(os.path.join(directory, "log"), errors="replace") as log:
                raise JudgeUnavailable(f"dockerd did not start:\n{log.read()[-3000:]}")
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
