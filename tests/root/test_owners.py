"""One user id for all: what a step gives away is noted, by a real ordinary user in a real namespace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.sandbox.owners import noted, read_notes

pytestmark = pytest.mark.root

SOMEBODY = 54321
DRIVER = """
import json, os, shutil, sys
from builder.sandbox import userns
top, uid, script = sys.argv[1], int(sys.argv[2]), sys.argv[3]
userns.enter(userns.single(os.getuid(), os.getgid()))
from builder.sandbox.run import Launcher
from builder.sandbox.spec import Overlay, Owners, Sandbox
shutil.rmtree(f"{top}/work")
os.mkdir(f"{top}/work")
root = Overlay((f"{top}/root", f"{top}/empty"), f"{top}/upper", f"{top}/work", userxattr=True)
shell = ("sh", "-c", script)
step = Sandbox(root, shell, (("PATH", "/bin"),), uid=uid, gid=uid, network="none", cwd="/made/here",
               owners=Owners(f"{top}/upper", f"{top}/notes"))
reading, writing = os.pipe()
with Launcher() as launcher:
    ended = launcher.run(step, output_fd=writing)
os.close(writing)
print(json.dumps([ended.status, ended.error, os.read(reading, 1 << 16).decode()]))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """An image of busybox that belongs to somebody, and room for a step."""
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="pybuild-owners-", dir=fast) as path:  # pytest's is root's alone
        yield _furnished(Path(path))


def _furnished(tmp_path: Path) -> Path:
    for name in ("root/bin", "root/etc", "root/tmp", "empty", "upper", "work"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root/etc/passwd").write_text("root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n")
    (tmp_path / "root/etc/group").write_text("root:x:0:\napp:x:1000:\n")
    subprocess.run(["cp", "/bin/busybox", tmp_path / "root/bin"], check=True)
    subprocess.run(["chroot", tmp_path / "root", "/bin/busybox", "--install", "-s", "/bin"], check=True)
    for folder, folders, files in os.walk(tmp_path):
        for name in (*folders, *files, "."):
            os.chown(os.path.join(folder, name), SOMEBODY, SOMEBODY, follow_symlinks=False)
    return tmp_path


def run(place: Path, script: str, uid: int = 0) -> str:
    who = ["setpriv", "--reuid", str(SOMEBODY), "--regid", str(SOMEBODY), "--clear-groups"]
    here = str(Path(__file__).parents[2])
    done = subprocess.run(
        [*who, sys.executable, "-c", DRIVER, place, str(uid), script],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": here, "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    status, error, output = json.loads(done.stdout)
    assert (status, error) == (0, ""), output
    return str(output)


def owners(place: Path) -> dict[str, Any]:
    """What is noted of every file a step left."""
    path = place / "notes"
    told = read_notes(path.read_bytes()) if path.exists() else {}
    found = {}
    for folder, folders, files in os.walk(place / "upper"):
        for name in folders + files:
            full = os.path.join(folder, name)
            owner = told.get(os.lstat(full).st_ino) or noted(full)
            if not owner.plain:
                found[os.path.relpath(full, place / "upper")] = bytes(owner).decode()
    return found


def test_files_are_given_away(place: Path) -> None:
    run(
        place,
        "set -e; cd /tmp; touch a b c 'n\nl'; chown app:app a; chown 1:2 ./b; chown 70000 /tmp/c;"
        "chown :6 'n\nl'; mkdir d; chown 3:4 d; cd d; touch e; chown 5:6 ../d/e;"
        "mv /tmp/a /tmp/moved; ln /tmp/b /tmp/hard",
    )
    assert owners(place) == {
        "tmp/moved": "1000:1000",
        "tmp/b": "1:2",
        "tmp/hard": "1:2",
        "tmp/c": "70000:0",
        "tmp/n\nl": "0:6",
        "tmp/d": "3:4",
        "tmp/d/e": "5:6",
    }


def test_links_pipes_and_what_links_lead_to(place: Path) -> None:
    run(
        place,
        "set -e; cd /tmp; touch f; ln -s f l; ln -s /tmp/f m; mkfifo p;"
        "chown -h 7:8 l; chown 1:1 m; chown 3:4 p",
    )
    assert owners(place) == {"tmp/f": "1:1", "tmp/l": "7:8", "tmp/p": "3:4"}


def test_giving_back_takes_the_note_away(place: Path) -> None:
    output = run(place, "set -e; cd /tmp; touch f; chmod 4755 f; chown 5:5 f; chown 0:0 f; ls -l f")
    assert owners(place) == {}
    assert output.startswith("-rwxr-xr-x"), "as with the real call, it is no longer setuid"


def test_devices_are_noted(place: Path) -> None:
    run(place, "set -e; umask 027; mknod /tmp/null c 1 3; mknod -m 600 /tmp/disk b 8 1; chown 0:6 /tmp/disk")
    assert owners(place) == {"tmp/null": "0:0:c:1:3", "tmp/disk": "0:6:b:8:1"}
    assert (place / "upper/tmp/null").stat().st_mode == 0o100640
    assert run(place, "mknod /tmp/null c 1 3 2>&1; mknod /tmp/whiteout c 0 0 2>&1; true").count("mknod:") == 2


def test_changing_ids_succeeds_and_changes_nothing(place: Path) -> None:
    assert run(place, "su app -c id").startswith("uid=0(root)")


def test_a_file_of_the_layer_below_keeps_its_note(place: Path) -> None:
    run(place, "chown app:app /etc/passwd; chown app /bin/busybox")
    run(place, "set -e; echo more >> /etc/passwd; mv /etc/passwd /etc/passwd-")
    assert owners(place)["etc/passwd-"] == "1000:1000"


def test_inside_another_root(place: Path) -> None:
    run(
        place,
        "set -e; mkdir -p /inner/bin /inner/tmp; cp /bin/busybox /inner/bin/; ln -s /tmp /inner/link;"
        "chroot /inner /bin/busybox sh -c 'busybox touch /tmp/f; cd /tmp; busybox chown 5:5 /link/f;"
        "busybox touch g; busybox chown 6:6 g; busybox chown -h 7:7 /link'",
    )
    assert owners(place) == {"inner/tmp/f": "5:5", "inner/tmp/g": "6:6", "inner/link": "7:7"}
    assert not (place / "upper/tmp").exists()


def test_errors_are_the_kernels(place: Path) -> None:
    output = run(
        place, "chown 1 /nothing 2>&1; chown 1 /etc/passwd/x 2>&1; chown 1 /proc/self/status 2>&1; true"
    )
    first, second, third = output.splitlines()
    assert "No such file" in first and "Not a directory" in second and "chown:" in third


def test_the_working_directory_is_the_users(place: Path) -> None:
    assert run(place, "pwd; echo hello > file; cat file", uid=1000) == "/made/here\nhello\n"
    assert owners(place) == {"made/here": "1000:1000"}


def test_many_at_once(place: Path) -> None:
    run(
        place,
        "cd /tmp; for n in 1 2 3 4; do"
        " (mkdir d$n; for m in $(seq 40); do touch d$n/$m; chown $n:$m d$n/$m; done) & done; wait",
    )
    assert owners(place) == {f"tmp/d{n}/{m}": f"{n}:{m}" for n in range(1, 5) for m in range(1, 41)}
