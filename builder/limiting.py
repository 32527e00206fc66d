"""Resource limits of a build: what was asked for, the cgroups that enforce it, and what is said at a limit.

The cgroups of a build are written down in the store (`cgroups/<name>`, locked while the build lives) before
they are made: those of a build that was killed are removed by the next one (SECURITY.md R04).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.errors import UsageError
from builder.events import Emit, Warning_
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.sandbox.cgroup import Groups, NotEnforceable
    from builder.sandbox.spec import Exit, Limits

PIDS = "--pids-limit"
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
def limited(wanted: Limiting | None, folder: str, emit: Emit, usual: int = 0) -> Iterator[Groups | None]:
    """The cgroups for a build, noted in `folder` of its store; None when nothing is to be limited.

    `usual` is the number of processes for each step where `wanted` bounds none. Nobody asked for that one:
    where it cannot be had the build goes on without (`builder.doctor` tells).

    Raises UsageError for a limit that cannot be enforced, before anything is built.
    """
    _sweep(folder)
    with ExitStack() as stack:
        if wanted is not None:
            yield stack.enter_context(_groups(wanted, folder, emit, usual))
        else:
            yield _usual(stack, folder, emit, usual) if usual else None


def _usual(stack: ExitStack, folder: str, emit: Emit, usual: int) -> Groups | None:
    from builder.sandbox.spec import Limits

    try:
        return stack.enter_context(_groups(Limiting(Limits(), Limits()), folder, emit, usual))
    except OSError:
        return None


@contextmanager
def _groups(wanted: Limiting, folder: str, emit: Emit, usual: int) -> Iterator[Groups]:
    from builder.sandbox.cgroup import Groups
    from builder.sandbox.cgroup_tree import new_name

    by_default = usual if not (wanted.build.pids or wanted.step.pids) else 0

    def refuse(error: NotEnforceable) -> None:
        if by_default and error.option == PIDS:
            return
        if not wanted.best_effort:
            raise UsageError(f"the limit cannot be enforced: {error}", hint=error.hint)
        emit(Warning_("LimitNotEnforced", f"{error}: the build goes on without it (--best-effort)"))

    name = new_name()
    with _record(folder, name) as record:
        groups = Groups(
            name,
            wanted.build,
            replace(wanted.step, pids=by_default) if by_default else wanted.step,
            parent=wanted.parent,
            refuse=refuse,
            remember=lambda paths: _add(record, paths),
        )
        with groups:
            yield groups


@contextmanager
def _record(folder: str, name: str) -> Iterator[int]:
    """A file for the directories of one build, locked as long as this process lives."""
    path = os.path.join(folder, name)
    fd = _locked(path)
    try:
        yield fd
    finally:
        if not any(os.path.isdir(each) for each in _ours(path)):  # else the next build tries it again
            with suppress(FileNotFoundError):
                os.unlink(path)
        os.close(fd)
        _remove_empty(folder)


def _locked(path: str) -> int:
    """Between its making and its lock somebody may take the file for a dead build's, and away; so with its
    folder.
    """
    while True:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        try:
            fd = os.open(path, _FILE, 0o600)
        except FileNotFoundError:
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)


def _add(record: int, paths: list[str]) -> None:
    os.write(record, b"".join(os.fsencode(path) + b"\n" for path in paths))


def _sweep(folder: str) -> None:
    """Remove what killed builds left."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        with suppress(FileNotFoundError, BlockingIOError):
            _sweep_one(os.path.join(folder, name))
    _remove_empty(folder)


def _remove_empty(folder: str) -> None:
    with suppress(OSError):
        os.rmdir(folder)


def _sweep_one(path: str) -> None:
    from builder.sandbox.cgroup_tree import remove

    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if all(remove(each) for each in _ours(path)):
            for each in _noted(path):
                remove(each)
            os.unlink(path)


def _noted(path: str) -> list[str]:
    with open(path, "rb") as file:
        return [os.fsdecode(line) for line in file.read().split(b"\n") if line]


def _ours(path: str) -> list[str]:
    """Of the directories that a build has noted, its own; the others are parents that it made."""
    return [each for each in _noted(path) if os.path.basename(each) == os.path.basename(path)]


def met(exit_: Exit, groups: Groups | None, one: str = "one step") -> str:
    """The limit that a process came to grief at, as a part of a sentence; "" when it was none.

    `one` is what `Limiting.step` bounds.
    """
    used = exit_.used
    if groups is None or used is None:
        return ""
    build, each = groups.limits, groups.each
    if used.oom_kills:
        narrow = each.memory - (each.memory >> 6)
        limits = (build.memory, each.memory)
        which = _which("--memory", _size, limits, one if not build.memory or used.memory >= narrow else "")
        peak = f"; all its processes together had {_size(used.memory)}" if used.memory else ""
        return f"out of memory at {which}{peak}"
    if used.refused:
        limits = (build.pids, each.pids)
        which = _which(PIDS, str, limits, one if not build.pids or each.pids <= build.pids else "")
        times = "once" if used.refused == 1 else f"{used.refused} times"
        return f"refused another process {times} at {which}"
    return ""


def _which(option: str, shown: Callable[[int], str], limits: tuple[int, int], one: str) -> str:
    """Of a build's and a step's limit, of which there is one at least, that of `one` where it was the one."""
    build, step = limits
    if step and one:
        return f"the limit of {shown(step)} for {one} ({option})"
    return f"the limit of {shown(build)} for all steps ({option})"


def _size(number: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= unit:
            return f"{number // unit} {name}" if number % unit == 0 else f"{number / unit:.1f} {name}"
    return f"{number} bytes"
