"""Checks in a real build: each finding once, in every view, and nothing runs when findings are errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

DOCKERFILE = "FROM scratch AS Unused\nFROM scratch as final\nCOPY a $dir/\nCMD a\n"
TOLD = ("StageNameCasing", "FromAsCasing", "UndefinedVar", "JSONArgsRecommended")


def pybuild(context: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "builder.cli.main", "--root", f"{context}/store", "build", *args]
    return subprocess.run([*command, str(context)], capture_output=True, text=True)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / ".dockerignore").write_text("store\n")
    (tmp_path / "a").write_text("a")
    return tmp_path


def test_a_build_tells_each_finding_once_with_its_lines(context: Path) -> None:
    for _ in range(2):  # the second is wholly cached
        done = pybuild(context, "--progress", "plain")
        assert done.returncode == 0, done.stderr
        for code in TOLD:
            assert done.stderr.count(f"warning: {code}: ") == 1
        assert done.stderr.count("warning: ") == len(TOLD)
        assert "   3 | >>> COPY a $dir/\n" in done.stderr


def test_nothing_runs_when_findings_are_errors(context: Path) -> None:
    done = pybuild(context, "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true")
    assert done.returncode == 2
    assert "lint violation found for rules: StageNameCasing (line 1)" in done.stderr
    assert "COPY a" not in [line.partition("] ")[2] for line in done.stderr.split("\n")]
    quiet = pybuild(context, "-q", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true")
    assert quiet.returncode == 2 and all(f"{code} (line" in quiet.stderr for code in TOLD)


def test_the_store_is_asked_for_bases_by_a_check(context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nENV KNOWN=1\n")
    assert pybuild(context, "-t", "base", "-q").returncode == 0
    (context / "Dockerfile").write_text("FROM base\nCOPY a $KNOWN/\nCOPY a $OTHER/\n")
    done = pybuild(context, "--check")
    assert (done.returncode, done.stderr) == (1, "")
    assert "'$OTHER'" in done.stdout and "'$KNOWN'" not in done.stdout
