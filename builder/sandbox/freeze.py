"""Stopping all processes of a running sandbox and letting them go on, and who they are.

Everything is told by the process id of the sandbox's first process, as the caller sees it. Its processes are
those of its pid namespace and of namespaces below that one, found in /proc.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from builder.sandbox.cgroup_tree import words, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from builder.sandbox.cgroup import StepGroup

_NS_GET_PARENT = 0xB702
_DEADLINE_S = 10.0
_PATIENT_S = 1.0
"""How long to wait for calls that cannot be interrupted: they return into a stop, however late."""
_PAUSE_S = 0.002
_ENDED, _STOPPED, _BUSY = frozenset("ZX"), frozenset("TtZX"), frozenset("TtZXD")
"""States of processes (proc_pid_stat(5)); threads of one that has ended may still be there."""

Note = frozenset[tuple[int, int]]
"""Processes that were stopped before: id, and start in clock ticks after boot."""


class Member(NamedTuple):
    """A process of a sandbox: its id here and in the sandbox, its parent here, its user id here, processor
    seconds, and its arguments (its name in brackets where there are none).
    """

    pid: int
    inside: int
    parent: int
    uid: int
    cpu_s: float
    command: tuple[str, ...]


def members(pid: int) -> list[Member]:
    """The processes of the sandbox, by id; none when it has ended."""
    level = len(_status(pid).get("NSpid", ())) - 1
    found = []
    for each in _pids(pid):
        status = _status(each)
        numbers = status.get("NSpid", ())
        try:
            with open(f"/proc/{each}/cmdline", "rb") as file:
                command = file.read().rstrip(b"\0").split(b"\0")
            fields = _stat(each)
        except OSError:
            continue  # it has ended
        if level < 1 or len(numbers) <= level:
            continue
        argv = tuple(map(os.fsdecode, command)) if any(command) else (f"[{' '.join(status['Name'])}]",)
        used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        parent, uid = int(fields[1]), int(status["Uid"][0])
        found.append(Member(each, int(numbers[level]), parent, uid, used, argv))
    return found


def freeze(pid: int, group: StepGroup | None = None) -> Note:
    """Stop every process of the sandbox, its first one too, and tell which were stopped already: `thaw`
    leaves those alone.

    By the freezer of its cgroup, which they do not notice, where `group` is one of version 2 that holds them
    all; else by SIGSTOP. Raises OSError, with everything going on as before, when they cannot all be stopped
    within 10 seconds, and ProcessLookupError when the sandbox has ended.
    """
    if not _pids(pid):
        raise ProcessLookupError(f"freeze: there is no sandbox with process id {pid}")
    for path in _freezers(group):
        write(path, "cgroup.freeze", "1")
        if _wait_frozen(path) and {*map(str, _pids(pid))} <= {*_inside(path)}:
            return frozenset()
        write(path, "cgroup.freeze", "0")
    return _stop(pid)


def thaw(pid: int, before: Note = frozenset(), group: StepGroup | None = None) -> None:
    """Let a frozen sandbox go on: every process of it but those of `before`, which `freeze` told."""
    for path in _freezers(group):
        write(path, "cgroup.freeze", "0")
    for each in reversed(_pids(pid)):  # children first, mostly: a shell finds none of its jobs stopped
        with suppress(OSError):
            if (each, _start(each)) not in before and _halted(each, _STOPPED):
                _signal(each, pid, signal.SIGCONT)


def _stop(pid: int) -> Note:
    """Round for round, until one finds everybody stopped: who is being born meanwhile is met by the next."""
    begun = time.monotonic()
    before: set[tuple[int, int]] = set()
    told: set[tuple[int, int]] = set()
    while True:
        late = time.monotonic() - begun
        running = False
        for each in _pids(pid):
            try:
                who = (each, _start(each))
                if who not in told and _halted(each, _STOPPED):
                    if not _halted(each, _ENDED):
                        before.add(who)
                elif who not in told:
                    told.add(who)
                    running = True
                    _signal(each, pid, signal.SIGSTOP)
                elif not _halted(each, _BUSY if late > _PATIENT_S else _STOPPED):
                    running = True
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
        if not running:
            return frozenset(before)
        if late > _DEADLINE_S:
            thaw(pid, frozenset(before))
            raise OSError(f"freeze: the processes of {pid} do not stop")
        time.sleep(_PAUSE_S)


def _signal(each: int, pid: int, number: int) -> None:
    """A signal to that process, which is told from a later one with its number."""
    pidfd = os.pidfd_open(each)
    try:
        if _Below(pid).holds(each):
            signal.pidfd_send_signal(pidfd, number)
    finally:
        os.close(pidfd)


def _pids(pid: int) -> list[int]:
    below = _Below(pid)
    return sorted(each for each in map(int, filter(str.isdigit, os.listdir("/proc"))) if below.holds(each))


class _Below:
    """Whether a process is in the pid namespace of a sandbox or in one below it."""

    def __init__(self, pid: int) -> None:
        self._known: dict[str, bool] = {}
        with suppress(OSError):
            self._known = {os.readlink(f"/proc/{pid}/ns/pid"): True}
        self._known[os.readlink("/proc/self/ns/pid")] = False  # whatever `pid` is: our own are nobody's

    def holds(self, each: int) -> bool:
        path = f"/proc/{each}/ns/pid"
        try:
            name = os.readlink(path)
            if name not in self._known:
                self._known[name] = self._has_parent(path)
        except OSError:
            return False  # it has ended, or is another user's
        return self._known[name]

    def _has_parent(self, path: str) -> bool:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            while True:
                above = fcntl.ioctl(fd, _NS_GET_PARENT)
                os.close(fd)
                fd = above
                known = self._known.get(os.readlink(f"/proc/self/fd/{fd}"))
                if known is not None:
                    return known
        finally:
            os.close(fd)


def _halted(pid: int, states: frozenset[str]) -> bool:
    """Whether all threads of a process are in one of `states` (proc_pid_stat(5))."""
    tasks = os.listdir(f"/proc/{pid}/task")
    for task in tasks:
        with suppress(FileNotFoundError, ProcessLookupError):
            if _stat(f"{pid}/task/{task}")[0] not in states:
                return False
    return True


def _start(pid: int) -> int:
    return int(_stat(pid)[19])


def _stat(where: int | str) -> list[str]:
    """The fields of proc_pid_stat(5) from the state on."""
    with open(f"/proc/{where}/stat", encoding="utf-8", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def _status(pid: int) -> dict[str, list[str]]:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            rows = (line.partition(":") for line in file)
            return {name: rest.split() for name, _, rest in rows}
    except OSError:
        return {}


def _freezers(group: StepGroup | None) -> Iterator[str]:
    """Directories of the unified hierarchy that are this sandbox's alone."""
    for place, path in group.places if group else ():
        own = path != place.directory
        if own and place.here.version == 2 and os.path.exists(os.path.join(path, "cgroup.freeze")):
            yield path


def _wait_frozen(path: str) -> bool:
    end = time.monotonic() + _PATIENT_S
    while time.monotonic() < end:
        events = words(path, "cgroup.events")
        if dict(zip(events[::2], events[1::2], strict=True)).get("frozen") == "1":
            return True
        time.sleep(_PAUSE_S)
    return False


def _inside(path: str) -> Iterator[str]:
    for folder, _, _ in os.walk(path):
        yield from words(folder, "cgroup.procs")
