"""What bounds a step's process from its first moment: its cgroups, and how many may be beside it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

_PID_MAX = "sys/kernel/pid_max"
_THREADS_MAX = "sys/kernel/threads-max"
_MOST = 32768
"""Of processes and threads in one step when nobody sets a limit: Linux's own default for a whole machine."""
_LEAST = 1024


class Bounds:
    """Of one step. `confined`: it has cgroups of its own, those of `tasks` still to be entered.

    `most_pids` bounds its pid namespace, 0 where the kernel cannot do that.
    """

    __slots__ = ("confined", "most_pids", "tasks")

    def __init__(self, confined: bool, tasks: tuple[int, ...], most_pids: int) -> None:
        self.confined = confined
        self.tasks = tasks
        self.most_pids = most_pids

    def enter(self) -> None:
        """To be called by the step's process, which has one thread, while it sees the host's /proc.

        A thread that writes 0 to `tasks` moves itself, and only this way takes no lock that all forks of the
        machine must be waited for (Linux 5.6): 15 µs, where `cgroup.procs` costs 6 to 29 ms.
        """
        for fd in self.tasks:
            os.write(fd, b"0")
        if self.confined:
            from builder.sandbox import syscalls as sys_  # loaded by whoever makes processes

            sys_.unshare(sys_.CLONE_NEWCGROUP)

    def limit_processes(self, proc: int) -> None:
        """To be called by the first process of the step's pid namespace; `proc` is the root of its procfs.

        A /proc/sys that may not be written to is no reason not to build.
        """
        if self.most_pids and os.getpid() == 1:  # else it is the machine's number, or that of a container
            from builder.sandbox import procfs

            try:
                procfs.write(proc, _PID_MAX, b"%d" % self.most_pids)
            except OSError:
                pass


def means(*, own_pids: bool, users: bool | None = None) -> Literal["namespace", "rlimit", "cgroup"]:
    """What bounds the number of processes in a step by default, so that one that multiplies leaves the host
    its share.

    Its own pid namespace, if it has one (`own_pids`): one write per step, no cgroup. Before Linux 6.14 that
    number is the machine's and not to be touched. Then RLIMIT_NPROC, in a user namespace (`users`; None: see
    whether this process is in one), where it binds root too and counts a user's processes in that namespace
    alone; so it does from 5.14 on. The machine's root it does not bind: then the pids controller of a cgroup,
    where that can be had.
    """
    kernel = _kernel()
    if own_pids and kernel >= (6, 14):
        return "namespace"
    if kernel >= (5, 14) and (_in_user_namespace() if users is None else users):
        return "rlimit"
    return "cgroup"


def most_pids() -> int:
    """How many processes a step's pid namespace may have; 0 where something else bounds them."""
    return most() if means(own_pids=True) == "namespace" else 0


def most_by_rlimit(*, own_pids: bool = True) -> int:
    """The same number for RLIMIT_NPROC where that is what bounds them; 0 elsewhere."""
    return most() if means(own_pids=own_pids) == "rlimit" else 0


def most_by_cgroup(*, own_pids: bool) -> int:
    """The same number for a step's cgroup where that is what bounds them; 0 elsewhere."""
    return most() if means(own_pids=own_pids) == "cgroup" else 0


def most() -> int:
    """Of processes and threads in a step: at most half of what the machine can have; 0 if that is unknown."""
    try:
        host = min(int(_read(_PID_MAX)), int(_read(_THREADS_MAX)))
    except (OSError, ValueError):
        return 0
    return max(_LEAST, min(_MOST, host // 2))


def _in_user_namespace() -> bool:
    return _read("self/uid_map").split() != [b"0", b"0", b"4294967295"]


def _kernel() -> tuple[int, int]:
    try:
        major, minor = os.uname().release.split(".")[:2]
        return int(major), int(minor.partition("-")[0])
    except ValueError:
        return 0, 0


def _read(path: str) -> bytes:
    fd = os.open("/proc/" + path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 64)
    finally:
        os.close(fd)
