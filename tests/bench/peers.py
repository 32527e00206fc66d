"""Registries and clients to compare with: Debian's docker-registry, our own server, skopeo and umoci."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

from dockerd import DockerMissing
from pybuild import ENVIRONMENT

_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Registry:
    """A running registry on loopback, with plain http. `pid` is its process."""

    name: str
    port: int
    pid: int

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def docker_registry(area: str) -> Iterator[Registry]:
    """The distribution's registry with an empty store below the directory `area`, gone with the block."""
    _require("docker-registry")
    port, root = free_port(), tempfile.mkdtemp(prefix="registry-", dir=area)
    path = os.path.join(root, "config.yml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
            f"storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}'}}\n"
        )
    with _running(["docker-registry", "serve", path], port, root) as pid:
        yield Registry("docker-registry", port, pid)


@contextlib.contextmanager
def own_registry(area: str, program: str) -> Iterator[Registry]:
    """`pybuild registry serve` with an empty store; `program` is the command."""
    port, root = free_port(), tempfile.mkdtemp(prefix="registry-", dir=area)
    words = [program, "--root", f"{root}/store", "registry", "serve", "--addr", f"127.0.0.1:{port}"]
    with _running([*words, "--no-access-log"], port, root) as pid:
        yield Registry("pybuild", port, pid)


@contextlib.contextmanager
def _running(command: list[str], port: int, root: str) -> Iterator[int]:
    process = subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    )
    try:
        _wait_until_it_listens(process, port)
        yield process.pid
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(root, ignore_errors=True)


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} does not listen on port {port}")


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def run(*argv: str) -> None:
    """A peer's command; a failure shows what it printed."""
    _require(argv[0])
    done = subprocess.run(
        argv, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr.decode(errors='replace')[-2000:]}")


def version(program: str) -> str:
    """The first line of what `program --version` prints."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True)
    return (done.stdout or done.stderr).partition("\n")[0].strip()


def _require(program: str) -> None:
    if shutil.which(program, path=ENVIRONMENT["PATH"]) is None:
        raise DockerMissing(f"{program} is not there: install the package of that name")
