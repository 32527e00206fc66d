"""`pybuild cp` does with paths what Debian's `docker cp` does (S92, G10).

The same files here, the same container there, the same words typed for both: afterwards both have the same
files, or both refused. `make test` tries every third of the paths, `make test-differential` all
(PYBUILD_EXAMPLES).
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from judges.bases import BUSYBOX
from judges.dockerd import Docker

pytestmark = [pytest.mark.interop, pytest.mark.root]

ROOT = Path(__file__).parents[2]
STEP = 1 if "PYBUILD_EXAMPLES" in os.environ else 3
PREPARE = """
n=0
while [ $n -lt COUNT ]; do
mkdir -p /c$n/dir/sub /c$n/empty /c$n/out; cd /c$n
echo one > file; echo two > dir/f; echo three > dir/sub/g; chmod 640 dir/f; chmod 750 dir/sub
chmod 4755 dir/sub/g; ln dir/f dir/hard
ln -s file link; ln -s dir linkdir; ln -s /c$n/dir absolute
ln -s nowhere dangling; ln -s /../../../c$n/out far
n=$((n+1))
done
echo ready > /ready; exec sleep 1000
"""
OUT = (
    ("/c/file", "new"),
    ("/c/file", "new/"),
    ("/c/file", "here"),
    ("/c/file", "here/"),
    ("/c/file", "hdir"),
    ("/c/file", "hdir/"),
    ("/c/file", "nowhere/new"),
    ("/c/file/", "new"),
    ("/c/file/.", "new"),
    ("/c/dir", "new"),
    ("/c/dir", "new/"),
    ("/c/dir/", "new"),
    ("/c/dir/.", "new"),
    ("/c/dir", "hdir"),
    ("/c/dir/", "hdir"),
    ("/c/dir/.", "hdir"),
    ("/c/dir", "here"),
    ("/c/dir", "hlink"),
    ("/c/dir", "nowhere/new"),
    ("c/dir", "hdir"),
    ("/c/link", "new"),
    ("/c/link", "hdir"),
    ("/c/linkdir", "hdir"),
    ("/c/linkdir/", "hdir"),
    ("/c/linkdir/.", "hdir"),
    ("/c/linkdir/f", "new"),
    ("/c/absolute/sub", "new"),
    ("/c/dangling", "new"),
    ("-L", "/c/link", "new"),
    ("-L", "/c/link", "hdir"),
    ("-L", "/c/absolute", "hdir"),
    ("-L", "/c/dangling", "new"),
    ("/c/missing", "new"),
    ("/c/../../../c0/file", "new"),
    ("/c/file", "hdir/../new"),
    ("/c/file", "hlink/new"),
    ("/c/empty", "hdir"),
    ("/c/empty/.", "hdir"),
)
INTO = (
    ("here", "/c/new"),
    ("here", "/c/new/"),
    ("here", "/c/file"),
    ("here", "/c/file/"),
    ("here", "/c/dir"),
    ("here", "/c/dir/"),
    ("here", "c/dir"),
    ("here", "/c/missing/new"),
    ("here/", "/c/new"),
    ("hdir", "/c/new"),
    ("hdir", "/c/new/"),
    ("hdir/.", "/c/new"),
    ("hdir", "/c/dir"),
    ("hdir/", "/c/dir"),
    ("hdir/.", "/c/dir"),
    ("hdir", "/c/file"),
    ("hlink", "/c/new"),
    ("hlink", "/c/dir"),
    ("hlink/", "/c/dir"),
    ("-L", "hlink", "/c/dir"),
    ("-L", "hlink", "/c/new"),
    ("here", "/c/link"),
    ("here", "/c/linkdir"),
    ("here", "/c/linkdir/"),
    ("here", "/c/absolute"),
    ("here", "/c/absolute/new"),
    ("here", "/c/far"),
    ("hdir/.", "/c/far"),
    ("hmissing", "/c/new"),
    ("file", "/c/empty/there"),
    ("clash", "/c"),
)


class Maker(NamedTuple):
    """One of the two: how its command begins."""

    words: list[str]
    environment: dict[str, str]

    def __call__(self, *words: str, stdin: bytes = b"", cwd: Path | None = None) -> tuple[int, bytes, str]:
        done = subprocess.run(
            [*self.words, *words],
            env=self.environment,
            input=stdin,
            capture_output=True,
            cwd=cwd,
            timeout=120,
        )
        return done.returncode, done.stdout, done.stderr.decode(errors="replace")

    def must(self, *words: str) -> bytes:
        code, said, errors = self(*words)
        assert code == 0, (words, errors)
        return said


@pytest.fixture(scope="module")
def makers(
    docker: Docker, busybox_archive: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Maker]]:
    docker.run("load", "-i", busybox_archive)
    store = tmp_path_factory.mktemp("cp") / "store"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ours = Maker([sys.executable, "-m", "builder.cli.main", "--root", str(store)], environment)
    ours.must("load", "-i", busybox_archive)
    theirs = Maker([docker.client], docker._environment())
    found = [theirs, ours]
    try:
        yield found
    finally:
        for each in found:
            if names := each("ps", "-aq")[1].decode().split():
                each("rm", "-f", *names)


@pytest.fixture(scope="module")
def running(makers: list[Maker]) -> str:
    return _prepared(makers, "running")


@pytest.fixture(scope="module")
def stopped(makers: list[Maker]) -> str:
    return _prepared(makers, "stopped")


def _prepared(makers: list[Maker], name: str) -> str:
    script = PREPARE.replace("COUNT", str(len(INTO)))
    for each in makers:
        each.must("run", "-d", "--name", name, "--network=none", BUSYBOX, "sh", "-c", script)
        while each("exec", name, "cat", "/ready")[1] != b"ready\n":
            pass
        if name == "stopped":
            each.must("stop", "-t", "0", name)
    return name


def files_here(place: Path) -> None:
    (place / "hdir" / "inner").mkdir(parents=True)
    (place / "here").write_text("here\n")
    (place / "file").write_text("file\n")
    (place / "hdir" / "x").write_text("x\n")
    (place / "hdir" / "inner" / "y").write_text("y\n")
    (place / "hdir" / "x").chmod(0o600)
    (place / "hdir" / "inner").chmod(0o711)
    (place / "hdir").chmod(0o711)
    (place / "hlink").symlink_to("hdir")
    (place / "clash").mkdir()
    (place / "clash" / "file").mkdir()


def seen(place: Path) -> list[tuple[str, ...]]:
    """What lies below a directory: kind and mode, content."""
    found = []
    for folder, names, files in os.walk(place):
        for name in sorted([*names, *files]):
            path = Path(folder, name)
            info = path.lstat()
            content = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
            found.append((str(path.relative_to(place)), f"{info.st_mode & ~0o6000:o}", content))
    return sorted(found)


def inside(maker: Maker, path: str) -> list[tuple[str, ...]]:
    """The same of a directory in a container."""
    with tarfile.open(fileobj=io.BytesIO(maker.must("cp", path, "-"))) as archive:
        found = []
        for each in archive:
            content = archive.extractfile(each) if each.isreg() else None
            text = content.read().decode() if content else each.linkname
            found.append((each.name, each.type.decode(), f"{each.mode & 0o7777:o}", text))
    return sorted(found)


@pytest.mark.parametrize("words", OUT[::STEP], ids=" ".join)
def test_out(makers: list[Maker], running: str, words: tuple[str, ...], tmp_path: Path) -> None:
    check_out(makers, running, words, tmp_path)


@pytest.mark.parametrize("number", range(0, len(INTO), STEP), ids=map(" ".join, INTO[::STEP]))
def test_into(makers: list[Maker], running: str, number: int, tmp_path: Path) -> None:
    check_into(makers, running, number, tmp_path)


@pytest.mark.parametrize("words", OUT[:: 3 * STEP], ids=" ".join)
def test_out_of_one_that_is_stopped(
    makers: list[Maker], stopped: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    check_out(makers, stopped, words, tmp_path)


@pytest.mark.parametrize("number", range(0, len(INTO), 3 * STEP), ids=map(" ".join, INTO[:: 3 * STEP]))
def test_into_one_that_is_stopped(makers: list[Maker], stopped: str, number: int, tmp_path: Path) -> None:
    check_into(makers, stopped, number, tmp_path)


def check_out(makers: list[Maker], name: str, words: tuple[str, ...], tmp_path: Path) -> None:
    *options, source, target = words
    results = []
    for number, maker in enumerate(makers):
        place = tmp_path / str(number)
        place.mkdir()
        files_here(place)
        code, _, said = maker("cp", *options, f"{name}:{source.replace('c', 'c0', 1)}", target, cwd=place)
        results.append((code != 0, seen(place)))
        assert "Traceback" not in said
    assert results[1] == results[0], "ours, docker's"


def check_into(makers: list[Maker], name: str, number: int, tmp_path: Path) -> None:
    *options, source, target = INTO[number]
    target = target.replace("c", f"c{number}", 1)
    files_here(tmp_path)
    results = []
    for maker in makers:
        code, _, said = maker("cp", *options, source, f"{name}:{target}", cwd=tmp_path)
        results.append((code != 0, inside(maker, f"{name}:/c{number}")))
        assert "Traceback" not in said
    assert results[1] == results[0], "ours, docker's"


def test_what_is_otherwise(makers: list[Maker], running: str, tmp_path: Path) -> None:
    """What docs/containers.md says of Docker: owners into it, setuid bits and links out of it."""
    (tmp_path / "theirs").write_text("x")
    os.chown(tmp_path / "theirs", 1000, 1001)
    found = []
    for number, maker in enumerate(makers):
        maker.must("cp", str(tmp_path / "theirs"), f"{running}:/otherwise")
        with tarfile.open(fileobj=io.BytesIO(maker.must("cp", f"{running}:/otherwise", "-"))) as archive:
            owner = next((each.uid, each.gid) for each in archive)
        maker.must("cp", f"{running}:/c0/dir/sub/g", str(tmp_path / f"set{number}"))
        mode = (tmp_path / f"set{number}").stat().st_mode & 0o7777
        maker.must("exec", running, "sh", "-c", "mkdir -p /l; ln -sf ../../../x /l/up")
        code, _, _ = maker("cp", f"{running}:/l", str(tmp_path / f"links{number}"))
        found.append((owner, oct(mode), code))
    assert found == [((1000, 1001), "0o4755", 1), ((0, 0), "0o755", 0)], "docker's, ours"
    assert os.readlink(tmp_path / "links1" / "up") == "../../../x"


CHANGES = """
mkdir -p /new/sub; echo x > /new/sub/f; ln -s f /new/sub/l; echo more >> /etc/group; echo > /etc/new
chmod 700 /home; touch /tmp/made; mkfifo /var/pipe; rm -rf /usr; mkdir /gone; rmdir /gone; chown 5 /etc/passwd
echo done > /changes; exec sleep 1000
"""


def test_diff_and_export(makers: list[Maker]) -> None:
    """What was changed, and the tar of the whole, but for what each mounts in its own way."""
    diffs, trees = [], []
    for maker in makers:
        maker.must("run", "-d", "--name", "changed", "--network=none", BUSYBOX, "sh", "-c", CHANGES)
        while maker("exec", "changed", "cat", "/changes")[1] != b"done\n":
            pass
        diffs.append(sorted(maker.must("diff", "changed").decode().splitlines()))
        with tarfile.open(fileobj=io.BytesIO(maker.must("export", "changed"))) as archive:
            own = (
                "dev",
                "proc",
                "sys",
                ".dockerenv",
                "etc/hosts",
                "etc/hostname",
                "etc/resolv.conf",
                "etc/mtab",
            )
            found = {each.name: (each.type, each.mode & 0o7777, each.uid, each.size) for each in archive}
        trees.append({name: what for name, what in found.items() if not name.startswith(own)})
    assert diffs[1] == diffs[0], "ours, docker's"
    assert trees[1] == trees[0], "ours, docker's"
