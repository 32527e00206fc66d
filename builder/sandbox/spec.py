"""What a process may see, as data. Nothing here opens a file or makes a call.

Everything is plain JSON-able data, because it crosses a socket to the launcher.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

DEFAULT_CAPABILITIES = frozenset(
    {
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    }
)
"""The fourteen that Docker and BuildKit give (SECURITY.md section 2), without the `CAP_` prefix."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """An overlay root. `lowers` are host directories, topmost first; `upper` and `work` are host directories.

    With `upper` empty the root is read-only. `volatile` skips every sync (KERNEL.md 1.6).
    """

    lowers: tuple[str, ...]
    upper: str = ""
    work: str = ""
    volatile: bool = True
    userxattr: bool = False


@dataclass(frozen=True, slots=True)
class Bind:
    """A host file or directory seen at `target` in the root (`target` `/` makes it the root itself).

    With `path` it is what that path leads to inside the directory `source`, whose contents need not be
    trusted: links and `..` stay inside, and what was found is held by its descriptor (SECURITY.md S33).
    `directory` says what is expected there. Of `flags`, nosuid and noexec take something away, and `dev` lets
    device nodes work.
    """

    source: str
    target: str = "/"
    read_only: bool = False
    path: str = ""
    directory: bool = True
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers shown as one tree, of which `path` is seen at `target` (as for Bind).

    `lowers` are two host directories at least, topmost first; with `upper` and `work` it can be written to,
    else it is read-only.
    """

    target: str
    lowers: tuple[str, ...]
    path: str = ""
    directory: bool = True
    upper: str = ""
    work: str = ""


@dataclass(frozen=True, slots=True)
class Tmpfs:
    """A fresh tmpfs at `target`; `size` in bytes, 0 for the kernel's default. `flags` as for Bind."""

    target: str
    size: int = 0
    mode: int = 0o1777
    read_only: bool = False
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class File:
    """A file made from `content` and seen, read-only, at `target`: resolv.conf, a heredoc's script, a secret.

    It lies in memory and is gone with the process. What it holds is not shown when the value is printed.
    """

    target: str
    content: bytes = field(repr=False)
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


Mount = Bind | Layers | Tmpfs | File


@dataclass(frozen=True, slots=True)
class Terminal:
    """A new pseudo terminal as the process's standard streams; its size in characters (0 is not known)."""

    rows: int = 0
    columns: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What processes may use; 0 or "" is no limit of that kind.

    `memory` in bytes, `swap` memory and swap together (-1: no limit on swap; 0: twice the memory),
    `cpu_period` and `cpu_quota` in microseconds, `cpu_shares` by Docker's scale (2 to 262144, usual 1024),
    `cpus` and `mems` as cpuset(7) lists them, `io_weight` 10 to 1000; `io` holds (device, kind, rate per
    second) with the kinds rbps, wbps, riops, wiops. `wall_s` is the time one process may take, in seconds.
    """

    memory: int = 0
    swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpus: str = ""
    mems: str = ""
    pids: int = 0
    io_weight: int = 0
    io: tuple[tuple[str, str, int], ...] = ()
    wall_s: float = 0.0


class Membership(NamedTuple):
    """The cgroups a process is to be in: a directory's descriptor of the unified hierarchy (-1: none) and
    descriptors of the files `tasks`, for writing, of other hierarchies (cgroups(7)).
    """

    unified: int = -1
    tasks: tuple[int, ...] = ()

    def fds(self) -> tuple[int, ...]:
        """All descriptors, the unified hierarchy's first."""
        return ((self.unified,) if self.unified >= 0 else ()) + self.tasks


@dataclass(frozen=True, slots=True)
class Owners:
    """Owners are noted, as there is one id for all (`builder.sandbox.owners`): `upper` is the host directory
    with what a step adds, `notes` the host file for those of symlinks and pipes.
    """

    upper: str = ""
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One process and all it sees.

    `uid`, `gid` and `groups` are numbers, resolved in the image by the caller. `mounts` are made in order
    after /proc, /sys and /dev. Missing mount points are made for the run and removed again: `Exit.stubs`
    tells which could not be. `privileged` takes away what protects the host from the process: nothing is
    masked or read-only, device nodes work, and it has every capability of the caller (`capabilities` does
    not count). With a `terminal` it has no other standard streams, and the builder gets the terminal's
    other end (`run.Running.terminal`). `no_new_privileges` takes their effect from setuid programs and file
    capabilities; `unfiltered` leaves out the filter of system calls. `rlimits` are (name, soft, hard) by
    getrlimit(2)'s names, -1 is no limit; of those not named, the number of open files and of processes is at
    most 1,048,576 and core files are not written. A `chroot` one has no namespaces: it is kept in its root
    (a Bind) by chroot(2) alone, and sees none of its mounts. A `strict` one does not
    begin where its /proc would have to be the one outside.
    """

    root: Overlay | Bind
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    hostname: str = "buildkitsandbox"
    mounts: tuple[Mount, ...] = ()
    network: Literal["none", "host", "private"] = "private"
    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    rlimits: tuple[tuple[str, int, int], ...] = ()
    shm_size: int = 64 << 20
    terminal: Terminal | None = None
    privileged: bool = False
    no_new_privileges: bool = False
    unfiltered: bool = False
    strict: bool = False
    chroot: bool = False
    limits: Limits = field(default_factory=Limits)
    owners: Owners | None = None

    def describe(self) -> list[str]:
        """One line per thing the process will see, for `--debug`."""
        lines = [f"root {self.root}", *(f"mount {mount}" for mount in self.mounts)]
        return [*lines, f"network {self.network}", f"uid {self.uid} gid {self.gid}", f"exec {self.argv}"]


class Used(NamedTuple):
    """What a cgroup has seen. `memory` is the peak of all its processes in bytes, page cache included;
    `oom_kills` processes were killed at a memory limit, `refused` were not started at a limit of processes.
    """

    memory: int = 0
    oom_kills: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Exit:
    """How a sandboxed process ended: `status` as a shell tells it (128+n for signal n), CPU seconds,
    largest RSS of one of its processes in bytes."""

    status: int
    user_s: float = 0.0
    system_s: float = 0.0
    max_rss: int = 0
    error: str = ""
    """Set when the process never started: the call that failed, its path and errno text."""
    stubs: tuple[str, ...] = ()
    """Host paths of mount points made for the run that could not be removed: the step put something there."""
    read: int = 0
    written: int = 0
    """Bytes of block devices."""
    timed_out: bool = False
    """Killed because `Limits.wall_s` was over."""
    used: Used | None = None
    """What its cgroup saw, if it had one."""
    weaker: tuple[str, ...] = ()
    """What could not be had anew and was shown from outside: `proc`, `sysfs`."""
