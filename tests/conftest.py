"""What every test shares: which tests may not run beside each other, and where temporary files lie."""

from __future__ import annotations

import os
import shutil
import tempfile
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

_FRESH = pytest.StashKey[str]()
"""This run's own directory for temporary files."""
_FAILED = pytest.StashKey[bool]()
"""Whether a test failed: then its files are kept."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Temporary files lie in a directory of this run alone, unless `--basetemp` says where.

    pytest's own numbered directories are cleaned by later runs, and what others left there (files of
    users that a namespace does not know, mounts, immutable files) would then fail those.
    """
    if config.option.basetemp is None:
        config.stash[_FRESH] = config.option.basetemp = tempfile.mkdtemp(prefix="pybuild-tests-")
        config.add_cleanup(lambda: None if _FAILED in config.stash else _remove(config.stash[_FRESH]))


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    if exitstatus == pytest.ExitCode.TESTS_FAILED and _FRESH in config.stash:
        config.stash[_FAILED] = True
        terminalreporter.write_line(f"temporary files are kept in {config.stash[_FRESH]}")


def _remove(folder: str) -> None:
    """Remove it as far as that is possible, but nothing behind a mount that a test left in it."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        if not any(line.split()[4].startswith(folder + "/") for line in mounts):
            shutil.rmtree(folder, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that touches the machine says so, and lies where the scheduler looks for it. Its name is the
    same in every process: workers have to find the same tests.
    """
    for item in items:
        if " at 0x" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid}: give its parameters ids, not addresses")
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
