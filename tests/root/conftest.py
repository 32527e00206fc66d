"""Small images and a launcher, on memory: creating inodes on a disk would be most of these tests' time."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from builder.sandbox.run import Launcher
from builder.sandbox.spec import Exit, Overlay, Sandbox

_APPLETS = (
    "sh true ls cat id sleep echo ip readlink stat touch mknod mkdir rm dd wc grep chmod head nc hostname"
)


@dataclass
class World:
    """A directory with an image of busybox, fresh snapshots, and a launcher."""

    top: str
    launcher: Launcher
    made: int = field(default=0)

    def path(self, name: str) -> str:
        return os.path.join(self.top, name)

    def image(self, name: str = "image") -> str:
        """A directory with /bin only."""
        root = self.path(name)
        os.makedirs(root + "/bin")
        shutil.copy("/bin/busybox", root + "/bin/busybox")
        for applet in _APPLETS.split():
            os.symlink("busybox", f"{root}/bin/{applet}")
        return root

    def overlay(self, *lowers: str) -> Overlay:
        self.made += 1
        top = self.path(f"snapshot{self.made}")
        for part in ("", "/upper", "/work"):
            os.mkdir(top + part)
        return Overlay(lowers or (self.path("image"),), top + "/upper", top + "/work")

    def sandbox(self, *argv: str, root: Any = None, **rest: Any) -> Sandbox:
        rest.setdefault("env", (("PATH", "/bin"),))
        rest.setdefault("network", "none")
        return Sandbox(root or self.overlay(), argv, **rest)

    def run(self, *argv: str, netns_fd: int | None = None, **rest: Any) -> tuple[Exit, str]:
        """How it ended and what it printed."""
        return self.start(self.sandbox(*argv, **rest), netns_fd=netns_fd)

    def sh(self, script: str, **rest: Any) -> str:
        """The output of a shell script that must succeed."""
        exit_, output = self.run("sh", "-c", script, **rest)
        assert exit_.status == 0, (exit_, output)
        return output

    def start(self, sandbox: Sandbox, netns_fd: int | None = None) -> tuple[Exit, str]:
        read, write = os.pipe()
        output: list[bytes] = []
        reader = threading.Thread(target=lambda: output.extend(iter(lambda: os.read(read, 65536), b"")))
        reader.start()
        try:
            exit_ = self.launcher.run(sandbox, output_fd=write, netns_fd=netns_fd)
        finally:
            os.close(write)
            reader.join()
            os.close(read)
        return exit_, b"".join(output).decode(errors="surrogateescape")


def tree(root: str) -> list[tuple[str, int, int, int]]:
    """Every entry below `root` with mode, size and mtime."""
    found = []
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            found.append((os.path.relpath(path, root), info.st_mode, info.st_size, info.st_mtime_ns))
    return sorted(found)


@pytest.fixture
def top() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="pybuild-test-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    os.chmod(folder, 0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def world(top: str) -> Iterator[World]:
    with Launcher(top + "/stubs") as launcher:
        made = World(top, launcher)
        made.image()
        yield made


@pytest.fixture
def tree_of() -> Callable[[str], list[tuple[str, int, int, int]]]:
    return tree
