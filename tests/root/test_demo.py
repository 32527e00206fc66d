"""`make demo`, whole: what a newcomer sees first must work."""

from __future__ import annotations

import os
import subprocess

import pytest

pytestmark = pytest.mark.root

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def test_the_demo_builds_runs_and_shows_an_image() -> None:
    done = subprocess.run(["scripts/demo"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Hello from an image built by pybuild\nuser 1000, pid 1, " in done.stdout
    assert "demo/hello " in done.stdout and "sha256:" in done.stdout
    assert "RUN /bin/sh -c" in done.stdout and "busybox of the distribution" in done.stdout
    assert "[build 4/4] RUN" in done.stderr and "naming to docker.io/demo/hello:latest" in done.stderr
