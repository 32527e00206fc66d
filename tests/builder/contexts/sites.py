"""A web server and git repositories on this machine, for tests of what is fetched."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ports import free_port


@dataclass
class Site:
    """What the server gives: `files` by path, with these headers. `seen` is what was asked, with headers."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    wanted: dict[str, str] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def url(self, path: str) -> str:
        return f"http://{self.address}/{path}"

    def asked(self, path: str) -> list[dict[str, str]]:
        return [headers for seen, headers in self.seen if seen == f"/{path}"]


@contextmanager
def site() -> Iterator[Site]:
    """A server of files that knows ETag, Last-Modified, redirects and who may ask."""
    found = Site()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.split("?")[0].lstrip("/")
            found.seen.append((f"/{path}", dict(self.headers)))
            if path in found.redirects:
                self._say(302, {"Location": found.redirects[path]}, b"")
            elif path not in found.files:
                self._say(404, {}, b"not here")
            elif found.wanted.get(path, "") not in ("", self.headers.get("Authorization", "")):
                self._say(401, {"WWW-Authenticate": "Basic"}, b"")
            elif self._known(path):
                self._say(304, {}, b"")
            else:
                self._say(200, found.headers.get(path, {}), found.files[path], found.cut.pop(path, None))

        def _known(self, path: str) -> bool:
            headers = found.headers.get(path, {})
            etag, moment = headers.get("ETag"), headers.get("Last-Modified")
            return (etag is not None and self.headers.get("If-None-Match") == etag) or (
                etag is None and moment is not None and self.headers.get("If-Modified-Since") == moment
            )

        def _say(self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 304:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut])

        def log_message(self, *args: object) -> None:
            """Tests say what was seen."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    found.address = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Repository:
    """A repository below `top`, which a daemon may serve."""

    def __init__(self, top: Path, name: str) -> None:
        self.path = top / name
        self.path.mkdir(parents=True)
        self.git("init", "-q", "-b", "main", ".")

    def git(self, *words: str) -> str:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "a",
            "GIT_AUTHOR_EMAIL": "a@b",
            "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@b",
            "GIT_COMMITTER_DATE": "1600000000 +0000",
            "GIT_AUTHOR_DATE": "1600000000 +0000",
            "GIT_ALLOW_PROTOCOL": "file:git:http",
        }
        done = subprocess.run(
            ["git", *words], cwd=self.path, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, files: dict[str, str | bytes], message: str = "x") -> str:
        """Write files, executable when their content begins with #!, and commit everything."""
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if isinstance(text, str) else text)
            if path.read_bytes().startswith(b"#!"):
                path.chmod(0o755)
        self.git("add", "-A", "-f", ".")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def publish_dumb(self, into: Path, name: str) -> None:
        """A copy that a server of plain files can give."""
        self.git("clone", "-q", "--bare", str(self.path), str(into / name))
        subprocess.run(["git", "update-server-info"], cwd=into / name, check=True)


@contextmanager
def git_daemon(top: Path) -> Iterator[str]:
    """`git daemon` for the repositories below `top`; its address."""
    port = free_port()
    daemon = shutil.which("git-daemon") or "/usr/lib/git-core/git-daemon"
    process = subprocess.Popen(
        [daemon, "--export-all", "--listen=127.0.0.1", f"--port={port}", f"--base-path={top}", "--reuseaddr"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        },
    )
    try:
        deadline = time.monotonic() + 60
        with socket.socket() as probe:
            while probe.connect_ex(("127.0.0.1", port)) != 0:
                assert process.poll() is None and time.monotonic() < deadline, "git daemon does not listen"
                time.sleep(0.01)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
