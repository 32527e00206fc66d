"""The lock of a build as a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builder.errors import ContextError
from builder.lock import Lock


def test_a_directory_for_a_file_is_refused_and_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ContextError, match="cannot be read: Is a directory"):
        Lock.read(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before
    assert Lock.read(str(tmp_path / "none")) is None
