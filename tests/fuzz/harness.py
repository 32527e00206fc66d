"""What every target promises (S36): any input ends in success or a typed error, soon, and in little memory.

A target is a module `fuzz_NAME.py` here with

    SEEDS: tuple[bytes, ...]        inputs to begin with
    WORDS: tuple[bytes, ...]        what the inputs' language is made of; may be missing
    def target(data: bytes) -> None
                                    raises for what is a defect; typed errors it takes itself
"""

from __future__ import annotations

import importlib
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import TypeVar

T = TypeVar("T")

HERE = Path(__file__).parent
FOUND = HERE / "found"
MIB = 1 << 20
SECONDS_PER_MIB = 5.0
"""Of processor time; less than a MiB may take as long."""
ENDLESS_SECONDS = 60.0
"""Of processor time, after which a target is not waited for."""
MEMORY = 256 * MIB


class Hang(Exception):
    """It took too long."""


class Hog(Exception):
    """It took too much memory."""


def names() -> list[str]:
    """Every target's name."""
    return sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))


def load(name: str) -> ModuleType:
    """A target's module."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    return importlib.import_module(f"fuzz_{name}")


def check(module: ModuleType, data: bytes) -> None:
    """Run a target. Raises what it raises, Hang and Hog."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGPROF, _endless)
    memory, began = _resident(), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, ENDLESS_SECONDS)
    try:
        module.target(data)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    took = time.process_time() - began
    if took > SECONDS_PER_MIB * max(1.0, len(data) / MIB):
        raise Hang(f"{took:.1f} s for {len(data)} bytes")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if _grew(peak) and peak - memory > MEMORY:
        raise Hog(f"{(peak - memory) // MIB} MiB for {len(data)} bytes")


def _endless(number: int, frame: object) -> None:
    raise Hang(f"more than {ENDLESS_SECONDS:.0f} s")


def _resident() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


_peak = [0]


def _grew(peak: int) -> bool:
    before, _peak[0] = _peak[0], peak
    return peak > before


def scratch() -> str:
    """Where targets that write files may do so: memory, where there is some."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else os.environ.get("TMPDIR", "/tmp")


class Bits:
    """Numbers, choices and texts out of bytes, for targets whose input is no text. When the bytes are used
    up, everything is 0 or empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def bytes(self, count: int) -> bytes:
        piece = self._data[self._at : self._at + count]
        self._at += len(piece)
        return piece

    def rest(self) -> bytes:
        return self.bytes(len(self._data))

    def number(self, most: int) -> int:
        """0 to `most`."""
        return int.from_bytes(self.bytes((most.bit_length() + 7) // 8), "little") % (most + 1)

    def flag(self) -> bool:
        return bool(self.number(1))

    def pick(self, choices: tuple[T, ...]) -> T:
        return choices[self.number(len(choices) - 1)]

    def text(self, most: int = 40) -> str:
        return self.bytes(self.number(most)).decode("utf-8", "surrogateescape")
