"""Where the benchmarks run: a fast file system of their own, the same kind for both sides, gone at the end.

Never the root file system: an ext4 without a journal makes creating inodes many times dearer after a mass
deletion, and the figures would tell the history of the machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

NEEDED = 10 << 30
SHM = "/dev/shm"


@dataclass(frozen=True, slots=True)
class WorkArea:
    """A directory and the kind of file system it is on."""

    path: str
    kind: str

    def directory(self, name: str) -> str:
        """A sub-directory, made when it is not there."""
        path = os.path.join(self.path, name)
        os.makedirs(path, exist_ok=True)
        return path


@contextlib.contextmanager
def work_area(kind: str) -> Iterator[WorkArea]:
    """`auto` is a tmpfs when there is room for 10 GB, else `ext4`: a journaled one in a file of its own."""
    if kind == "tmpfs" or (kind == "auto" and _fits_tmpfs()):
        path = tempfile.mkdtemp(prefix="pybuild-bench-", dir=SHM)
        try:
            yield WorkArea(path, "tmpfs")
        finally:
            unmount_below(path)
            shutil.rmtree(path, ignore_errors=True)
    else:
        with _loop_ext4() as path:
            yield WorkArea(path, "ext4, journaled, loop")


def unmount_below(path: str) -> None:
    """Take away what a daemon left mounted at `path` or under it, innermost first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split(" ")[4] for line in file]
    for point in reversed(points):
        if point == path or point.startswith(path + "/"):
            subprocess.run(["umount", "-l", point], check=False)


def _fits_tmpfs() -> bool:
    """Room in the file system, and memory behind it."""
    try:
        room = os.statvfs(SHM)
    except OSError:
        return False
    with open("/proc/meminfo", encoding="ascii") as file:
        available = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable"))
    return min(room.f_bavail * room.f_frsize, available) >= NEEDED


@contextlib.contextmanager
def _loop_ext4() -> Iterator[str]:
    base = tempfile.mkdtemp(prefix="pybuild-bench-", dir="/var/tmp")
    image, point = os.path.join(base, "disk"), os.path.join(base, "mnt")
    os.mkdir(point)
    try:
        with open(image, "wb") as file:
            file.truncate(2 * NEEDED)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "has_journal", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, point], check=True)
        yield point
    finally:
        unmount_below(point)
        shutil.rmtree(base, ignore_errors=True)
