"""The tests of steps once more on kernels without the newer calls: a filter answers those with ENOSYS."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

HERE = Path(__file__).parent
SLOW = "not thousand and not 300 and not 130 and not s10"


def _run(version: str, temporary: Path, *arguments: str) -> str:
    """pytest under the filter, with its files in `temporary`; what it printed."""
    command = [sys.executable, str(HERE / "old_kernel.py"), version, sys.executable, "-m", "pytest", "-q"]
    quiet = ["-p", "no:cacheprovider", "-p", "no:xdist", "--basetemp", str(temporary / "inner")]
    done = subprocess.run([*command, *quiet, *arguments], cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    return done.stdout


def test_the_filter_is_there() -> None:
    code = "import os; from builder.sandbox import mountcalls, overlay; print(overlay.best_way())"
    for version, way in (("5.1", "3"), ("5.8", "3"), ("5.11", "3")):
        command = [sys.executable, str(HERE / "old_kernel.py"), version, sys.executable, "-c", code]
        assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == way


def test_steps_on_a_kernel_of_2019(tmp_path: Path) -> None:
    """Without openat2, close_range and every call that makes or moves a mount by descriptor."""
    files = [str(HERE / name) for name in ("test_sandbox.py", "test_sandbox_hostile.py")]
    output = _run("5.1", tmp_path, *files, "-k", SLOW)
    (passed,) = re.findall(r"(\d+) passed", output)
    assert int(passed) > 50
    assert "skipped" not in output


def test_threads_on_a_kernel_of_2019(tmp_path: Path) -> None:
    """Whether overlay can be had is tried without a fork: many threads build at once."""
    assert "2 passed" in _run("5.1", tmp_path, str(HERE / "test_build.py"), "-k", "many_builds")


@pytest.mark.endurance
@pytest.mark.parametrize("version", ["5.1", "5.8", "5.11"])
def test_every_step_on_older_kernels(version: str, tmp_path: Path) -> None:
    names = "test_sandbox.py test_sandbox_hostile.py test_confinement.py test_mounts.py test_build.py"
    # Which tell of this filter, and of no mount for s10.
    unlike = "not (s10 and mount) and not without_a_filter and not test_security_options"
    quick = "not corpus and not endurance"
    _run(version, tmp_path, *(str(HERE / name) for name in names.split()), "-m", quick, "-k", unlike)
