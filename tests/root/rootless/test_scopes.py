"""Limits for an ordinary user in a scope of their own systemd, which lends them controllers of cgroups v2."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.root

BASE = "FROM base\nRUN {}\n"
HOG = "dd if=/dev/zero of=/dev/null bs=100M count=1"
BOMB = "bomb() { bomb | bomb & wait; }; bomb; exit 3"
Scope = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def runtime(users: dict[str, str]) -> Iterator[str]:
    """Where the user's own systemd listens. At their logout the files they have in /dev/shm are removed."""
    if not os.path.isdir("/run/systemd/system") or not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        pytest.skip("systemd does not run here with cgroups of version 2 alone")
    name = users["lent"]
    subprocess.run(["loginctl", "enable-linger", name], check=True)
    path = f"/run/user/{pwd.getpwnam(name).pw_uid}"
    until = time.monotonic() + 100
    while not os.path.exists(f"{path}/bus") and time.monotonic() < until:
        time.sleep(0.1)
    yield path
    subprocess.run(["loginctl", "disable-linger", name], check=True)
    subprocess.run(["systemctl", "stop", f"user@{os.path.basename(path)}"], check=True)


@pytest.fixture
def scope(runtime: str, lent: Any, rootfs: bytes) -> Scope:
    """`pybuild build` of a RUN in a scope that is the user's: `scope(command, *options)`."""
    if not (lent.home / "base.tar").exists():
        (lent.home / "base.tar").write_bytes(rootfs)
        (lent.home / "base.tar").chmod(0o644)
        assert lent.pybuild("import", "base.tar", "base").returncode == 0
    (lent.home / "scope").mkdir(mode=0o755, exist_ok=True)

    def run(command: str, *options: str) -> subprocess.CompletedProcess[str]:
        (lent.home / "scope" / "Dockerfile").write_text(BASE.format(command))
        (lent.home / "scope" / "Dockerfile").chmod(0o644)
        systemd = ("systemd-run", "--user", "--scope", "--quiet", "-p", "Delegate=yes")
        build = ("build", "--network=none", "--no-cache", *options, "scope")
        done: subprocess.CompletedProcess[str] = lent.run(
            *systemd,
            *(sys.executable, "-m", "builder.cli.main", *build),
            XDG_RUNTIME_DIR=runtime,
            DBUS_SESSION_BUS_ADDRESS=f"unix:path={runtime}/bus",
        )
        return done

    return run


def test_s95_memory_and_processes(scope: Scope) -> None:
    done = scope(HOG, "-m", "32m")
    assert done.returncode == 5, done.stderr
    assert "out of memory at the limit of 32 MiB for all steps (--memory)" in done.stderr
    done = scope(BOMB, "--pids-limit", "24")
    assert done.returncode == 5, done.stderr
    assert "at the limit of 24 for all steps" in done.stderr
    assert scope("true", "-m", "32m", "--pids-limit", "24").returncode == 0


def test_s95_what_systemd_does_not_lend_is_said(scope: Scope) -> None:
    done = scope("true", "--device-read-bps", "/dev/vda:1m")
    assert done.returncode == 2 and "the limit cannot be enforced: --device-read-bps" in done.stderr
