"""A Sandbox's way over the socket."""

from __future__ import annotations

import pytest

from builder.sandbox.plan import CAPABILITIES, Plan, capability_mask, pack
from builder.sandbox.spec import DEFAULT_CAPABILITIES, Bind, File, Overlay, Sandbox, Tmpfs


def test_everything_arrives() -> None:
    sandbox = Sandbox(
        root=Overlay(("/l1", "/l\udcff"), "/u", "/w"),
        argv=("sh", "-c", "é"),
        env=(("A", "b=c"),),
        cwd="/srv",
        uid=5,
        gid=6,
        groups=(7,),
        mounts=(Bind("/s", "/t", read_only=True), Tmpfs("/x", 9, 0o700), File("/f", b"\0", 0o755)),
        rlimits=(("nofile", 1, -1),),
    )
    plan = Plan(pack(sandbox, stubs="/stubs", netns=True))
    assert plan.lowers == [b"/l1", b"/l\xff", b"/stubs"]
    assert (plan.upper, plan.work, plan.read_only, plan.volatile) == (b"/u", b"/w", False, True)
    assert plan.argv == [b"sh", b"-c", "é".encode()]
    assert plan.env == [(b"A", b"b=c")]
    assert (plan.cwd, plan.uid, plan.gid, plan.groups) == (b"/srv", 5, 6, [7])
    assert plan.mounts == [
        ("bind", b"/t", b"/s", (True, b"", ())),
        ("tmpfs", b"/x", b"", (9, 0o700, False, ())),
        ("file", b"/f", b"\0", (0o755, 0, 0)),
    ]
    assert plan.rlimits == [(7, 1, -1)]
    assert (plan.netns, plan.stdin, plan.errors) == (True, False, False)


def test_roots_without_an_upper_are_read_only() -> None:
    assert Plan(pack(Sandbox(Overlay(("/l",)), ("x",)))).read_only
    plan = Plan(pack(Sandbox(Bind("/dir"), ("x",))))
    assert (plan.lowers, plan.source, plan.read_only) == ([], b"/dir", False)


def test_names_of_capabilities() -> None:
    assert (CAPABILITIES[21], CAPABILITIES[40]) == ("SYS_ADMIN", "CHECKPOINT_RESTORE")
    assert capability_mask(DEFAULT_CAPABILITIES) == 0xA80425FB
    with pytest.raises(ValueError, match="unknown capability 'CAP_KILL'"):
        capability_mask(frozenset({"CAP_KILL"}))


@pytest.mark.parametrize(
    "sandbox",
    [
        Sandbox(Bind("/"), ("a\0b",)),
        Sandbox(Bind("/"), ("a",), env=(("A", "\0"),)),
        Sandbox(Bind("/"), ("a",), mounts=(Tmpfs("/a\0"),)),
    ],
)
def test_what_the_kernel_could_not_take(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="NUL"):
        pack(sandbox)
