"""A scope of systemd's for limits of ordinary users: when it is entered, and with which command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from builder.cli import limits
from builder.sandbox import cgroup_tree
from builder.sandbox.cgroup_tree import Hierarchy

FLAGS = {each.replace("-", "_"): None for each in limits._KEYS} | {"resource": ()}


class Entered(Exception):
    """In place of the program that is run."""


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with a manager of systemd's, and a cgroup of somebody else's."""
    (tmp_path / "systemd").mkdir()
    (tmp_path / "systemd" / "private").touch()
    (tmp_path / "systemd-run").write_text("#!/bin/sh\n")
    (tmp_path / "systemd-run").chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", f"/nonexistent:{tmp_path}")
    monkeypatch.delenv("PYBUILD_IN_SCOPE", raising=False)
    monkeypatch.setattr(cgroup_tree, "system_root", lambda: False)
    monkeypatch.setattr(cgroup_tree, "hierarchies", lambda: [Hierarchy(2, "/none", "/none/session")])

    def execve(program: str, argv: list[str], env: dict[str, str]) -> None:
        raise Entered(program, argv, env["PYBUILD_IN_SCOPE"])

    monkeypatch.setattr(os, "execve", execve)
    return tmp_path


def test_with_a_limit_it_is_entered(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "builder.cli.main", "-m", "1g", "."])
    with pytest.raises(Entered) as caught:
        limits.enter_scope(FLAGS | {"memory": "1g"})
    program, argv, mark = caught.value.args
    assert program == f"{user}/systemd-run" and mark == "1"
    assert argv[:2] == ["systemd-run", "--user"] and "Delegate=yes" in argv
    assert argv[argv.index("--") + 1 :] == [sys.executable, "-m", "builder.cli.main", "-m", "1g", "."]


def test_once_and_only_where_it_helps(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits.enter_scope(FLAGS)
    with monkeypatch.context() as patch:
        patch.setenv("PYBUILD_IN_SCOPE", "1")
        limits.enter_scope(FLAGS | {"memory": "1g"})
        assert "PYBUILD_IN_SCOPE" not in os.environ, "no step and no other build inherits it"
    with monkeypatch.context() as patch:
        patch.setattr(cgroup_tree, "system_root", lambda: True)
        limits.enter_scope(FLAGS | {"memory": "1g"})
    with monkeypatch.context() as patch:
        patch.setattr(cgroup_tree, "hierarchies", lambda: [Hierarchy(2, str(user), str(user))])
        limits.enter_scope(FLAGS | {"memory": "1g"})
    (user / "systemd" / "private").unlink()
    limits.enter_scope(FLAGS | {"memory": "1g"})
