"""Containers that run, as lists and logs show them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.root

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Pybuild:
    """Runs the command as a process of its own."""

    def __init__(self, root: Path) -> None:
        self.command = [sys.executable, "-m", "builder.cli.main", "--root", str(root)]
        self.environment = {**os.environ, "PYTHONPATH": ROOT}

    def __call__(self, *args: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [*self.command, *args], env=self.environment, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    def ok(self, *args: str) -> str:
        """The output of a command that must succeed."""
        code, out, err = self(*args)
        assert code == 0, (args, out, err)
        return out


@pytest.fixture(scope="module")
def pybuild(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pybuild]:
    """A store with the image `bb`, and its containers removed at the end."""
    work = tmp_path_factory.mktemp("lists")
    pybuild = Pybuild(work / "store")
    (work / "root" / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", work / "root" / "bin" / "busybox")
    for name in ("sh", "sleep", "echo", "cat"):
        os.symlink("busybox", work / "root" / "bin" / name)
    with tarfile.open(work / "root.tar", "w") as archive:
        archive.add(work / "root", ".")
    pybuild.ok("import", str(work / "root.tar"), "bb")
    yield pybuild
    if names := pybuild.ok("ps", "-aq").split():
        pybuild.ok("rm", "-f", *names)


def until(pybuild: Pybuild, name: str, text: str) -> None:
    """Wait until a container has printed `text`."""
    end = time.monotonic() + 60
    while text not in "".join(pybuild("logs", name)[1:]):
        assert time.monotonic() < end, pybuild("logs", name)
        time.sleep(0.05)


def test_a_life_in_lists(pybuild: Pybuild) -> None:
    ident = pybuild.ok("run", "-d", "--name", "life", "bb", "sh", "-c", "echo here; exec sleep 1000").strip()
    form = "{{.ID}} {{.State}} {{.Names}}"
    assert pybuild.ok("ps", "--no-trunc", "-f", "name=life", "--format", form) == f"{ident} running life\n"
    pid = int(pybuild.ok("inspect", "-f", "{{.State.Pid}}", "life"))
    assert os.path.exists(f"/proc/{pid}")
    pybuild.ok("rename", "life", "lived")
    pybuild.ok("kill", "lived")
    pybuild.ok("wait", "lived")
    assert pybuild.ok("ps", "-q", "-f", "name=lived") == ""
    status = pybuild.ok("ps", "-a", "-f", "name=lived", "--format", "{{.Status}}")
    assert re.fullmatch(r"Exited \(137\) .+ ago\n", status)
    assert pybuild.ok("inspect", "-f", "{{.State.ExitCode}} {{.State.Running}}", ident) == "137 false\n"
    pybuild.ok("container", "start", "lived")
    assert pybuild.ok("ps", "-f", "name=lived", "--format", "{{.Status}}").startswith("Up ")
    pybuild.ok("container", "rm", "-f", "lived")


def test_logs_are_followed_to_the_end(pybuild: Pybuild) -> None:
    script = "echo out; echo err >&2; while [ ! -e /go ]; do sleep 0.1; done; echo last"
    pybuild.ok("run", "-d", "--name", "talker", "bb", "sh", "-c", script)
    until(pybuild, "talker", "err")
    follower = subprocess.Popen(
        [*pybuild.command, "logs", "-f", "talker"],
        env=pybuild.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert follower.stdout is not None and follower.stdout.readline() == "out\n"
        pybuild.ok("exec", "talker", "sh", "-c", ": > /go")
        out, err = follower.communicate(timeout=60)
    finally:
        follower.kill()
        follower.wait()
    assert (follower.returncode, out, err) == (0, "last\n", "err\n")
    assert pybuild("logs", "talker") == (0, "out\nlast\n", "err\n")


def test_the_processes_of_a_container(pybuild: Pybuild) -> None:
    pybuild.ok("run", "-d", "--name", "busy", "bb", "sh", "-c", "sleep 1001 & echo begun; wait")
    until(pybuild, "busy", "begun")
    pybuild.ok("exec", "-d", "busy", "sleep", "1002")
    heading, *rows = pybuild.ok("top", "busy").splitlines()
    assert heading.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    pids = [int(row.split()[1]) for row in rows]
    assert {row.split(None, 7)[7] for row in rows} == {
        "sh -c sleep 1001 & echo begun; wait", "sleep 1001", "sleep 1002",
    }  # fmt: skip
    assert int(pybuild.ok("inspect", "-f", "{{.State.Pid}}", "busy")) in pids
    shown = pybuild.ok("top", "busy", "-o", "pid,comm").splitlines()
    assert shown[0].split() == ["PID", "COMMAND"] and [int(row.split()[0]) for row in shown[1:]] == pids
    assert pybuild("top", "busy", "--forest")[0] == 2
    pybuild.ok("rm", "-f", "busy")
    pybuild.ok("create", "--name", "idle", "bb", "sleep", "1")
    assert "does not run" in pybuild("top", "idle")[2]


def test_prune_leaves_what_runs(pybuild: Pybuild) -> None:
    pybuild.ok("run", "-d", "--name", "running", "bb", "sleep", "1000")
    pybuild.ok("run", "--name", "ended", "bb", "sh", "-c", "echo 12345 > /file")
    assert "6B (virtual" in pybuild.ok("ps", "-a", "-s", "-f", "name=ended")
    ident = pybuild.ok("ps", "-a", "-f", "name=ended", "--no-trunc", "-q").strip()
    out = pybuild.ok("container", "prune", "-f", "--filter", "until=0s")
    assert ident in out and out.splitlines()[-1].startswith("Total reclaimed space: ")
    names = pybuild.ok("ps", "-a", "--format", "{{.Names}}").split()
    assert "running" in names and "ended" not in names
