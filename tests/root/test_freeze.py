"""Stopping all that runs in a sandbox, while it does its best to go on, and letting it go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_joining import _install, contained

from builder.sandbox.cgroup import StepGroup
from builder.sandbox.cgroup_tree import Hierarchy, hierarchies, new_name, remove
from builder.sandbox.freeze import _pids, _stat, freeze, members, thaw
from builder.sandbox.spec import Membership

pytestmark = pytest.mark.root

BUSY = r"""
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
/* Threads that count, and processes that come and go all the time. */
volatile long counted;
static void *count(void *unused) { for (;;) counted++; return unused; }
int main(void) {
    pthread_t thread;
    pthread_create(&thread, 0, count, 0);
    for (int n = 0; n < 3; n++)
        if (!fork())
            for (;;) { if (!fork()) _exit(0); wait(0); }
    printf("up\n"); fflush(stdout);
    for (;;) pause();
}
"""


def states(pid: int) -> set[str]:
    """Of all threads of all processes."""
    found = set()
    for each in _pids(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # where they run, some end meanwhile
            for task in os.listdir(f"/proc/{each}/task"):
                found.add(_stat(f"{each}/task/{task}")[0])
    return found


def ticks(pid: int) -> int:
    """What all of them have used of a processor, and how many there are."""
    return sum(int(field) for each in _pids(pid) for field in [*_stat(each)[11:15], "1"])


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_everybody_stops_and_goes_on(world: Any, compiled: Callable[..., str]) -> None:
    """Threads, processes that fork as fast as they can, the first process, and one that joined."""
    _install(world, compiled(BUSY, "-static", "-pthread"), "bin/busy")
    read, write = os.pipe()
    with world.launcher.begin(world.sandbox("busy"), output_fd=write, tell_pid=True) as running:
        os.close(write)
        assert os.read(read, 10) == b"up\n"
        with world.launcher.join(running, world.sandbox("sleep", "8600"), output_fd=2) as joined:
            for _ in range(5):
                assert freeze(running.pid) == frozenset()
                assert states(running.pid) <= set("TZ") and joined.pid in _pids(running.pid)
                before = ticks(running.pid), _pids(running.pid)
                time.sleep(0.1)
                assert (ticks(running.pid), _pids(running.pid)) == before
                thaw(running.pid)
                until(lambda: bool(states(running.pid) & {"R"}))
            freeze(running.pid)
            running.signal(signal.SIGKILL)  # which is for the stopped, too
            assert running.wait().status == 137
            assert joined.wait().status == 137
    os.close(read)
    assert members(running.pid) == []
    with pytest.raises(ProcessLookupError):
        freeze(running.pid)


def test_who_was_stopped_before_stays_so(world: Any) -> None:
    with contained(world) as box, box.begin("sleep", "8601") as joined:
        until(lambda: members(box.running.pid)[-1].command == ("sleep", "8601"))
        joined.signal(signal.SIGSTOP)
        until(lambda: _stat(joined.pid)[0] == "T")
        before = freeze(box.running.pid)
        assert [pid for pid, _ in before] == [joined.pid]
        thaw(box.running.pid, before)
        until(lambda: _stat(box.running.pid)[0] == "S")
        assert _stat(joined.pid)[0] == "T"


def test_the_host_is_never_stopped(world: Any) -> None:
    """A process id that is no sandbox's is refused, our own and that of a step without namespaces too."""
    for pid in (os.getpid(), 1, world.launcher.pid, 1 << 30):
        assert members(pid) == []
        with pytest.raises(ProcessLookupError):
            freeze(pid)
        thaw(pid)


def test_who_is_in_it(world: Any) -> None:
    with contained(world) as box, box.begin("sh", "-c", "sleep 8602; true", uid=7) as joined:
        until(lambda: len(members(box.running.pid)) == 3)
        until(lambda: members(box.running.pid)[2].command == ("sleep", "8602"))
        first, second, third = members(box.running.pid)
        assert (first.pid, first.inside, first.command) == (box.running.pid, 1, ("sleep", "8500"))
        assert (second.pid, second.parent, second.uid) == (joined.pid, world.launcher.pid, 7)
        assert second.command == ("sh", "-c", "sleep 8602; true")
        assert (third.parent, third.uid) == (joined.pid, 7) and third.cpu_s < 1
        assert box.sh(f"cat /proc/{third.inside}/comm") == "sleep\n"


def test_namespaces_below_it(world: Any) -> None:
    """A privileged one can make pid namespaces of its own."""
    argv = ("busybox", "unshare", "-p", "-f", "sleep", "8603")
    with contained(world, *argv, privileged=True) as box:
        until(lambda: ("sleep", "8603") in [each.command for each in members(box.running.pid)])
        inner = members(box.running.pid)[-1]
        freeze(box.running.pid)
        assert _stat(inner.pid)[0] == "T"
        thaw(box.running.pid)
        until(lambda: _stat(inner.pid)[0] == "S")


def test_by_the_freezer_of_its_cgroup(world: Any, tmp_path: Path) -> None:
    """Version 2; processes outside of the cgroup are reason enough to use signals."""
    unified = next((each for each in hierarchies() if each.version == 2), None)
    if unified is None:
        pytest.skip("no cgroup2 is mounted")
    path = os.path.join(unified.mount, new_name())
    os.mkdir(path)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    place = SimpleNamespace(here=Hierarchy(2, unified.mount, unified.own), directory=unified.mount)
    group = StepGroup([(place, path)])  # type: ignore[list-item]
    group._before = [0]
    group.membership = Membership(fd)
    try:
        with contained(world, cgroup=group) as box:
            until(lambda: len(members(box.running.pid)) == 1)
            freeze(box.running.pid, group)
            assert Path(path, "cgroup.freeze").read_text() == "1\n"
            assert _stat(box.running.pid)[0] == "S", "it is not stopped, and notices nothing"
            thaw(box.running.pid, frozenset(), group)
            assert Path(path, "cgroup.freeze").read_text() == "0\n"
            with world.launcher.join(
                box.running, world.sandbox("sleep", "8605"), output_fd=2, cgroup=group
            ) as born_in_it:
                assert str(born_in_it.pid) in Path(path, "cgroup.procs").read_text().split()
            with box.begin("sleep", "8604") as joined:
                assert joined.pid > 0
                freeze(box.running.pid, group)
                assert Path(path, "cgroup.freeze").read_text() == "0\n"
                assert {_stat(box.running.pid)[0], _stat(joined.pid)[0]} == {"T"}
                thaw(box.running.pid, frozenset(), group)
    finally:
        os.close(fd)
        assert remove(path)
