"""The command line in this process: a store of its own, and what a command wrote."""

from __future__ import annotations

import io
import signal
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.cli import main


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


class Command:
    """Runs command lines in a store."""

    def __init__(self, root: str, capfd: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capfd = capfd

    def __call__(self, *args: str) -> Ran:
        self._capfd.readouterr()
        code = main.run(["--root", self.root, *args])
        return Ran(code, *self._capfd.readouterr())

    def ok(self, *args: str) -> str:
        """The output of a command that must succeed."""
        ran = self(*args)
        assert ran.code == 0, ran
        return ran.out


@pytest.fixture
def pybuild(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Command]:
    for name in ("SOURCE_DATE_EPOCH", "BUILDKIT_PROGRESS", "DOCKER_DEFAULT_PLATFORM", "PYBUILD_ROOT"):
        monkeypatch.delenv(name, raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield Command(str(tmp_path / "store"), capfd)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def rootfs(tmp_path: Path) -> str:
    """A tar with one file."""
    path = tmp_path / "rootfs.tar"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("etc/motd")
        entry.size = 6
        archive.addfile(entry, io.BytesIO(b"hello\n"))
    return str(path)
