"""Small images and a launcher, on memory: creating inodes on a disk would be most of these tests' time."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shutil
import struct
import subprocess
import tarfile
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from builder import BuildRequest, Built, build
from builder.events import Event, StepDone, StepLog, StepStarted
from builder.export.base import OutputSpec
from builder.images import Images
from builder.imports import import_rootfs
from builder.sandbox.cgroup import StepGroup
from builder.sandbox.run import Launcher
from builder.sandbox.spec import Exit, Overlay, Sandbox
from builder.state import StateDir
from oci.image import Image
from oci.platforms import host
from oci.reference import Reference

_APPLETS = (
    "sh true false ls cat id sleep echo ip readlink stat touch mknod mkdir rm rmdir mv cp ln dd wc grep "
    "chmod chown head nc hostname env sha256sum printf date seq test mount umount ps kill"
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
        lowers = lowers or (self.path("image"),)
        return Overlay(lowers, top + "/upper", top + "/work", userxattr=in_user_namespace())

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

    def start(
        self, sandbox: Sandbox, netns_fd: int | None = None, cgroup: StepGroup | None = None
    ) -> tuple[Exit, str]:
        read, write = os.pipe()
        output: list[bytes] = []
        reader = threading.Thread(target=lambda: output.extend(iter(lambda: os.read(read, 65536), b"")))
        reader.start()
        try:
            exit_ = self.launcher.run(sandbox, output_fd=write, netns_fd=netns_fd, cgroup=cgroup)
        finally:
            os.close(write)
            reader.join()
            os.close(read)
        return exit_, b"".join(output).decode(errors="surrogateescape")


def in_user_namespace() -> bool:
    """Whether the tests themselves run in a user namespace (test_races_rootless.py)."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() != ["0", "0", "4294967295"]


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


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """A C program as a static executable: `compiled(source, *flags)` gives its path, made once."""
    made: dict[tuple[str, ...], str] = {}

    def make(source: str, *flags: str) -> str:
        key = (source, *flags)
        if key not in made:
            folder = tmp_path_factory.mktemp("c")
            (folder / "program.c").write_text(source)
            made[key] = str(folder / "program")
            command = ["gcc", "-O1", *(flags or ("-static",)), "-o", made[key], str(folder / "program.c")]
            subprocess.run(command, check=True)
        return made[key]

    return make


@pytest.fixture(scope="session")
def rootfs() -> bytes:
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in _APPLETS.split():
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name, text in {
            "etc/passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n",
            "etc/group": "root:x:0:\napp:x:1000:\nextra:x:2000:app\n",
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, BytesIO(text.encode()))
    return out.getvalue()


class Workshop:
    """A store with a base image, a context directory, and a way to build."""

    def __init__(self, root: Path, rootfs: bytes) -> None:
        self.root = str(root / "store")
        self.context = root / "context"
        self.context.mkdir()
        self.events: list[Event] = []
        with StateDir(self.root) as state, state.lease():
            images = Images(state)
            descriptor = import_rootfs(
                BytesIO(rootfs),
                images.layout.blobs,
                platform=host(),
                created="2020-01-01T00:00:00Z",
                changes=(),
                message="",
            )
            images.tag(Reference.parse("base"), descriptor)

    def write(self, name: str, text: str) -> None:
        path = self.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def build(self, dockerfile: str, **more: object) -> Built:
        self.write("Dockerfile", dockerfile)
        self.events.clear()
        request = BuildRequest(context=str(self.context), root=self.root, network="none")
        return build(replace(request, **more), self.events.append)  # type: ignore[arg-type]

    def ran(self) -> list[str]:
        """The names of the steps that were executed, without their numbers, and without inputs of mounts."""
        names = {event.digest: event.name for event in self.events if isinstance(event, StepStarted)}
        done = [event for event in self.events if isinstance(event, StepDone) and not event.cached]
        shown = [names[each.digest] for each in done]
        return [each.split("] ", 1)[1] for each in shown if "FROM" not in each and "[context]" not in each]

    def output(self) -> str:
        return b"".join(event.data for event in self.events if isinstance(event, StepLog)).decode()

    def image(self, built: Built) -> Image:
        with StateDir(self.root) as state:
            assert built.descriptor is not None
            return Image.load(Images(state).layout.blobs, built.descriptor)

    def files(self, built: Built) -> dict[str, tarfile.TarInfo]:
        """The merged root, told by tarfile."""
        with tarfile.open(self.exported) as tar:
            return {info.name.rstrip("/"): info for info in tar}

    @property
    def exported(self) -> Path:
        return self.context.parent / "root.tar"

    def tar(self) -> tuple[OutputSpec, ...]:
        return (OutputSpec("tar", str(self.exported)),)


class Typist:
    """A person at a terminal, where one program runs. Everything it shows is in `said`."""

    def __init__(self, *argv: str, env: dict[str, str], rows: int = 30, columns: int = 100) -> None:
        self._master, self.terminal = pty.openpty()
        self.said = ""
        self._heard = 0
        self.resize(rows, columns)
        self.before = self.attributes()
        self.process = subprocess.Popen(
            argv,
            env={**os.environ, **env},
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def __enter__(self) -> Typist:
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self.terminal)

    def attributes(self) -> list[Any]:
        return termios.tcgetattr(self.terminal)

    def raw(self) -> bool:
        return not self.attributes()[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("=HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def expect(self, text: str) -> str:
        """Wait until `text` is shown, after what was expected before; all that was shown up to its end."""
        end = time.monotonic() + 60
        while (found := self.said.find(text, self._heard)) < 0:
            if not self._hear(end - time.monotonic()):
                raise AssertionError(f"{text!r} was never shown, but {self.said[self._heard :]!r}")
        start, self._heard = self._heard, found + len(text)
        return self.said[start : self._heard]

    def ask(self, line: str) -> str:
        """Type `line` into a shell; what it printed."""
        self.type(f"{line}; echo 'en''d'\r")
        return self.expect("end\n").removesuffix("end\n")

    def end(self) -> int:
        """The program's exit status, when it has ended by itself."""
        end = time.monotonic() + 60
        while self.process.poll() is None:
            assert time.monotonic() < end, self.said[self._heard :]
            self._hear(0.05)
        while self._hear(0):
            pass
        return self.process.returncode

    def _hear(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], max(0, seconds))[0]:
            return False
        self.said += os.read(self._master, 1 << 16).decode(errors="replace").replace("\r", "")
        return True


@pytest.fixture
def typist() -> type[Typist]:
    return Typist


@pytest.fixture
def shop(tmp_path: Path, rootfs: bytes) -> Workshop:
    return Workshop(tmp_path, rootfs)
