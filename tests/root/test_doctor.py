"""Looking at a machine leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

LOOKING = """
import json, os, sys
from builder import doctor

def state():
    with open("/proc/self/mountinfo") as mounts:
        points = sorted(line.split()[4] for line in mounts)
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        return points, sorted(os.listdir("/proc/self/fd")), children.read().split()

before = state()
doctor.report("auto", sys.argv[1], security=True)
print(json.dumps([before, state()]))
"""


def test_nothing_stays(tmp_path: Path) -> None:
    """S105. S97: no mount, descriptor, process or file; in a mount namespace, where nobody else mounts."""
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", LOOKING, str(tmp_path / "store")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    assert after == before and before[0]
    assert not list(tmp_path.iterdir())
