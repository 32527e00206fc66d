"""A child beside a program: what it tells, and that nothing of it stays."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from oci import beside
from oci.beside import Beside


def test_it_tells_and_ends() -> None:
    child = Beside(lambda telling, _: (os.write(telling, b"done"), None)[1])
    assert os.read(child.told, 9) == b"done"
    assert os.read(child.told, 9) == b""
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child.finished
    assert child.close()
    assert not child.close()


def test_one_that_works_is_ended() -> None:
    child = Beside(lambda *_: signal.pause())
    pid = child.pid
    assert not child.finished
    child.close()
    assert child.finished
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_it_ends_when_it_is_left_alone() -> None:
    """Its parent is a child of ours that ends first."""
    read, write = os.pipe()

    def work(_: int, go_on: Callable[[], None]) -> None:
        os.write(write, b"begun")
        while True:
            go_on()
            os.sched_yield()

    pid = os.fork()
    if pid == 0:
        Beside(work)
        os.read(read, 1)
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    while os.read(read, 9):
        pass
    os.close(read)


def test_what_it_raises_ends_it_silently(capfd: pytest.CaptureFixture[str]) -> None:
    def work(*_: object) -> None:
        raise ValueError

    child = Beside(work)
    assert os.read(child.told, 1) == b""
    child.close()
    assert capfd.readouterr() == ("", "")


def test_threads_forbid_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (1, 2):
        monkeypatch.setattr(threading, "active_count", lambda count=count: count)
        assert beside.is_possible() is (count == 1)
