"""S94: programs of the system are taken only where nobody but root can have written them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from builder.sandbox.userns import trusted

pytestmark = pytest.mark.root


def test_s94_a_program_that_others_can_write_is_none(tmp_path: Path) -> None:
    folder, file = tmp_path / "bin", tmp_path / "bin" / "newthing"
    folder.mkdir(mode=0o755)
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    folders = (str(folder),)
    assert trusted("newthing", folders=folders) == str(file)
    for path, mode in ((file, 0o775), (file, 0o757), (folder, 0o775), (folder, 0o777)):
        path.chmod(mode)
        assert trusted("newthing", folders=folders) == ""
        path.chmod(0o755)
    for path in (file, folder):
        os.chown(path, 1000, 0)
        assert trusted("newthing", folders=folders) == ""
        os.chown(path, 0, 0)
    assert trusted("newthing", folders=folders) == str(file)


def test_s94_where_setuid_counts_for_nothing_no_ids_are_expected(tmp_path: Path) -> None:
    """A file system that is mounted nosuid gives newuidmap no power, whatever its mode says."""
    code = """
import os, shutil, sys
from builder.sandbox import syscalls as s, userns
path = sys.argv[1] + "/newuidmap"
s.unshare(s.CLONE_NEWNS)
s.mount(b"none", b"/", b"", s.MS_REC | s.MS_PRIVATE)
for flags in (0, 2):  # MS_NOSUID
    s.mount(b"tmpfs", sys.argv[1].encode(), b"tmpfs", flags)
    shutil.copy("/bin/busybox", path)
    print(userns.gives_ids(path), end=" ")
    os.chmod(path, 0o4755)
    print(userns.gives_ids(path))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout == "False True\nFalse False\n", done.stderr
