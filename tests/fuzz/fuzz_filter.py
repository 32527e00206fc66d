"""The assembler of the filter of system calls: what its instructions answer, run one by one, is what the
policy says read plainly. Policies of any capabilities, machine and kernel, and searches over any segments.
"""

from __future__ import annotations

import struct

from harness import Bits

from builder.sandbox import abi, seccomp
from builder.sandbox.plan import CAPABILITIES

SEEDS = (b"", b"\0" * 40, b"\xff" * 60, bytes(range(120)), b"\1" + bytes(range(255, 60, -1)))
NAMES = tuple(sorted(CAPABILITIES))
MACHINES = {
    "x86_64": (seccomp.AUDIT_X86_64, seccomp.AUDIT_I386),
    "aarch64": (seccomp.AUDIT_AARCH64, seccomp.AUDIT_ARM),
}
TABLES = {
    seccomp.AUDIT_X86_64: abi.X86_64,
    seccomp.AUDIT_I386: abi.I386,
    seccomp.AUDIT_AARCH64: abi.AARCH64,
    seccomp.AUDIT_ARM: abi.ARM,
}
ALLOW = 0x7FFF0000
ERROR = 0x00050000


def run(code: list[tuple[int, ...]], arch: int, number: int, first: int) -> int:
    """What is returned; a jump only goes forward, so it ends."""
    data = struct.pack("=IIQ6Q", number, arch, 0, first, 0, 0, 0, 0, 0)
    held = at = 0
    while True:
        operation, true, false, operand = code[at]
        at += 1
        if operation == 0x20:
            (held,) = struct.unpack_from("=I", data, operand)
        elif operation == 0x05:
            at += operand
        elif operation == 0x06:
            return operand
        else:
            answers = {0x15: held == operand, 0x35: held >= operand, 0x45: held & operand != 0}
            at += true if answers[operation] else false


def wanted(
    capabilities: frozenset[str], kernel: tuple[int, int], machine: str, arch: int, number: int, first: int
) -> int:
    """The policy, a question after the other."""
    if arch not in MACHINES[machine]:
        return ERROR | 38
    names = [name for name, each in abi.numbers(TABLES[arch]).items() if each == number]
    if not names or (arch == seccomp.AUDIT_X86_64 and number >= 1 << 30):
        return ERROR | 38
    name, low = names[0], first & 0xFFFFFFFF
    groups = [group for group, words in seccomp._REFUSED.items() if name in words.split()]
    if kernel < (4, 8) and name in ("ptrace", "process_vm_readv", "process_vm_writev"):
        groups.append("SYS_PTRACE")
    if groups and not capabilities & set(groups):
        return ERROR | 1
    if "SYS_ADMIN" not in capabilities:
        if name == "clone3":
            return ERROR | 38
        if name == "clone" and low & 0x7E020000:
            return ERROR | 1
    if name == "personality" and low not in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        return ERROR | 1
    if name == "socket" and low not in (0, 1, 2, 10, 16, 17):
        return ERROR | 97
    if name == "socketcall" and low == 1:
        return ERROR | 38
    return ALLOW


def target(data: bytes) -> None:
    """A policy and calls; or a search and numbers."""
    bits = Bits(data)
    if bits.flag():
        search(bits)
        return
    capabilities = frozenset(name for name in NAMES if bits.number(7) == 0)
    machine = bits.pick(tuple(MACHINES))
    kernel = (bits.number(7) or 1, bits.number(20))
    code = list(struct.iter_unpack("=HBBI", seccomp.program.__wrapped__(capabilities, machine, kernel)))
    assert len(code) <= 4096
    special = (*TABLES, 0, 0x40000003, 0xC00000F3)
    for _ in range(24):
        arch = bits.pick(special)
        number = bits.number(600) if bits.number(3) else bits.number(0xFFFFFFFF)
        if arch in TABLES and bits.flag():
            table = abi.numbers(TABLES[arch])
            name = bits.pick(("clone", "clone3", "personality", "socket", "socketcall", "ptrace", "unshare"))
            number = table.get(name, number)
        first = bits.number((1 << 64) - 1) if bits.flag() else bits.number(64)
        answer = run(code, arch, number, first)
        assert answer == wanted(capabilities, kernel, machine, arch, number, first), (arch, number, first)


def search(bits: Bits) -> None:
    """Segments of bodies of any length: each number ends in its own."""
    starts, at = [0], 0
    for _ in range(bits.number(200)):
        at += 1 + bits.number(9)
        starts.append(at)
    bodies = [[(0x15, 0, 0, 0)] * bits.number(300) + [(0x06, 0, 0, each)] for each in starts]
    code = [(0x20, 0, 0, 0), *seccomp._search(list(zip(starts, bodies, strict=True)))]
    for (operation, true, false, operand), place in zip(code, range(1, len(code) + 1), strict=True):
        far = operand if operation == 0x05 else max(true, false) if operation in (0x15, 0x35) else 0
        assert max(true, false) <= 255 and place + far < len(code) + 1
    for number in {*starts, *(start + 1 for start in starts), 0xFFFFFFFF}:
        assert run(code, 0, number, 0) == max(start for start in starts if start <= number)
