"""The races of S15, S18 and S33 once more in a user namespace, where an ordinary user's steps run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "which",
    ["not endurance", pytest.param("endurance", marks=[pytest.mark.endurance, pytest.mark.timeout(1800)])],
)
def test_s15_s18_s33_rootless(which: str, tmp_path: Path) -> None:
    inside = ["unshare", "--user", "--map-root-user", "--keep-caps", "--mount"]
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    pytest_ += ["--basetemp", str(tmp_path / "inner"), "tests/root/test_races.py", "-m", which]
    done = subprocess.run([*inside, *pytest_], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert re.search(r"^3 passed", done.stdout, re.MULTILINE), done.stdout
