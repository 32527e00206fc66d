"""What a case of bad input is, and how it is judged."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

SECONDS = 60.0
PATIENCE_S = 3.0
CHECK_MOVED = 97
HANGS = -1000
_RUNNER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "without.py")
# Files that every command may touch: locks, who is alive, raw output of steps.
_NOT_CONTENT = ("locks", "leases", "logs", "state.db")


@dataclass(frozen=True, slots=True)
class Case:
    """One bad input. `make` lays it into the working directory, `argv` hands it to pybuild.

    `check` is a piece of the `raise` statement, anywhere in the program, that finds the mistake. `says` are
    pieces that standard error must hold: where, what, and what to do.
    """

    name: str
    make: Callable[[], None]
    argv: tuple[str, ...]
    says: tuple[str, ...]
    check: str
    code: int = 2

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Outcome:
    """How pybuild ended."""

    code: int
    stderr: str


def run(case: Case, here: str, root: str, *, without_check: bool = False) -> Outcome:
    """Make the input in `here` and run pybuild on it, with or without the check that should find it."""
    os.makedirs(here)
    before = os.getcwd()
    os.chdir(here)
    try:
        case.make()
    finally:
        os.chdir(before)
    try:
        done = subprocess.run(
            [sys.executable, _RUNNER, case.check if without_check else "", "--root", root, *case.argv],
            cwd=here,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_S if without_check else SECONDS,
            env={"PATH": os.defpath, "HOME": here, "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        return Outcome(HANGS, "")
    return Outcome(done.returncode, done.stderr.decode(errors="replace"))


def shortfalls(case: Case, outcome: Outcome, before: dict[str, str], after: dict[str, str]) -> list[str]:
    """What is not as a user may expect; empty when all is."""
    found = [f"it does not say {piece!r}" for piece in case.says if piece not in outcome.stderr]
    if outcome.code != case.code:
        found.append(f"exit code {outcome.code}, not {case.code}")
    if "Traceback" in outcome.stderr or "internal error" in outcome.stderr:
        found.append("it shows the program's inside")
    found += [
        f"the store changed: {name}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
    return found


def contents(root: str) -> dict[str, str]:
    """All that a store holds, by path: kind, mode, a digest of the bytes; and the build cache's rows."""
    found = {}
    for directory, names, files in os.walk(root):
        if directory == root:
            names[:] = [each for each in names if each not in _NOT_CONTENT]
            files = [each for each in files if not each.startswith(_NOT_CONTENT)]
        for name in names + files:
            path = os.path.join(directory, name)
            if path != os.path.join(root, "tmp"):  # what is in it counts, whether it is there does not
                found[os.path.relpath(path, root)] = f"{os.lstat(path).st_mode:o} {_digest(path)}"
    return found | _records(os.path.join(root, "state.db"))


def _digest(path: str) -> str:
    if os.path.islink(path):
        return os.readlink(path)
    if not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _records(path: str) -> dict[str, str]:
    if not os.path.exists(path):
        return {}
    connection = sqlite3.connect(path)
    try:
        return {f"step {key}": value for key, value in connection.execute("SELECT key, value FROM steps")}
    finally:
        connection.close()
