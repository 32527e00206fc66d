"""S16: what is written to procfs goes to the kernel's own file, whatever somebody mounted over it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from builder.sandbox import procfs, syscalls
from builder.sandbox.procfs import Procfs

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]
SCORE = "self/oom_score_adj"
PREFACE = f"""
import errno, os, sys
sys.path.insert(0, {str(ROOT)!r})
from builder.sandbox import procfs, syscalls as s, userns
from builder.sandbox.procfs import Procfs
s.unshare(s.CLONE_NEWNS)
s.mount(b"none", b"/", b"", s.MS_REC | s.MS_PRIVATE)
fake = sys.argv[1]
def cover(what, by=fake):
    s.mount(os.fsencode(by), os.fsencode(what), b"", 0x1000)
def ordinary():
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
    s.prctl(s.PR_SET_DUMPABLE, 1)
def refused(work, *numbers):
    try:
        work()
    except OSError as error:
        assert error.errno in numbers, error
    else:
        raise AssertionError("not refused")
"""


def in_mounts(tmp_path: Path, code: str) -> str:
    """Run code in a mount namespace of its own; what the file that lies over a part of /proc holds then."""
    fake = tmp_path / "fake"
    fake.write_text("fake\n")
    fake.chmod(0o666)
    text = PREFACE + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-c", text, str(fake)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return fake.read_text()


def test_s16_root_writes_through_a_mount_of_its_own(tmp_path: Path) -> None:
    """A file over the one meant, and another file of procfs over it, change nothing."""
    held = in_mounts(
        tmp_path,
        """
        cover("/proc/self/oom_score_adj")
        with Procfs() as proc:
            assert proc.private
            proc.write("self/oom_score_adj", b"7")
        s.umount(b"/proc/self/oom_score_adj")
        assert open("/proc/self/oom_score_adj").read() == "7\\n"
        cover("/proc/self/oom_score_adj", "/proc/self/comm")
        with Procfs() as proc:
            proc.write("self/oom_score_adj", b"8")
        s.umount(b"/proc/self/oom_score_adj")
        assert open("/proc/self/oom_score_adj").read() == "8\\n"
        """,
    )
    assert held == "fake\n"


def test_s16_without_the_privilege_what_is_covered_is_refused(tmp_path: Path) -> None:
    """The /proc outside then, and nothing on another mount, be it a file of procfs itself."""
    held = in_mounts(
        tmp_path,
        """
        cover("/proc/sys/kernel/core_pattern")
        cover("/proc/self/oom_score_adj", "/proc/self/comm")
        ordinary()
        with Procfs() as proc:
            assert not proc.private
            refused(lambda: proc.write("sys/kernel/core_pattern", b"x"), errno.EXDEV)
            refused(lambda: proc.write("self/oom_score_adj", b"8"), errno.EXDEV)
            refused(lambda: proc.write("self/root/tmp/x", b"8"), errno.EXDEV, errno.ELOOP)
            refused(lambda: proc.write("../etc/passwd", b"8"), errno.EXDEV)
            proc.write("self/comm", b"named")
        assert open("/proc/self/comm").read() == "named\\n"
        """,
    )
    assert held == "fake\n"


@pytest.mark.parametrize("by", [None, "/proc/self", "/proc/1"])
def test_s16_what_lies_over_proc_is_no_procfs(tmp_path: Path, by: str | None) -> None:
    """A directory of the disk, or one of procfs, in the place of its root."""
    (tmp_path / "tree" / "self").mkdir(parents=True)
    (tmp_path / "tree" / "self" / "comm").write_text("fake\n")
    in_mounts(
        tmp_path,
        f"""
        cover("/proc", {by or str(tmp_path / "tree")!r})
        with Procfs() as proc:
            proc.write("self/comm", b"named")  # root does not look there at all
        ordinary()
        refused(Procfs, errno.ENODEV)
        """,
    )
    assert (tmp_path / "tree" / "self" / "comm").read_text() == "fake\n"


def test_s16_the_maps_of_a_namespace(tmp_path: Path) -> None:
    """A user namespace is not entered by a map written elsewhere: where a file lies over it, it has none."""
    held = in_mounts(
        tmp_path,
        """
        for name in ("uid_map", "gid_map", "setgroups"):
            cover(f"/proc/self/{name}")
        before = os.fork()
        if before == 0:  # root's own mount of procfs does not see what lies there
            userns.enter(userns.single(0, 0))
            os._exit(os.getuid() + 7)
        assert os.waitstatus_to_exitcode(os.waitpid(before, 0)[1]) == 7
        for name in ("uid_map", "gid_map", "setgroups"):
            cover(f"/proc/{os.getpid()}/{name}")
        wait, held = os.pipe()
        if os.fork() == 0:  # keeps these mounts: they would end with the last process in their namespace
            os.close(held)
            os.read(wait, 1)
            os._exit(0)
        ordinary()
        try:
            userns.enter(userns.single(65534, 65534))
        except userns.Unmapped:
            pass
        else:
            raise AssertionError("entered")
        """,
    )
    assert held == "fake\n"


def test_s16_before_openat2_the_type_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux before 5.6 cannot refuse a mount on the way: what was found has to be procfs."""
    place = tmp_path / "uid_map"
    place.write_text("before")
    root = os.open(tmp_path, os.O_PATH)
    os.symlink("/proc/self/oom_score_adj", tmp_path / "link")
    for _ in range(2):
        with pytest.raises(OSError, match="no file of procfs"):
            procfs.write(root, "uid_map", b"0 0 1")
        with pytest.raises(OSError):
            procfs.write(root, "link", b"0")
        monkeypatch.setattr(syscalls, "_OPENAT2", 9999)
    os.close(root)
    assert place.read_text() == "before"
    now = Path("/proc", SCORE).read_text()
    with Procfs() as proc:
        proc.write(SCORE, now.encode())


@pytest.mark.parametrize("mode", ["root", "rootless"])
def test_s16_no_other_write_to_procfs(world: Any, tmp_path: Path, mode: str) -> None:
    """Told by strace: from its start to its end a builder with a step and a network opens nothing of /proc by
    its name to write to it, and what it opens there it opens so that no mount can lie on the way.
    """
    trace = tmp_path / "trace"
    root = world.overlay()
    enter = "userns.enter(userns.everything()._replace(by='parent'))" if mode == "rootless" else "pass"
    code = (
        "import os\nfrom builder.sandbox import userns\nfrom builder.sandbox.run import Launcher\n"
        f"from builder.sandbox.spec import *\n{enter}\n"
        f"root = Overlay({root.lowers!r}, {root.upper!r}, {root.work!r}, userxattr={mode == 'rootless'})\n"
        "box = Sandbox(root, ('true',), env=(('PATH', '/bin'),), network='none')\n"
        f"with Launcher({world.path('stubs16' + mode)!r}) as launcher:\n"
        "    assert launcher.run(box, output_fd=2).status == 0\n"
    )
    command = ["strace", "-f", "-y", "-e", "trace=open,openat,openat2,fsopen", "-o", str(trace)]
    subprocess.run([*command, sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT)
    writing = [row for row in trace.read_text().splitlines() if "O_WRONLY" in row or "O_RDWR" in row]
    ours = [row for row in writing if re.search(r"pid_max|uid_map|gid_map|setgroups", row)]
    assert not [row for row in writing if '"/proc' in row]
    assert all("RESOLVE_NO_XDEV" in row for row in ours)
    assert any("pid_max" in row for row in ours) or os.uname().release < "6.14"
    assert any("uid_map" in row for row in ours) == (mode == "rootless")
    assert 'fsopen("proc"' in trace.read_text()
