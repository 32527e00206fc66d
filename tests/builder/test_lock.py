"""The lock of a build as a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from holding import descriptors, no_descriptor_more_than

from builder.errors import ContextError
from builder.lock import Lock


def test_a_directory_for_a_file_is_refused_and_closed(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(ContextError, match="cannot be read: Is a directory"):
        Lock.read(str(tmp_path))
    no_descriptor_more_than(before)
    assert Lock.read(str(tmp_path / "none")) is None
