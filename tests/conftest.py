"""What every test shares: which tests may not run beside each other."""

from __future__ import annotations

import pytest


# First: pytest-xdist writes the groups into the test ids in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that touch the machine (mounts, interfaces, daemons) stay on one worker, in order."""
    for item in items:
        if item.get_closest_marker("root") or item.get_closest_marker("interop"):
            item.add_marker(pytest.mark.xdist_group("machine"))
