"""Limits for ordinary users: a scope of systemd's, whose cgroup is delegated to us (docs/limits.md)."""

from __future__ import annotations

import os
import sys

_MARK = "PYBUILD_IN_SCOPE"
_COMMAND = ("systemd-run", "--user", "--scope", "--quiet", "--collect", "-p", "Delegate=yes", "--")


def enter_scope() -> None:
    """Run this command line again in a scope, where only that makes limits possible; else do nothing.

    To be called before anything is read or written. The scope is systemd's to remove, with all that is left
    in it.
    """
    from builder.sandbox.cgroup_tree import hierarchies, system_root

    if os.environ.pop(_MARK, "") or system_root():
        return
    own = next((each.own for each in hierarchies() if each.version == 2), "")
    manager = os.path.join(os.environ.get("XDG_RUNTIME_DIR", ""), "systemd", "private")
    if not own or os.access(own, os.W_OK) or not os.path.exists(manager):
        return
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        program = os.path.join(folder, _COMMAND[0])
        if os.access(program, os.X_OK):
            os.execve(program, [*_COMMAND, sys.executable, *sys.orig_argv[1:]], {**os.environ, _MARK: "1"})
