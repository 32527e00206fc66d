"""A store with a small image and containers of it, as a user types the commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

from builder.container.store import Containers

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENVIRONMENT = {**os.environ, "PYTHONPATH": ROOT, "BUILDKIT_PROGRESS": "plain", "TERM": "vt100"}
PROGRAMS = (
    "sh", "cat", "id", "sleep", "echo", "ls", "touch", "ps", "mount", "stty", "nc", "kill", "env", "tty",
    "mkdir", "rm", "mv", "ln", "seq", "tee", "head", "mknod", "chown", "chmod",
)  # fmt: skip
_PATIENCE_S = 60


class Fleet:
    """A store with the image `bb` (a static busybox), and its containers."""

    def __init__(self, work: Path) -> None:
        self.root = str(work / "store")
        self.command = [sys.executable, "-m", "builder.cli.main", "--root", self.root]
        (work / "bin").mkdir()
        shutil.copy("/bin/busybox", work / "bin" / "busybox")
        for name in PROGRAMS:
            os.symlink("busybox", work / "bin" / name)
        with tarfile.open(work / "root.tar", "w") as archive:
            archive.add(work / "bin", "bin")
        self("import", str(work / "root.tar"), "bb")
        self.containers = Containers(self.root)

    def ran(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.command, *words], env=ENVIRONMENT, input=stdin, capture_output=True, text=True, timeout=240
        )

    def __call__(self, *words: str, stdin: str = "") -> str:
        done = self.ran(*words, stdin=stdin)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout.strip()

    def begin(self, *words: str) -> str:
        """A container in the background; its id."""
        return self("run", "-d", "--network=none", *words)

    def state(self, word: str) -> Any:
        return self.containers.state(self.containers.find(word))

    def printed(self, word: str) -> bytes:
        return Path(self.containers.path(self.containers.find(word), "log")).read_bytes()

    def clear(self) -> None:
        if ids := self.containers.ids():
            self("rm", "-f", "-v", *ids)


def wait_for(what: Any) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)
