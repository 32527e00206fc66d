"""A store of its own for a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.images import Images
from builder.state import StateDir


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    with StateDir(str(tmp_path / "store")) as made:
        yield made


@pytest.fixture
def images(state: StateDir) -> Images:
    return Images(state)
