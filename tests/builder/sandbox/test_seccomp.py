"""The filter by every number there is, run by an interpreter of our own: x86-64, i386, aarch64 and arm.

The aarch64 program has not been run on such a machine; what it answers is tried here.
"""

from __future__ import annotations

import struct

import pytest

from builder.sandbox import abi, seccomp
from builder.sandbox.seccomp import AUDIT_AARCH64, AUDIT_ARM, AUDIT_I386, AUDIT_X86_64, program
from builder.sandbox.spec import DEFAULT_CAPABILITIES

KERNEL = (6, 1)
ALLOW = 0
NATIVE = {"x86_64": AUDIT_X86_64, "aarch64": AUDIT_AARCH64}
TABLES = {
    AUDIT_X86_64: ("x86_64", abi.X86_64),
    AUDIT_I386: ("x86_64", abi.I386),
    AUDIT_AARCH64: ("aarch64", abi.AARCH64),
    AUDIT_ARM: ("aarch64", abi.ARM),
}


def decoded(machine: str, capabilities: frozenset[str] = DEFAULT_CAPABILITIES) -> list[tuple[int, ...]]:
    return list(struct.iter_unpack("=HBBI", program(capabilities, machine, KERNEL)))


def run(code: list[tuple[int, ...]], arch: int, number: int, first: int = 0) -> int:
    """The errno a call is answered with, 0 when it is allowed (seccomp(2), bpf(4) of BSD)."""
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, first & (1 << 64) - 1, 0, 0, 0, 0, 0)
    held = at = 0
    while True:
        operation, true, false, operand = code[at]
        at += 1
        if operation == 0x20:
            (held,) = struct.unpack_from("=I", data, operand)
        elif operation == 0x05:
            at += operand
        elif operation == 0x06:
            assert operand == 0x7FFF0000 or operand >> 16 == 5, hex(operand)
            return operand & 0xFFFF if operand >> 16 == 5 else ALLOW
        else:
            tests = {0x15: held == operand, 0x35: held >= operand, 0x45: bool(held & operand)}
            at += true if tests[operation] else false


def answers(arch: int, capabilities: frozenset[str] = DEFAULT_CAPABILITIES) -> dict[str, int]:
    machine, table = TABLES[arch]
    code = decoded(machine, capabilities)
    return {name: run(code, arch, number) for name, number in abi.numbers(table).items()}


@pytest.mark.parametrize("arch", TABLES)
def test_every_number(arch: int) -> None:
    """Known calls as decided, all others ENOSYS, also beyond the end and at the extremes."""
    machine, table = TABLES[arch]
    code = decoded(machine)
    known = {number: name for name, number in abi.numbers(table).items()}
    refused = seccomp._refused(DEFAULT_CAPABILITIES, KERNEL)
    for number in [*range(1200), 0x0F0000, *range(0x0F0001, 0x0F0008), 1 << 30, (1 << 30) + 1, 0xFFFFFFFF]:
        name = known.get(number)
        wanted = 38 if name in (None, "clone3") else 1 if name in refused else ALLOW
        assert run(code, arch, number) == wanted, (number, name)


@pytest.mark.parametrize("arch", TABLES)
def test_s24_the_calls_of_the_requirement(arch: int) -> None:
    found = answers(arch)
    refused = (
        "keyctl add_key request_key io_uring_setup io_uring_enter io_uring_register bpf mount umount2 unshare"
        " setns pivot_root open_by_handle_at userfaultfd perf_event_open kexec_load swapon init_module"
        " finit_module reboot fsopen move_mount open_tree mount_setattr open_tree_attr syslog acct"
    )
    for name in refused.split():
        assert found[name] == 1, name
    assert found["clone3"] == 38
    allowed = "read openat execve chroot ptrace setgroups capset prctl seccomp mknodat landlock_add_rule"
    for name in allowed.split():
        assert found[name] == ALLOW, name


@pytest.mark.parametrize("arch", TABLES)
def test_what_depends_on_an_argument(arch: int) -> None:
    machine, table = TABLES[arch]
    code, numbers = decoded(machine), abi.numbers(table)

    def answer(name: str, first: int) -> int:
        return run(code, arch, numbers[name], first)

    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert answer("clone", flag | 17) == 1
    assert answer("clone", 0x3D0F00) == ALLOW  # a thread
    assert [answer("personality", value) for value in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF, -1)] == [ALLOW] * 6
    assert [answer("personality", value) for value in (0x40000, 0x400000, 1)] == [1] * 3
    assert [value for value in range(64) if answer("socket", value) == ALLOW] == [0, 1, 2, 10, 16, 17]
    assert answer("socket", 38) == answer("socket", 40) == answer("socket", 1 << 32 | 38) == 97


def test_socketcall_makes_no_socket() -> None:
    code = decoded("x86_64")
    found = [run(code, AUDIT_I386, 102, call) for call in range(21)]
    assert found == [38 if call == 1 else ALLOW for call in range(21)]


@pytest.mark.parametrize("machine", NATIVE)
def test_another_machines_calls(machine: str) -> None:
    code = decoded(machine)
    for arch in (0x80000016, 0xC00000F3, 0x40000003 if machine == "aarch64" else 0xC00000B7, 0):
        assert {run(code, arch, number) for number in range(500)} == {38}


@pytest.mark.parametrize("machine", NATIVE)
@pytest.mark.parametrize("capabilities", [DEFAULT_CAPABILITIES, frozenset(), frozenset({"SYS_ADMIN", "BPF"})])
def test_the_kernel_would_take_it(machine: str, capabilities: frozenset[str]) -> None:
    """What the kernel's verifier asks: at most 4,096 instructions, jumps inside, a return at the end."""
    code = decoded(machine, capabilities)
    assert len(code) <= 4096
    for at, (operation, true, false, operand) in enumerate(code):
        if operation in (0x15, 0x35, 0x45):
            assert at + 1 + max(true, false) < len(code)
        elif operation == 0x05:
            assert at + 1 + operand < len(code)
        elif operation == 0x20:
            assert operand % 4 == 0 and operand < 64
        else:
            assert operation == 0x06
    assert code[-1][0] == 0x06


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        ("SYS_ADMIN", "mount"),
        ("SYS_ADMIN", "clone3"),
        ("BPF", "bpf"),
        ("SYSLOG", "syslog"),
        ("SYS_PTRACE", "process_madvise"),
        ("SYS_TIME", "clock_settime"),
        ("DAC_READ_SEARCH", "open_by_handle_at"),
    ],
)
def test_calls_that_come_with_a_capability(capability: str, name: str) -> None:
    for arch in TABLES:
        assert answers(arch)[name] != ALLOW
        assert answers(arch, DEFAULT_CAPABILITIES | {capability})[name] == ALLOW


def test_chroot_goes_with_its_capability() -> None:
    assert answers(AUDIT_X86_64, DEFAULT_CAPABILITIES - {"SYS_CHROOT"})["chroot"] == 1


def test_tracing_before_4_8() -> None:
    code = list(struct.iter_unpack("=HBBI", program(DEFAULT_CAPABILITIES, "x86_64", (4, 7))))
    assert run(code, AUDIT_X86_64, 101) == 1


def test_other_machines_have_no_list() -> None:
    with pytest.raises(seccomp.Unfiltered, match="riscv64"):
        program(DEFAULT_CAPABILITIES, "riscv64")


def test_every_refused_name_is_a_call_of_some_machine() -> None:
    known = {name for _, table in TABLES.values() for name in abi.numbers(table)}
    assert seccomp._refused(frozenset(), (4, 7)) <= known


def test_numbers_of_the_tables() -> None:
    """A few from each machine's manual, so that a table made with the wrong word size is seen."""
    wanted = {
        AUDIT_X86_64: {"read": 0, "clone": 56, "seccomp": 317, "rseq": 334},
        AUDIT_I386: {"exit": 1, "clone": 120, "socketcall": 102, "clock_gettime64": 403},
        AUDIT_AARCH64: {"clock_settime": 112, "clone": 220, "newfstatat": 79, "rseq": 293, "seccomp": 277},
        AUDIT_ARM: {"socket": 281, "openat": 322, "seccomp": 383, "rseq": 398, "set_tls": 0x0F0005},
    }
    for arch, names in wanted.items():
        found = abi.numbers(TABLES[arch][1])
        assert {name: found.get(name) for name in names} == names
        assert found["clone3"] == 435
        assert found["file_setattr"] == 469
