"""Debian's docker-registry on a free port of the loopback, whose access log tells what was asked of it."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ports import free_port

_LINE = re.compile(r'"(GET|HEAD|PUT|POST|PATCH|DELETE) (\S+) HTTP/[0-9.]+" (\d+)')


@dataclass(frozen=True, slots=True)
class DockerRegistry:
    """A registry that runs; its data and its log lie in `directory`."""

    address: str
    directory: str

    def name(self, rest: str) -> str:
        return f"{self.address}/{rest}"

    def requests(self, since: int = 0) -> list[tuple[str, str, int]]:
        """Method, path and status of all requests so far, but for the first `since`."""
        last = f"/v2/?{secrets.token_hex(8)}"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"http://{self.address}{last}"
        ):
            pass
        deadline = time.monotonic() + 60
        while all(path != last for _, path, _ in self._logged()):  # the lines before it are there, too
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return [line for line in self._logged() if not line[1].startswith("/v2/?")][since:]

    def _logged(self) -> list[tuple[str, str, int]]:
        with open(os.path.join(self.directory, "log"), encoding="utf-8", errors="replace") as log:
            return [(m[1], m[2], int(m[3])) for m in _LINE.finditer(log.read())]


@contextmanager
def docker_registry(directory: str, **http: object) -> Iterator[DockerRegistry]:
    """Run one for the block. `http` is more of its configuration; `auth` stands beside it."""
    os.makedirs(directory, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    auth = http.pop("auth", None)
    config = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": f"{directory}/data"}, "delete": {"enabled": True}},
        "http": {"addr": address, "secret": "test", **http},
        **({"auth": auth} if auth else {}),
    }
    with open(f"{directory}/config.yml", "w", encoding="utf-8") as file:
        json.dump(config, file)
    with open(f"{directory}/log", "wb") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", f"{directory}/config.yml"], stdout=log, stderr=log
        )
    try:
        _await(address, process, f"{directory}/log")
        yield DockerRegistry(address, directory)
    finally:
        process.terminate()
        process.wait(60)


def _await(address: str, process: subprocess.Popen[bytes], log: str) -> None:
    host, _, port = address.partition(":")
    for _ in range(3000):
        if process.poll() is not None:
            with open(log, encoding="utf-8", errors="replace") as file:
                raise AssertionError(f"docker-registry ended: {file.read()[-2000:]}")
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("docker-registry does not listen")
