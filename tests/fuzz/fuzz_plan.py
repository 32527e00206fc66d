"""A sandbox on its way to the launcher: what is packed is what is unpacked, or it is refused."""

from __future__ import annotations

import os

from harness import Bits

from builder.sandbox.plan import CAPABILITIES, RLIMITS, Plan, pack
from builder.sandbox.spec import Bind, File, Layers, Mount, Overlay, Sandbox, Terminal, Tmpfs

SEEDS = (bytes(range(256)), b"\x01" * 200, b"\x00\x05/a/b\x00\xff" * 30)


def target(data: bytes) -> None:
    """Names, paths and numbers from the bytes."""
    bits = Bits(data)
    root = (
        Overlay((bits.text(), bits.text()), bits.text(), bits.text(), bits.flag(), bits.flag())
        if bits.flag()
        else Bind(bits.text(), read_only=bits.flag())
    )
    sandbox = Sandbox(
        root,
        tuple(bits.text() for _ in range(bits.number(3))),
        env=tuple((bits.text(), bits.text()) for _ in range(bits.number(3))),
        cwd=bits.text(),
        uid=bits.number(1 << 32),
        groups=tuple(bits.number(1 << 32) for _ in range(bits.number(3))),
        hostname=bits.text(),
        mounts=tuple(_mount(bits) for _ in range(bits.number(6))),
        capabilities=frozenset(bits.pick((*CAPABILITIES, "NONE")) for _ in range(bits.number(4))),
        rlimits=tuple((bits.pick((*RLIMITS, "x")), bits.number(9), -1) for _ in range(bits.number(2))),
        terminal=Terminal(bits.number(200), 80) if bits.flag() else None,
        privileged=bits.flag(),
        unfiltered=bits.flag(),
    )
    assert sandbox.describe()
    try:
        plan = Plan(pack(sandbox, stubs=bits.text()))
    except ValueError as error:
        assert str(error)
        return
    assert [os.fsdecode(word) for word in plan.argv] == list(sandbox.argv)
    assert [(os.fsdecode(name), os.fsdecode(value)) for name, value in plan.env] == list(sandbox.env)
    assert [os.fsdecode(target) for _, target, _, _ in plan.mounts] == [
        each.target for each in sandbox.mounts
    ]
    assert not any(b"\0" in each for each in (*plan.argv, *plan.lowers, plan.cwd, plan.source, plan.upper))


def _mount(bits: Bits) -> Mount:
    match bits.number(3):
        case 0:
            return Bind(bits.text(), bits.text(), bits.flag(), bits.text(), bits.flag())
        case 1:
            return Layers(bits.text(), (bits.text(), bits.text()), bits.text(), upper=bits.text())
        case 2:
            return Tmpfs(bits.text(), bits.number(1 << 40), bits.number(0o7777), bits.flag())
    return File(bits.text(), bits.bytes(20), bits.number(0o7777), bits.number(9), bits.number(9))
