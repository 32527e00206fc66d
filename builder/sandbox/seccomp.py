"""The system calls a step may make, as a filter for the kernel (seccomp(2), SECURITY.md S24).

An allow list: what a kernel has that this file has never heard of is answered with ENOSYS, as an older kernel
would. Of the calls it knows, those of `_REFUSED` are refused with EPERM unless the step has the capability
they are for; a few are looked at by their first argument. No library is needed: the program is assembled
here, once per build, as a binary search over ranges of numbers (KERNEL.md 7: that shape loads fastest).

Answers are at least as strict as those of Docker's default profile; docs/security.md tells the differences.
"""

from __future__ import annotations

import os
import struct
from functools import cache

EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97

AUDIT_X86_64, AUDIT_I386, AUDIT_AARCH64, AUDIT_ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028

NEW_NAMESPACES = 0x7E020000
"""The CLONE_NEW* flags of clone(2)."""

PERSONALITIES = (0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, 32-bit Linux, both with the kernel named 2.6, and the question what it is now."""

FAMILIES = (0, 1, 2, 10, 16, 17)
"""None, UNIX, IPv4, IPv6, netlink and packet; all others are as if the kernel had been built without them."""

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _JUMP, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06
_ARCH, _NUMBER, _FIRST = 4, 0, 16
"""Where seccomp_data holds them; of an argument the low half, which is all these calls read of it."""

_REFUSED = {
    # Never: keys and asynchronous rings know no namespaces; the others change the machine or are long gone.
    "": "keyctl add_key request_key io_uring_setup io_uring_enter io_uring_register userfaultfd kexec_load"
    " kexec_file_load swapon swapoff uselib pivot_root nfsservctl _sysctl sysfs ustat create_module"
    " get_kernel_syms query_module vm86 vm86old move_pages migrate_pages vserver afs_syscall tuxcall getpmsg"
    " putpmsg security bdflush break stty gtty ftime prof lock mpx ulimit profil idle pciconfig_iobase"
    " pciconfig_read pciconfig_write nice oldstat oldfstat oldlstat oldolduname olduname readdir sgetmask"
    " ssetmask signal file_setattr file_getattr",
    "SYS_ADMIN": "bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr"
    " lsm_set_self_attr lsm_list_modules listmount statmount mount mount_setattr move_mount open_tree"
    " open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount"
    " umount2 unshare",
    "DAC_READ_SEARCH": "open_by_handle_at",
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYS_MODULE": "init_module finit_module delete_module",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "SYS_RAWIO": "iopl ioperm",
    "SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "SYS_TTY_CONFIG": "vhangup",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "SYSLOG": "syslog",
    "BPF": "bpf",
    "PERFMON": "perf_event_open",
}
_TRACING = "ptrace process_vm_readv process_vm_writev"
"""Before Linux 4.8 a tracer could change the call after the filter had seen it."""

Code = list[tuple[int, int, int, int]]
"""Instructions: operation, jumps if true and if false, operand."""


class Unfiltered(ValueError):
    """There is no list of calls for this machine."""


@cache
def program(capabilities: frozenset[str], machine: str = "", kernel: tuple[int, int] = (0, 0)) -> bytes:
    """The filter of a step with `capabilities` (no `CAP_`), as the array of sock_filter the kernel takes.

    `machine` is x86_64 or aarch64, `kernel` the version; without them, those of this machine. Raises
    Unfiltered for another machine.
    """
    machine, kernel = machine or os.uname().machine, kernel if kernel != (0, 0) else _kernel()
    known = tables(machine)
    refused = _refused(capabilities, kernel)
    code: Code = [(_LOAD, 0, 0, _ARCH)]
    for arch, numbers, beyond in known:
        body = [(_LOAD, 0, 0, _NUMBER), *_search(_segments(numbers, refused, capabilities, beyond))]
        code += [(_EQUAL, 1, 0, arch), (_JUMP, 0, 0, len(body)), *body]
    code += _error(ENOSYS)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.replace("-", ".").split(".")[:2]
    return int(major), int(minor) if minor.isdigit() else 0


def tables(machine: str) -> list[tuple[int, dict[str, int], int]]:
    """(audit number, calls, first number that is none) of the machine and of its 32-bit programs."""
    from builder.sandbox import abi

    if machine == "x86_64":
        x32 = 1 << 30  # the bit that marks calls of that ABI, which no distribution uses
        return [
            (AUDIT_X86_64, abi.numbers(abi.X86_64), x32),
            (AUDIT_I386, abi.numbers(abi.I386), 1 << 32),
        ]
    if machine == "aarch64":
        return [
            (AUDIT_AARCH64, abi.numbers(abi.AARCH64), 1 << 32),
            (AUDIT_ARM, abi.numbers(abi.ARM), 1 << 32),
        ]
    raise Unfiltered(
        f"no list of system calls for {machine}: a step runs there with --security=insecure only"
    )


def _refused(capabilities: frozenset[str], kernel: tuple[int, int]) -> frozenset[str]:
    groups = dict(_REFUSED)
    if kernel < (4, 8):
        groups["SYS_PTRACE"] += " " + _TRACING
    allowed = {name for group in capabilities for name in groups.get(group, "").split()}
    return frozenset(name for names in groups.values() for name in names.split()) - allowed


def _segments(
    numbers: dict[str, int], refused: frozenset[str], capabilities: frozenset[str], beyond: int
) -> list[tuple[int, Code]]:
    """What follows from each number on, neighbours with the same answer joined."""
    answers = {number: _answer(name, refused, capabilities) for name, number in numbers.items()}
    unknown = _error(ENOSYS)
    segments: list[tuple[int, Code]] = []
    after = 0
    for number in sorted(answers):
        if number >= beyond:
            break
        if number > after:
            _append(segments, after, unknown)
        _append(segments, number, answers[number])
        after = number + 1
    _append(segments, after, unknown)
    return segments


def _append(segments: list[tuple[int, Code]], start: int, code: Code) -> None:
    if not segments or segments[-1][1] != code:
        segments.append((start, code))


def _answer(name: str, refused: frozenset[str], capabilities: frozenset[str]) -> Code:
    if name in refused:
        return _error(EPERM)
    if name in ("clone", "clone3") and "SYS_ADMIN" not in capabilities:
        # The C library then uses clone, whose flags are not behind a pointer.
        return _error(ENOSYS) if name == "clone3" else _unless_bits(NEW_NAMESPACES)
    if name == "personality":
        return _among(PERSONALITIES, EPERM)
    if name == "socket":
        return _among(FAMILIES, EAFNOSUPPORT)
    if name == "socketcall":
        # Its families are behind a pointer: creating a socket (1) is left to socket(2).
        return [(_LOAD, 0, 0, _FIRST), (_EQUAL, 0, 1, 1), *_error(ENOSYS), *_allow()]
    return _allow()


def _allow() -> Code:
    return [(_RETURN, 0, 0, 0x7FFF0000)]


def _error(number: int) -> Code:
    return [(_RETURN, 0, 0, 0x00050000 | number)]


def _unless_bits(mask: int) -> Code:
    return [(_LOAD, 0, 0, _FIRST), (_ANY_BIT, 0, 1, mask), *_error(EPERM), *_allow()]


def _among(values: tuple[int, ...], error: int) -> Code:
    tests: Code = [(_EQUAL, len(values) - at, 0, value) for at, value in enumerate(values)]
    return [(_LOAD, 0, 0, _FIRST), *tests, *_error(error), *_allow()]


def _search(segments: list[tuple[int, Code]]) -> Code:
    """A binary search: the lower half follows, the upper half is jumped to."""
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    lower, upper = _search(segments[:middle]), _search(segments[middle:])
    return [*_at_least(segments[middle][0], len(lower)), *lower, *upper]


def _at_least(number: int, distance: int) -> Code:
    """Jump over `distance` instructions from `number` on; a conditional jump reaches 255."""
    if distance <= 255:
        return [(_AT_LEAST, distance, 0, number)]
    return [(_AT_LEAST, 0, 1, number), (_JUMP, 0, 0, distance)]
