"""What every test shares: which tests may not run beside each other."""

from __future__ import annotations

from typing import Any

import pytest

MACHINE = ("tests/root/", "tests/interop/")
"""Folders of tests that touch the machine: mounts, interfaces, daemons."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that touches the machine says so, and lies where the scheduler looks for it."""
    for item in items:
        marked = bool(item.get_closest_marker("root") or item.get_closest_marker("interop"))
        if marked != item.nodeid.startswith(MACHINE):
            raise pytest.UsageError(
                f"{item.nodeid}: tests marked root or interop live in {' and '.join(MACHINE)}"
            )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One worker runs all tests that touch the machine, in order; the others run beside it.

    By folder, because xdist's own groups (`--dist loadgroup`) are lost with newer versions of pytest: it
    writes them into a private attribute of the tests.
    """
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class ByMachine(LoadScopeScheduling):  # type: ignore[misc,unused-ignore]
        def _split_scope(self, nodeid: str) -> str:
            return "machine" if nodeid.startswith(MACHINE) else nodeid

    return ByMachine(config, log)
