"""`pybuild build` and `pybuild run` as a user types them, in a store of their own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from naps import nap, sleeping

pytestmark = pytest.mark.root

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Pybuild:
    """Runs the command as a process of its own."""

    def __init__(self, root: Path) -> None:
        self._command = [sys.executable, "-m", "builder.cli.main", "--root", str(root)]
        self._environment = {**os.environ, "PYTHONPATH": ROOT, "BUILDKIT_PROGRESS": "plain"}

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._command, *args],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *args: str, stdin: str = "") -> tuple[int, str, str]:
        process = self.start(*args)
        out, err = process.communicate(stdin, timeout=60)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def pybuild(tmp_path_factory: pytest.TempPathFactory) -> Pybuild:
    """A store with the image `bb`: a static busybox."""
    work = tmp_path_factory.mktemp("run")
    pybuild = Pybuild(work / "store")
    (work / "root" / "bin").mkdir(parents=True)
    (work / "root" / "tmp").mkdir()
    shutil.copy("/bin/busybox", work / "root" / "bin" / "busybox")
    for name in ("sh", "cat", "id", "pwd", "sleep", "echo", "seq", "hostname"):
        os.symlink("busybox", work / "root" / "bin" / name)
    with tarfile.open(work / "root.tar", "w") as archive:
        archive.add(work / "root", ".")
    code, _, err = pybuild("import", "-c", 'CMD ["echo", "default"]', str(work / "root.tar"), "bb")
    assert code == 0, err
    return pybuild


_PRIVILEGES = (
    "while read name value; do [ $name = NoNewPrivs: ] && echo $value; done < /proc/self/status; true"
)


@pytest.mark.parametrize(
    ("args", "code", "out"),
    [
        (["bb"], 0, "default\n"),
        (["bb", "sh", "-c", "exit 7"], 7, ""),
        (["-e", "A=1", "-w", "/tmp", "bb", "sh", "-c", "echo $A; pwd"], 0, "1\n/tmp\n"),
        (["-u", "5:6", "bb", "sh", "-c", "id -u; id -g"], 0, "5\n6\n"),
        (["--entrypoint", "echo", "bb", "-n", "--root"], 0, "--root"),
        (["--network", "none", "--hostname", "here", "bb", "hostname"], 0, "here\n"),
        (["bb", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137, ""),
        (["--security-opt", "no-new-privileges", "bb", "sh", "-c", _PRIVILEGES], 0, "1\n"),
        (["--security-opt", "seccomp=unconfined", "bb", "true"], 125, ""),
        (["bb", "/nothing"], 127, ""),
        (["bb", "/tmp"], 126, ""),
        (["nothing"], 125, ""),
        (["--nope", "bb"], 125, ""),
        (["-u", "nobody-here", "bb"], 125, ""),
    ],
)
def test_run(pybuild: Pybuild, args: list[str], code: int, out: str) -> None:
    ran = pybuild("run", *args)
    assert ran[:2] == (code, out), ran
    assert "Traceback" not in ran[2] and "internal error" not in ran[2]


def test_standard_input_only_when_asked(pybuild: Pybuild) -> None:
    assert pybuild("run", "-i", "bb", "cat", stdin="hello") == (0, "hello", "")
    assert pybuild("run", "bb", "cat", stdin="hello") == (0, "", "")


def test_streams_stay_apart(pybuild: Pybuild) -> None:
    assert pybuild("run", "bb", "sh", "-c", "echo out; echo err >&2") == (0, "out\n", "err\n")


def test_export_gives_the_merged_files(pybuild: Pybuild, tmp_path: Path) -> None:
    lines = "FROM bb\nRUN echo new > /tmp/new\nONBUILD RUN echo nobody asked > /tmp/triggered\n"
    (tmp_path / "Dockerfile").write_text(lines)
    assert pybuild("-t", "merged", str(tmp_path))[0] == 0
    out = tmp_path / "out.tar"
    code, said, err = pybuild("export", "-o", str(out), "merged")
    assert (code, said) == (0, ""), err
    with tarfile.open(out) as archive:
        names = {name.lstrip("./") for name in archive.getnames()}
    assert {"bin/busybox", "tmp/new"} <= names and "tmp/triggered" not in names
    assert pybuild("export", "-o", str(out), "nothing")[0] == 1


def test_a_failed_step_shows_its_lines_and_its_last_words(pybuild: Pybuild, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM bb\nRUN echo before; echo why >&2; exit 9\n")
    code, out, err = pybuild("-t", "x", str(tmp_path))
    assert (code, out) == (1, "")
    assert "#2 ERROR: RUN exited with 9" in err
    assert "Dockerfile:2: RUN exited with 9\n" in err
    assert "   | before\n   | why\n" in err and "   2 | >>> RUN echo before" in err
    assert pybuild("inspect", "x")[0] == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_build_and_its_steps(
    pybuild: Pybuild, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """SECURITY.md R21."""
    moment = nap()
    (tmp_path / "Dockerfile").write_text(f"FROM bb\nRUN echo begun {number}; exec sleep {moment}\n")
    process = pybuild.start(str(tmp_path))
    assert process.stderr is not None
    for line in process.stderr:
        if "begun" in line and line.startswith("#2 0"):
            break
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code and "Traceback" not in err, err
    assert time.monotonic() - began < 60
    assert not sleeping(moment)


def test_a_lot_of_output_arrives_whole(pybuild: Pybuild, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM bb\nRUN seq 1 300000\n")
    code, _, err = pybuild("--no-cache", str(tmp_path))
    assert code == 0
    numbers = [
        line.split(" ", 2)[2] for line in err.splitlines() if line.startswith("#2 ") and line[3].isdigit()
    ]
    assert numbers == [str(n) for n in range(1, 300_001)]
