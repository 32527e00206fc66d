"""What this machine allows, as data: which rung of isolation is taken, what keeps it from a better one, and
the command that mends each thing (SECURITY.md S97, S105).

Only looked at, or tried in a child whose namespaces end with it: nothing stays mounted, no rule, no process,
no file. Needs a process of one thread that has not entered a namespace (`builder.isolation`).
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import field

from builder import isolation
from builder.facts import Check, nearest
from builder.isolation import Isolation
from builder.sandbox import bounds, userns
from oci.data import dataclass

_CONTROLLERS = {
    "memory": "-m, --memory",
    "cpu": "--cpus, --cpu-shares",
    "cpuset": "--cpuset-cpus",
    "pids": "--pids-limit",
    "io": "--blkio-weight, --device-read-bps",
}
_OF_SCOPES = ("memory", "pids")
"""What systemd gives away to ordinary users unless it is told otherwise."""
_LITTLE_SPACE = 2 << 30
_MIB = 1 << 20
_BINFMT = "/proc/sys/fs/binfmt_misc"
_TUN = "/dev/net/tun"


@dataclass(frozen=True, slots=True)
class Report:
    """All that was found: checks by heading, and what each value of --isolation would be (`modes`)."""

    chosen: Isolation
    sections: dict[str, tuple[Check, ...]]
    modes: dict[str, Isolation] = field(default_factory=dict)

    @property
    def runs(self) -> bool:
        """Whether RUN can be had."""
        return self.chosen.runs


def report(asked: str, root: str, *, security: bool = False) -> Report:
    """Look at everything. `root` is the store's directory, which need not exist."""
    chosen = isolation.examine(asked, root)
    sections = {
        "isolation": _isolation(chosen),
        "network": _network(chosen),
        "resource limits": _limits(),
        "store": _store(root),
        "more": (_kernel(), _git(), _emulation()),
    }
    modes = {}
    if security:
        modes = {mode: chosen if mode == asked else isolation.examine(mode, root) for mode in isolation.MODES}
    return Report(chosen, sections, modes)


def _isolation(chosen: Isolation) -> tuple[Check, ...]:
    """What led to the rung; root does not stand on what ordinary users need."""
    if chosen.rung.number > 1:
        return chosen.checks
    return tuple(each for each in chosen.checks if each.name in ("overlay", "proc", "fuse"))


# ---- network ----


def _network(chosen: Isolation) -> tuple[Check, ...]:
    """Whether a step can have a private network with a way out."""
    if not chosen.runs or chosen.chroot:
        return (Check("network", False, "no private networks: no step can be run in namespaces here"),)
    from builder.sandbox.probing import network_refused

    programs = () if chosen.private_network else (_uplink_programs(), _tun())
    if not all(each.ok for each in programs):
        return programs
    refused = network_refused(chosen.maps)
    found = f"no private network can be made: {refused}" if refused else "steps get private networks"
    mend = "--network=host, or: sudo modprobe -a veth nf_tables nft_masq" if refused else ""
    return (*programs, Check("network", not refused, found, mend))


def _uplink_programs() -> Check:
    there = [name for name in ("slirp4netns", "pasta") if userns.trusted(name)]
    if there:
        more = "; if downloads stall, install slirp4netns" if there[0] == "pasta" else ""
        return Check("uplink", True, f"{there[0]} is there: a way out for networks of ordinary users{more}")
    return Check(
        "uplink",
        False,
        "neither slirp4netns nor pasta is installed",
        "sudo apt-get install slirp4netns   # or passt; or build with --network=host",
    )


def _tun() -> Check:
    if os.access(_TUN, os.R_OK | os.W_OK):
        return Check("tun", True, f"{_TUN} can be opened")
    there = os.path.exists(_TUN)
    found = f"{_TUN} cannot be opened" if there else f"{_TUN} is not there"
    return Check("tun", False, found, f"sudo chmod 666 {_TUN}" if there else "sudo modprobe tun")


# ---- limits ----


def _limits() -> tuple[Check, ...]:
    """Which resource limits can be enforced."""
    from builder.sandbox.cgroup import unavailable

    found = []
    scope = _has_scopes()
    for controller, options in _CONTROLLERS.items():
        why, hint = unavailable(controller)
        if why and scope and controller in _OF_SCOPES:
            why, hint = "", ""
        text = f"{controller} ({options}): {why or 'can be limited'}"
        found.append(Check(controller, not why, text, hint))
    return tuple(found)


def _has_scopes() -> bool:
    """Whether systemd makes delegated scopes for this user, below which limits are ours."""
    manager = os.path.join(os.environ.get("XDG_RUNTIME_DIR", ""), "systemd", "private")
    return os.path.exists(manager) and bool(userns.trusted("systemd-run"))


# ---- the store ----


def _store(root: str) -> tuple[Check, ...]:
    folder = nearest(root)
    if not os.access(folder, os.W_OK | os.X_OK):
        mend = "name another one with --root or PYBUILD_ROOT"
        return (Check("store", False, f"{root}: {folder} cannot be written to", mend),)
    free = shutil.disk_usage(folder).free
    found = f"{root}: {free // _MIB} MiB free" + ("" if os.path.isdir(root) else ", to be made")
    enough = free >= _LITTLE_SPACE
    return (Check("store", enough, found, "" if enough else "have the store elsewhere with --root"),)


# ---- what else may be wanted ----


def _kernel() -> Check:
    from builder.sandbox import seccomp

    system = f"Linux {os.uname().release}, Python {platform.python_version()}, {sys.implementation.name}"
    try:
        seccomp.program(frozenset())
    except seccomp.Unfiltered as error:
        return Check("kernel", False, f"{system}: {error}")
    return Check("kernel", True, f"{system}: steps have a filter of system calls")


def _git() -> Check:
    found = shutil.which("git")
    if found:
        return Check("git", True, "git is there, for contexts and ADD from repositories")
    return Check("git", False, "git is not installed: no contexts and no ADD from repositories",
                 "sudo apt-get install git")  # fmt: skip


def _emulation() -> Check:
    """Programs for other machines, as the kernel knows them (binfmt_misc)."""
    try:
        names = sorted(name[5:] for name in os.listdir(_BINFMT) if name.startswith("qemu-"))
    except OSError:
        names = []
    if names:
        return Check("emulation", True, f"RUN for other machines: {', '.join(names)}")
    return Check(
        "emulation",
        False,
        "RUN for other machines cannot be had (COPY and cross-compiling can)",
        "sudo apt-get install qemu-user-static binfmt-support",
    )


# ---- what a step has ----


def security(found: Isolation) -> list[tuple[str, str]]:
    """What protects the machine from a step, line by line."""
    if found.chroot:
        return [
            ("processes", _others()),
            ("files", "a directory by chroot(2), which a step cannot call; the machine's /proc is not in it"),
            ("network", "the machine's"),
            ("system calls", "an allow list (docs/security.md); unknown ones are ENOSYS"),
            ("setuid programs", "no effect, unless pybuild has CAP_SYS_ADMIN"),
            ("process limit", _most(found)),
            ("limits", "as asked for"),
        ]
    if not found.runs:
        return [("RUN", "refused; COPY, ADD and all that runs no program build without any privilege")]
    return [
        ("users", _users(found)),
        ("capabilities", "fourteen for root, as Docker; none for other users; inheritable and ambient empty"),
        ("namespaces", "mount, pid, ipc, uts, network, cgroup" + (", user" if found.maps else "")),
        ("files", "pivot_root, everything nodev; the store and the builder are out of sight"),
        ("processes", "its own alone" if not found.notes else "; ".join(found.notes)),
        ("process limit", _most(found)),
        ("/proc and /sys", "masked and read-only as Docker's, and power and thermal counters"),
        ("devices", "null zero full random urandom tty; device nodes that a step makes cannot be opened"),
        ("system calls", "an allow list (docs/security.md); unknown ones are ENOSYS"),
        ("network", _network_of(found)),
        ("keys", "a session keyring of its own; keyctl is refused"),
        ("terminal", "none of the caller's; one of its own where asked for"),
    ]


def _others() -> str:
    """What a step without namespaces can do to the processes of others."""
    from builder.sandbox import landlock

    version = landlock.version()
    if version >= landlock.SCOPES:
        return "those of the machine, out of reach by Landlock: neither signals nor tracing"
    if version >= landlock.REFER:
        return "the machine's: a step may signal them, not trace them (Landlock before Linux 6.12)"
    return "the machine's: a step may signal its user's, and trace other steps' (no Landlock)"


def _users(found: Isolation) -> str:
    if found.maps is None:
        return "root is the machine's root, with the capabilities below"
    who = f"root is the user {userns.outer_ids()[0]} outside"
    if found.maps.single:
        return f"{who}; there is no other id: owners are noted beside the files"
    return f"{who}; {sum(row[2] for row in found.maps.uids) - 1} others are lent ids"


_BOUNDS = {
    "namespace": "its own pid namespace ends there",
    "rlimit": "RLIMIT_NPROC, for all steps together",
    "cgroup": "a cgroup for each step",
}


def _most(found: Isolation) -> str:
    means, why, _ = _bound(found)
    if why:
        return f"as many as pybuild itself: {why}"
    return f"{bounds.most()}, threads included, unless --pids-limit says another number: {_BOUNDS[means]}"


def _bound(found: Isolation) -> tuple[str, str, str]:
    """What bounds the number of a step's processes by default; why it cannot be had, and what to do."""
    from builder.sandbox.cgroup import unavailable

    users = True if found.maps and not found.chroot else None
    means = bounds.means(own_pids=not found.chroot, users=users)
    return (means, *(unavailable("pids") if means == "cgroup" else ("", "")))


def _network_of(found: Isolation) -> str:
    way = "NAT of the kernel" if found.private_network else "slirp4netns or pasta"
    return f"its own, out by {way}; the machine's with --network=host, or RUN's if --allow network.host"


def downgrades(found: Isolation) -> list[str]:
    """What is weaker than on the first rung, a sentence each."""
    lines = list(found.notes)
    if found.chroot:
        lines.append("no namespaces: only for Dockerfiles that you would run yourself")
    elif not found.runs:
        lines.append("no RUN")
    if found.runs and _bound(found)[1]:
        mend = "update to Linux 6.14, or let pybuild write to the pids controller (cgroups, docs/limits.md)"
        lines.append(f"nothing of pybuild's bounds the number of a step's processes: {mend}")
    if found.rung.number in (3, 4) and found.storage != "overlay":
        lines.append(f"snapshots by {found.storage}: the same layers, slower")
    if found.notes_owners:
        lines.append(
            "stat(2) in a step shows root as every file's owner, and all its processes are one user's"
        )
    return lines
