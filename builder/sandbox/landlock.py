"""Landlock (landlock(7)): a process gives up for good what lies outside of a directory, without privilege.

Used where steps have no namespaces: a file outside of the step's root, reached by whatever way, cannot be
opened, made or renamed; processes that are not the step's cannot be traced nor (from Linux 6.12 on)
signalled, and abstract sockets that are not its own cannot be connected to.
"""

from __future__ import annotations

import os
import struct

from builder.sandbox import syscalls as sys_

REFER = 2
"""The version that can allow renames between directories (Linux 5.19); before, a ruleset forbids them all."""
_RIGHTS = {2: 14, 3: 15, 5: 16}
"""From a version on: how many rights over files there are. Every one is given up outside."""
SCOPES, _EVERY_SCOPE = 6, 3
_VERSION, _PATH_BENEATH = 1, 1
_CREATE, _ADD, _RESTRICT = 444, 445, 446


def version() -> int:
    """The kernel's version of the interface; 0 where there is none, or a container's filter refuses it."""
    try:
        return sys_.raw("landlock_create_ruleset", _CREATE, None, 0, _VERSION)
    except OSError:
        return 0


def confine(folder: int) -> tuple[str, ...]:
    """Confine this process, and all it starts, to the directory open as `folder`.

    Needs no_new_privs or CAP_SYS_ADMIN. What the kernel is too old for is told: `landlock` (before 5.19, or
    switched off) or `landlock-scopes` (before 6.12).
    """
    found = version()
    if found < REFER:
        return ("landlock",)
    rights = (1 << max(count for since, count in _RIGHTS.items() if since <= found)) - 1
    wanted = struct.pack("=Q", rights)
    if found >= SCOPES:
        wanted += struct.pack("=QQ", 0, _EVERY_SCOPE)
    rules = sys_.raw("landlock_create_ruleset", _CREATE, wanted, len(wanted), 0)
    try:
        below = struct.pack("=Qi", rights, folder)
        sys_.raw("landlock_add_rule", _ADD, rules, _PATH_BENEATH, below, 0)
        sys_.raw("landlock_restrict_self", _RESTRICT, rules, 0)
    finally:
        os.close(rules)
    return () if found >= SCOPES else ("landlock-scopes",)
