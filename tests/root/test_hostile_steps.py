"""Steps that mean harm, or are only broken: the build ends, says why, and nothing of them remains."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from naps import mentioning, nap, sleeping, until

pytestmark = pytest.mark.root

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COMMAND = (sys.executable, "-m", "builder.cli.main")
ENVIRONMENT = {**os.environ, "PYTHONPATH": ROOT, "TERM": "xterm"}
GB = 1_000_000_000
RSS_LIMIT = 120 << 20
"""What the builder may use, in bytes: about three times what it uses without output."""


# ---- a gigabyte of output ----


@contextmanager
def printing(shop: Any, typist: Any, script: str, progress: str) -> Iterator[Any]:
    shop.write("Dockerfile", f"FROM base\nRUN {script}\n")
    argv = [*COMMAND, "--root", shop.root, "build", "--network=none", f"--progress={progress}", "-o"]
    with typist(
        *argv, "type=cacheonly", str(shop.context), env={"PYTHONPATH": ROOT, "TERM": "xterm"}
    ) as person:
        yield person


def watched(person: Any) -> tuple[int, int]:
    """The exit status, and the most memory that the process had, in bytes."""
    most = 0
    while person.process.poll() is None:
        person._hear(0.05)
        person.said = person.said[-1_000_000:]
        with suppress(OSError, IndexError), open(f"/proc/{person.process.pid}/status") as file:
            most = max(most, int(file.read().split("VmHWM:")[1].split()[0]) << 10)
    return person.end(), most


def log_of(shop: Any) -> str:
    (log,) = Path(shop.root, "logs").glob("*/*.log")
    return str(log)


LINES = "busybox head -c {} /dev/zero | busybox tr '\\0' '\\n'"
NO_LINES = "busybox head -c {} /dev/zero"


@pytest.mark.parametrize(
    ("script", "size"), [(LINES, GB), (NO_LINES, GB // 5)], ids=["lines", "no line at all"]
)
def test_a_gigabyte_of_output(shop: Any, typist: Any, script: str, size: int) -> None:
    """R26. The log is whole and raw, the screen stays readable, and memory does not grow with it."""
    shown = 0
    with printing(shop, typist, script.format(size), "tty") as person:
        hear = person._hear

        def counting(seconds: float) -> bool:
            nonlocal shown
            before = len(person.said)
            heard = bool(hear(seconds))
            shown += len(person.said) - before
            return heard

        person._hear = counting
        code, most = watched(person)
    assert code == 0, person.said[-2000:]
    log = log_of(shop)
    assert os.path.getsize(log) == size
    assert shown < 1_000_000
    assert 1 << 20 < most < RSS_LIMIT


def test_plain_progress_writes_it_all(shop: Any, tmp_path: Path) -> None:
    shop.write("Dockerfile", f"FROM base\nRUN {LINES.format(20_000_000)}; echo the end\n")
    argv = [*COMMAND, "--root", shop.root, "build", "--network=none", "--progress=plain", str(shop.context)]
    with open(tmp_path / "shown", "wb") as out:
        done = subprocess.run(argv, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stderr=out, timeout=120)
    assert done.returncode == 0
    assert os.path.getsize(tmp_path / "shown") > 20_000_000 * len(b"#2 0.001 ")
    assert os.path.getsize(log_of(shop)) == 20_000_000 + len("the end\n")


@pytest.mark.endurance
@pytest.mark.parametrize(("script", "progress"), [(LINES, "tty"), (NO_LINES, "none")])
def test_ten_gigabytes_of_output(shop: Any, typist: Any, script: str, progress: str) -> None:
    """SECURITY.md R26."""
    with printing(shop, typist, script.format(10 * GB), progress) as person:
        code, most = watched(person)
    log = log_of(shop)
    assert (code, os.path.getsize(log)) == (0, 10 * GB)
    os.unlink(log)
    assert 1 << 20 < most < RSS_LIMIT


# ---- processes that ignore every signal ----

STUBBORN = """\
trap '' HUP INT QUIT TERM USR1 USR2 PIPE ALRM CHLD TSTP TTIN TTOU
stubborn() { trap '' HUP INT QUIT TERM USR1 USR2 PIPE ALRM; while :; do sleep NAP || true; done; }
stubborn & stubborn & stubborn &
(stubborn & (stubborn &) &) &
busybox setsid sh -c "trap '' HUP INT QUIT TERM; while :; do sleep NAP; done" &
busybox nohup sleep NAP > /dev/null 2>&1 &
(kill -STOP $$ & sleep NAP) &
echo be''gun
while :; do sleep NAP; done
"""


def test_processes_that_ignore_every_signal(shop: Any, typist: Any) -> None:
    """One Ctrl-C, and all of them are gone within five seconds."""
    moment = nap()
    script = STUBBORN.replace("NAP", moment)
    with printing(shop, typist, f"<<'EOF'\n{script}EOF", "plain") as person:
        person.expect("begun")
        until(lambda: len(sleeping(moment)) >= 6)
        person.type("\x03")
        assert person.process.wait(timeout=60) == 130
        assert not mentioning(moment)
        assert person.end() == 130
        assert "Traceback" not in person.said


def test_output_that_nobody_can_end(shop: Any, typist: Any) -> None:
    """A process that left its session and keeps the step's output open does not keep the build waiting."""
    moment = nap()
    script = f"busybox setsid sh -c 'trap \"\" TERM; sleep {moment}' & sleep 0.1; echo done"
    with printing(shop, typist, script, "plain") as person:
        assert person.end() == 0
        assert not sleeping(moment)


# ---- a disk that fills up ----

DISK = 48 << 20


class Small:
    """A store on a small disk of its own, in a mount namespace that nobody else sees."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "disk" / "store"
        (directory / "disk").mkdir()
        script = f"mount -t tmpfs -o size={DISK} none {directory}/disk && echo ready && exec sleep 1000"
        self._holder = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE)
        assert self._holder.stdout is not None and self._holder.stdout.readline() == b"ready\n"
        self.here = Path(f"/proc/{self._holder.pid}/root{self.root}")

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()

    def pybuild(self, *args: str) -> subprocess.CompletedProcess[str]:
        enter = ("nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", f"--wd={self.directory}")
        argv = [*enter, *COMMAND, "--root", str(self.root), *args]
        quiet = subprocess.DEVNULL
        return subprocess.run(argv, env=ENVIRONMENT, stdin=quiet, capture_output=True, text=True, timeout=120)

    def build(self, dockerfile: str, *args: str) -> subprocess.CompletedProcess[str]:
        context = self.directory / "context"
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(dockerfile)
        return self.pybuild("build", "--network=none", "--progress=plain", *args, str(context))

    def files(self) -> list[str]:
        """What the store keeps, but for logs, locks and the database."""
        passing = {"logs", "locks", "leases", ".locks", ".stubs"}
        found = []
        for folder, folders, files in os.walk(self.here):
            folders[:] = sorted(set(folders) - passing)
            here = os.path.relpath(folder, self.here)
            found += [os.path.join(here, each) for each in sorted(files) if not each.startswith("state.db")]
        return found

    def used(self) -> int:
        disk = os.statvfs(self.here)
        return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    directory = tmp_path_factory.mktemp("small")
    (directory / "bin").mkdir()
    shutil.copy("/bin/busybox", directory / "bin" / "busybox")
    for name in ("sh", "cat", "dd", "echo", "head"):
        os.symlink("busybox", directory / "bin" / name)
    with tarfile.open(directory / "root.tar", "w") as archive:
        archive.add(directory / "bin", "bin")
    small = Small(directory)
    try:
        assert small.pybuild("import", str(directory / "root.tar"), "base").returncode == 0
        assert small.build("FROM base\nRUN echo right > /right\n", "-t", "right").returncode == 0
        yield small
    finally:
        small.close()


FILLERS = {
    "a file": "RUN dd if=/dev/zero of=/big bs=64k",
    "a file, and not a word": "RUN dd if=/dev/zero of=/big bs=64k 2>/dev/null",
    "output": f"RUN head -c {2 * DISK} /dev/zero",
    "a layer": f"RUN dd if=/dev/urandom of=/big bs=1M count={DISK // (3 << 19)} 2>/dev/null",
    "a cache": "RUN --mount=type=cache,target=/c dd if=/dev/zero of=/c/big bs=64k",
    "a copy": "COPY big /",
}


@pytest.mark.parametrize("how", FILLERS)
def test_a_disk_that_fills_up(small: Small, how: str) -> None:
    """R05. Exit code 5, the disk's path, nothing kept, and the next build is right."""
    if how == "a copy":
        (small.directory / "context" / "big").write_bytes(os.urandom(DISK + (8 << 20)))
    before, used = small.files(), small.used()
    done = small.build(f"FROM base\n{FILLERS[how]}\n", "-t", "never")
    (small.directory / "context" / "big").unlink(missing_ok=True)
    assert done.returncode == 5, done.stderr[-3000:]
    error = done.stderr[done.stderr.rindex("\nDockerfile:2: ") :].splitlines()[1]
    assert "No space left on device" in error and str(small.root) in error, error
    assert "hint: free some space" in done.stderr and "Traceback" not in done.stderr
    if how == "a cache":
        shutil.rmtree(small.here / "caches")  # it was asked to stay
        (small.here / "caches").mkdir()
    assert small.files() == before
    assert small.used() < used + (1 << 20)
    assert small.pybuild("inspect", "never").returncode == 1
    again = small.build(f"FROM base\nRUN echo {len(how)} > /next\n", "-t", "next")
    assert again.returncode == 0, again.stderr
    assert small.pybuild("run", "--rm", "--network=none", "next", "cat", "/next").stdout == f"{len(how)}\n"
    assert small.pybuild("run", "--rm", "--network=none", "right", "cat", "/right").stdout == "right\n"
    checked = small.pybuild("validate", str(small.root))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert small.pybuild("rmi", "next").returncode == 0


def test_an_output_s_disk_that_is_full(small: Small) -> None:
    """R05. `-o` on another disk: that one is named, the image is not, and no half output stays."""
    tiny = small.directory / "tiny"
    tiny.mkdir()
    enter = ["nsenter", f"--mount=/proc/{small._holder.pid}/ns/mnt"]
    subprocess.run([*enter, "mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tiny)], check=True)
    done = small.build("FROM base\nRUN echo x > /x\n", "-o", f"type=oci,dest={tiny}/out.tar", "-t", "never")
    assert done.returncode == 5 and f"No space left on device: {tiny}" in done.stderr, done.stderr
    assert os.listdir(f"/proc/{small._holder.pid}/root{tiny}") == []
    assert small.pybuild("inspect", "never").returncode == 1


@pytest.mark.parametrize("command", ["import", "load"])
def test_an_archive_that_is_larger_than_the_disk(small: Small, command: str) -> None:
    """SECURITY.md R05."""
    made = small.directory / f"{command}.tar"
    if command == "import":
        with tarfile.open(made, "w") as archive:
            for number in range(DISK >> 20):
                info = tarfile.TarInfo(f"file{number}")
                info.size = 1 << 20
                archive.addfile(info, BytesIO(os.urandom(1 << 20)))
    else:
        large_image(made)
    before = small.files()
    done = small.pybuild(command, *(["-i"] if command == "load" else []), str(made))
    assert done.returncode == 5, done.stderr
    assert f"{small.root}/tmp/" in done.stderr and "No space left on device" in done.stderr
    assert small.files() == before
    assert small.pybuild("run", "--rm", "--network=none", "right", "cat", "/right").stdout == "right\n"


def test_a_base_that_fits_once_but_not_unpacked(small: Small) -> None:
    made = small.directory / "large.tar"
    with tarfile.open(made, "w") as archive:
        for number in range(DISK * 5 // 9 >> 20):
            info = tarfile.TarInfo(f"file{number}")
            info.size = 1 << 20
            archive.addfile(info, BytesIO(os.urandom(1 << 20)))
        archive.add("/bin/busybox", "bin/sh")
    assert small.pybuild("import", str(made), "large").returncode == 0
    before = small.files()
    done = small.build("FROM large\nRUN echo x > /x\n", "-t", "never")
    assert done.returncode == 5, done.stderr
    assert "Dockerfile:2: No space left on device: " in done.stderr and str(small.root) in done.stderr
    assert small.files() == before
    assert small.pybuild("rmi", "large").returncode == 0


def large_image(path: Path) -> None:
    """An OCI archive of one layer that is larger than the disk."""
    import hashlib
    import json

    layer = os.urandom(DISK)
    blobs = [layer]

    def pointer(kind: str, content: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(content)}

    def put(kind: str, document: object) -> dict[str, object]:
        blobs.append(json.dumps(document).encode())
        return pointer(kind, blobs[-1])

    below = pointer("layer.v1.tar", layer)
    root = {"type": "layers", "diff_ids": [below["digest"]]}
    config = put("config.v1+json", {"architecture": "amd64", "os": "linux", "rootfs": root})
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = put(
        "manifest.v1+json", {"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [below]}
    )
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "large"}
    with tarfile.open(path, "w") as archive:
        index = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index}
        files |= {f"blobs/sha256/{hashlib.sha256(each).hexdigest()}": each for each in blobs}
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
