"""Resource limits of a build: what was asked for, the cgroups that enforce it, and what is said at a limit.

The cgroups of a build are written down in the store (`cgroups/<name>`, locked while the build lives) before
they are made: those of a build that was killed are removed by the next one (SECURITY.md R04).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from builder.errors import UsageError
from builder.events import Emit, Warning_
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.sandbox.cgroup import Groups, NotEnforceable
    from builder.sandbox.spec import Exit, Limits

_FOLDER = "cgroups"
_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Limiting:
    """`build` bounds all steps together, `step` each one; `parent` is the cgroup to be below.

    With `best_effort` a limit that cannot be enforced is a warning, else a UsageError.
    """

    build: Limits
    step: Limits
    parent: str = ""
    best_effort: bool = False


@contextmanager
def limited(wanted: Limiting | None, root: str, emit: Emit) -> Iterator[Groups | None]:
    """The cgroups for a build on the store at `root`; None when nothing is to be limited.

    Raises UsageError for a limit that cannot be enforced, before anything is built.
    """
    folder = os.path.join(root, _FOLDER)
    _sweep(folder)
    if wanted is None:
        yield None
        return
    from builder.sandbox.cgroup import Groups
    from builder.sandbox.cgroup_tree import new_name

    def refuse(error: NotEnforceable) -> None:
        if not wanted.best_effort:
            raise UsageError(f"the limit cannot be enforced: {error}", hint=error.hint)
        emit(Warning_("LimitNotEnforced", f"{error}: the build goes on without it (--best-effort)"))

    name = new_name()
    with _record(folder, name) as record:
        groups = Groups(
            name,
            wanted.build,
            wanted.step,
            parent=wanted.parent,
            refuse=refuse,
            remember=lambda paths: _add(record, paths),
        )
        with groups:
            yield groups


@contextmanager
def _record(folder: str, name: str) -> Iterator[int]:
    """A file for the directories of one build, locked as long as this process lives."""
    os.makedirs(folder, 0o700, exist_ok=True)
    path = os.path.join(folder, name)
    fd = _locked(path)
    try:
        yield fd
    finally:
        with suppress(FileNotFoundError):
            os.unlink(path)
        os.close(fd)


def _locked(path: str) -> int:
    """Between its making and its lock somebody may take the file for a dead build's, and away."""
    while True:
        fd = os.open(path, _FILE, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)


def _add(record: int, paths: list[str]) -> None:
    os.write(record, b"".join(os.fsencode(path) + b"\n" for path in paths))


def _sweep(folder: str) -> None:
    """Remove what killed builds left. A store that never had limits has no such folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        with suppress(FileNotFoundError, BlockingIOError):
            _sweep_one(os.path.join(folder, name))


def _sweep_one(path: str) -> None:
    from builder.sandbox.cgroup_tree import remove

    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        left = [os.fsdecode(line) for line in file.read().split(b"\n") if line]
        ours = [each for each in left if os.path.basename(each) == os.path.basename(path)]
        if all(remove(each) for each in ours):
            for each in left:
                remove(each)
            os.unlink(path)


def met(exit_: Exit, groups: Groups | None) -> str:
    """The limit that a process came to grief at, as a sentence; "" when it was none."""
    used = exit_.used
    if groups is None or used is None:
        return ""
    if used.oom_kills:
        which = _memory_limit(used.memory, groups)
        peak = f"its processes had {_size(used.memory)} at most" if used.memory else ""
        return f"out of memory at {which}" + (f"; {peak}" if peak else "")
    if used.refused:
        limit, whose = groups.each.pids, "for each step"
        if not limit or (0 < groups.limits.pids < limit):
            limit, whose = groups.limits.pids, "for the build"
        times = "once" if used.refused == 1 else f"{used.refused} times"
        return f"refused another process {times}: the limit is {limit} {whose} (--pids-limit)"
    return ""


def _memory_limit(peak: int, groups: Groups) -> str:
    step, build = groups.each.memory, groups.limits.memory
    if step and (not build or peak >= step - (step >> 6)):
        return f"the limit of {_size(step)} for each step (--memory)"
    return f"the limit of {_size(build)} for the build (--memory)"


def _size(number: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= unit:
            return f"{number // unit} {name}" if number % unit == 0 else f"{number / unit:.1f} {name}"
    return f"{number} bytes"
