"""A Sandbox on its way to the launcher: bytes and numbers only, in marshal's format.

Both ends are the same interpreter, so marshal is safe here and costs the launcher no import. Names become
bytes on the builder's side: the launcher runs with an empty environment and another locale.
"""

from __future__ import annotations

import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from builder.sandbox.spec import Sandbox

# fmt: off
CAPABILITIES = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
]
"""Names by number (capabilities(7))."""

RLIMITS = [
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks",
    "sigpending", "msgqueue", "nice", "rtprio", "rttime",
]
"""Names by number (getrlimit(2)), as `--ulimit` spells them."""
# fmt: on


class Plan:
    """What the launcher knows of one step. Paths are host paths as bytes but `cwd` and mount targets (in
    the root).

    `mounts` holds (kind, target, source or content, more); `more` is (read-only, path, flags) for a bind,
    (lowers, upper, work, path) for layers, (size, mode, read-only, flags) for a tmpfs, (mode, uid, gid) for a
    file.
    """

    __slots__ = (
        "argv",
        "capabilities",
        "cgroup",
        "chroot",
        "cwd",
        "env",
        "errors",
        "gid",
        "groups",
        "hostname",
        "join",
        "lowers",
        "mounts",
        "netns",
        "network",
        "no_new_privileges",
        "number",
        "overlay_by",
        "owners",
        "privileged",
        "read_only",
        "rlimits",
        "seccomp",
        "shm_size",
        "show",
        "source",
        "stdin",
        "strict",
        "tasks",
        "terminal",
        "uid",
        "upper",
        "userxattr",
        "volatile",
        "wall_s",
        "work",
    )
    lowers: list[bytes]
    upper: bytes
    work: bytes
    volatile: bool
    userxattr: bool
    overlay_by: int
    owners: tuple[bytes, list[tuple[int, int, str]], bytes, bytes] | tuple[()]
    privileged: bool
    source: bytes
    read_only: bool
    argv: list[bytes]
    env: list[tuple[bytes, bytes]]
    cwd: bytes
    uid: int
    gid: int
    groups: list[int]
    hostname: bytes
    mounts: list[tuple[str, bytes, bytes, tuple[Any, ...]]]
    network: str
    no_new_privileges: bool
    capabilities: int
    rlimits: list[tuple[int, int, int]]
    seccomp: bytes
    shm_size: int
    show: str
    stdin: bool
    strict: bool
    chroot: bool
    terminal: tuple[int, int] | tuple[()]
    errors: bool
    netns: bool
    cgroup: bool
    tasks: int
    wall_s: float
    number: int
    join: int

    def __init__(self, packed: bytes) -> None:
        for name, value in zip(self.__slots__, marshal.loads(packed), strict=True):
            setattr(self, name, value)


def pack(
    sandbox: Sandbox,
    *,
    stubs: str = "",
    overlay_by: int = 0,
    stdin: bool = False,
    errors: bool = False,
    netns: bool = False,
    cgroup: bool = False,
    tasks: int = 0,
    number: int = 0,
    join: int = 0,
    show: str = "",
) -> bytes:
    """`sandbox` as the bytes that `Plan` reads.

    `stubs` is a host directory that becomes the lowest overlay layer; the flags say which descriptors come
    along: a network namespace, standard input, a standard error apart from the output, a cgroup v2
    directory, and how many files of cgroups v1. A step with a `number` tells its process id and can be
    joined; one with `join` goes into the namespaces of the step with that number, and nothing that makes
    its surroundings counts. One with `show` hands over its root and executes nothing
    (`step.SHOWN`). Raises ValueError for a name that is not known or a string the kernel could not take (a
    NUL byte).
    """
    values = _root(sandbox, stubs) | {
        "overlay_by": overlay_by,
        "argv": [_bytes(word) for word in sandbox.argv],
        "env": [_variable(name, value) for name, value in sandbox.env],
        "cwd": _bytes(sandbox.cwd),
        "uid": sandbox.uid,
        "gid": sandbox.gid,
        "groups": list(sandbox.groups),
        "hostname": _bytes(sandbox.hostname),
        "mounts": [_mount(mount) for mount in sandbox.mounts],
        "network": sandbox.network,
        "no_new_privileges": sandbox.no_new_privileges,
        "capabilities": -1 if sandbox.privileged else capability_mask(sandbox.capabilities),
        "owners": _owners(sandbox),
        "privileged": sandbox.privileged,
        "strict": sandbox.strict,
        "chroot": sandbox.chroot,
        "rlimits": [(_index(RLIMITS, name, "limit"), soft, hard) for name, soft, hard in sandbox.rlimits],
        "seccomp": _filter(sandbox),
        "shm_size": sandbox.shm_size,
        "stdin": stdin,
        "terminal": (sandbox.terminal.rows, sandbox.terminal.columns) if sandbox.terminal else (),
        "errors": errors,
        "netns": netns,
        "cgroup": cgroup,
        "tasks": tasks,
        "wall_s": sandbox.limits.wall_s,
        "number": number,
        "join": join,
        "show": show,
    }
    return marshal.dumps([values[name] for name in Plan.__slots__])


def _filter(sandbox: Sandbox) -> bytes:
    """The filter for its system calls, assembled once per process; none for a privileged one or where it was
    declined.
    """
    from builder.sandbox.seccomp import program

    return b"" if sandbox.privileged or sandbox.unfiltered else program(sandbox.capabilities)


def _owners(sandbox: Sandbox) -> tuple[object, ...]:
    """What its owners are noted with: a filter, the calls it hands over, and where the notes go."""
    if sandbox.owners is None:
        return ()
    from builder.sandbox import owners

    return owners.program(), owners.handed_over(), _bytes(sandbox.owners.upper), _bytes(sandbox.owners.notes)


def capability_mask(names: frozenset[str]) -> int:
    """The bit mask of capability names without their `CAP_`."""
    return sum(1 << _index(CAPABILITIES, name, "capability") for name in names)


def _index(names: list[str], name: str, what: str) -> int:
    try:
        return names.index(name)
    except ValueError:
        raise ValueError(f"unknown {what} {name!r}") from None


def _bytes(text: str) -> bytes:
    import os

    if "\0" in text:
        raise ValueError(f"a NUL byte in {text!r}")
    return os.fsencode(text)


def _variable(name: str, value: str) -> tuple[bytes, bytes]:
    """A variable, whose value may be a secret and is in no message."""
    if "\0" in value:
        raise ValueError(f"a NUL byte in the value of {name!r}")
    return _bytes(name), _bytes(value)


def _root(sandbox: Sandbox, stubs: str) -> dict[str, object]:
    from builder.sandbox.spec import Overlay

    root = sandbox.root
    if isinstance(root, Overlay):
        lowers = [_bytes(path) for path in (*root.lowers, *([stubs] if stubs else []))]
        return {
            "lowers": lowers,
            "upper": _bytes(root.upper),
            "work": _bytes(root.work),
            "volatile": root.volatile,
            "userxattr": root.userxattr,
            "source": b"",
            "read_only": not root.upper,
        }
    return {
        "lowers": [],
        "upper": b"",
        "work": b"",
        "volatile": False,
        "userxattr": False,
        "source": _bytes(root.source),
        "read_only": root.read_only,
    }


def _mount(mount: object) -> tuple[str, bytes, bytes, tuple[Any, ...]]:
    from builder.sandbox.spec import Bind, File, Layers, Tmpfs

    match mount:
        case Bind(source, target, read_only, path, _, flags):
            return ("bind", _bytes(target), _bytes(source), (read_only, _bytes(path), flags))
        case Layers(target, lowers, path, _, upper, work):
            below = [_bytes(each) for each in lowers]
            return ("layers", _bytes(target), b"", (below, _bytes(upper), _bytes(work), _bytes(path)))
        case Tmpfs(target, size, mode, read_only, flags):
            return ("tmpfs", _bytes(target), b"", (size, mode, read_only, flags))
        case File(target, content, mode, uid, gid):
            return ("file", _bytes(target), content, (mode, uid, gid))
        case _:
            raise ValueError(f"{mount!r} is no mount")
