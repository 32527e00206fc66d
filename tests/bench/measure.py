"""Clocks and counters: wall time, memory of a process tree, files opened below a directory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import statistics
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

POLL_S = 0.004
IN_OPEN, IN_ISDIR, IN_Q_OVERFLOW = 0x20, 0x40000000, 0x4000


@dataclass(frozen=True, slots=True)
class Pairs:
    """Times of two sides taken in turns, in seconds."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Median of the ratios of neighbours: a slow minute of the machine slows both."""
        return statistics.median(a / b for a, b in zip(self.ours, self.theirs, strict=True))


def timed(action: Callable[[], object]) -> float:
    """Seconds that `action` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def in_turns(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> Pairs:
    """Both sides `rounds` times, one after the other, each going first every second time."""
    pairs = Pairs()
    for turn in range(rounds):
        if turn % 2:
            pairs.theirs.append(theirs())
            pairs.ours.append(ours())
        else:
            pairs.ours.append(ours())
            pairs.theirs.append(theirs())
    return pairs


def peak_memory(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Most memory (bytes) that a command's whole process tree held at once.

    The high-water marks of all processes alive at the same time are added up: pages shared between them count
    twice, and peaks that did not coincide count together, so the truth is at most this. (getrusage
    counts what this program held when it forked as well.)
    """
    # The wait frees nothing that /proc still shows: poll first, reap after.
    with subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        peak = 0
        while True:
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, sum(_high_water(each) for each in _tree(process.pid)))
            time.sleep(POLL_S)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit code {process.returncode} while its memory was watched")
    return peak


def _tree(root: int) -> list[int]:
    """`root` and all that descend from it."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                    waiting += map(int, file.read().split())
    return found


def _high_water(pid: int) -> int:
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) << 10
    return 0


class OpenedFiles:
    """Names of files that anybody opened below a directory, as the kernel reports them (inotify(7))."""

    def __init__(self, fd: int, directories: Mapping[int, str]) -> None:
        self._fd = fd
        self._directories = directories

    def take(self) -> list[str]:
        """What was opened since the last call; directories are not files."""
        names: list[str] = []
        while True:
            try:
                block = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return names
            names += self._names(block)

    def _names(self, block: bytes) -> Iterator[str]:
        at = 0
        while at < len(block):
            watch, mask, _, length = struct.unpack_from("iIII", block, at)
            name = block[at + 16 : at + 16 + length].rstrip(b"\0")
            at += 16 + length
            if mask & IN_Q_OVERFLOW:
                yield "(more than the kernel's queue holds)"
            elif not mask & IN_ISDIR:
                yield os.path.join(self._directories[watch], os.fsdecode(name))


@contextlib.contextmanager
def watch_opens(root: str) -> Iterator[OpenedFiles]:
    """Watch every directory below `root`."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    try:
        directories = {}
        for directory, _, _ in os.walk(root):
            watch = libc.inotify_add_watch(fd, os.fsencode(directory), IN_OPEN)
            if watch < 0:
                raise OSError(ctypes.get_errno(), "inotify_add_watch", directory)
            directories[watch] = directory
        opened = OpenedFiles(fd, directories)
        opened.take()
        yield opened
    finally:
        os.close(fd)
