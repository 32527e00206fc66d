"""RLIMIT_NPROC in a user namespace bounds steps where the kernel cannot bound a pid namespace (S95)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[3]
CODE = """
import os, sys
sys.path.insert(0, sys.argv[1])
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
from builder.sandbox import syscalls, userns
from builder.sandbox.run import Launcher
from builder.sandbox.spec import Bind, Sandbox
syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)
userns.enter(userns.single(65534, 65534))
many = "i=0; while [ $i -lt 60 ]; do busybox sleep 1 & i=$((i+1)); done"
def run(**more):
    root = Bind(sys.argv[2], read_only=True)
    box = Sandbox(root, ("/bin/busybox", "sh", "-c", many), (("PATH", "/bin"),), network="none", **more)
    reading, writing = os.pipe()
    done = launcher.run(box, output_fd=writing)
    os.close(writing)
    print(done.error, os.read(reading, 1 << 16).decode(), file=sys.stderr)
    return done
with Launcher() as launcher:
    print(run(rlimits=(("nproc", 30, 30),)).status, run().status)
"""


def test_s95_rlimit_nproc_binds_the_root_of_a_user_namespace(top: str) -> None:
    """A step meets it, and the next one begins nevertheless."""
    for name in ("bin", "proc", "sys", "dev"):
        os.makedirs(f"{top}/tree/{name}")
    shutil.copy("/bin/busybox", f"{top}/tree/bin/busybox")
    words = [sys.executable, "-c", CODE, str(ROOT), f"{top}/tree"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["2", "0"], (done.stdout, done.stderr[-2000:])
    assert "can't fork" in done.stderr
