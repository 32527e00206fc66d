"""What every test shares: which tests may not run beside each other."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

MACHINE = ("tests/root/", "tests/interop/")
"""Folders of tests that touch the machine: mounts, interfaces, daemons."""

# The same examples every time, and none of them fails for being slow on a busy machine. New ones are for
# `make test-differential`, which asks for many, and for fuzzing (tests/fuzz).
settings.register_profile(
    "pybuild",
    deadline=timedelta(minutes=1),
    derandomize="PYBUILD_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pybuild")


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
