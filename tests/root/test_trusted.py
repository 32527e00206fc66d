"""S94: programs of the system are taken only where nobody but root can have written them."""

from __future__ import annotations

import os
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
