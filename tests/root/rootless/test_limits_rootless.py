"""Limits for an ordinary user: in a cgroup that is lent to them, and said to be impossible without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from builder.sandbox.cgroup_tree import hierarchies

pytestmark = pytest.mark.root

HOG = "FROM base\nRUN dd if=/dev/zero of=/dev/null bs={}M count=1\n"


@pytest.fixture
def user(lent: Any, rootfs: bytes) -> Any:
    """With an image, and a directory to build."""
    if not (lent.home / "base.tar").exists():
        (lent.home / "base.tar").write_bytes(rootfs)
        (lent.home / "base.tar").chmod(0o644)
        done = lent.pybuild("import", "base.tar", "base")
        assert done.returncode == 0, done.stderr
    (lent.home / "hog").mkdir(exist_ok=True)
    (lent.home / "hog").chmod(0o755)
    return lent


@pytest.fixture
def delegated(user: Any) -> Iterator[str]:
    """A cgroup of the user's for memory, where that is a hierarchy of its own."""
    memory = next((each for each in hierarchies() if "memory" in each.controllers), None)
    if memory is None:
        pytest.skip("no hierarchy of version 1 has memory")
    path = os.path.join(memory.mount, f"pybuild-test-{os.getpid()}")
    os.mkdir(path)
    os.chown(path, user.entry.pw_uid, -1)
    yield os.path.basename(path)
    os.rmdir(path)


def test_in_a_cgroup_of_their_own(user: Any, delegated: str) -> None:
    limits = ("--network=none", "-m", "32m", "--cgroup-parent", delegated)
    (user.home / "hog" / "Dockerfile").write_text(HOG.format(100))
    done = user.pybuild("build", *limits, "hog")
    assert done.returncode == 5, done.stderr
    assert "out of memory at the limit of 32 MiB for all steps (--memory)" in done.stderr
    (user.home / "hog" / "Dockerfile").write_text(HOG.format(8))
    done = user.pybuild("build", *limits, "hog")
    assert done.returncode == 0, done.stderr
    done = user.pybuild("build", *limits, "--cpus", "1", "hog")
    assert done.returncode == 2 and "--cpu-quota (--cpus): cgroups below" in done.stderr


def test_without_one_it_is_said_and_what_to_do(user: Any) -> None:
    (user.home / "hog" / "Dockerfile").write_text(HOG.format(8))
    done = user.pybuild("build", "--network=none", "-m", "32m", "hog", XDG_RUNTIME_DIR="")
    assert done.returncode == 2, done.stderr
    assert "the limit cannot be enforced: --memory" in done.stderr
    assert "systemd-run --user --scope -p Delegate=yes" in done.stderr
    done = user.pybuild("build", "--network=none", "-m", "32m", "--best-effort", "hog", XDG_RUNTIME_DIR="")
    assert done.returncode == 0 and "warning: LimitNotEnforced: --memory" in done.stderr
