"""Our terminal joined to the one of a sandbox: raw as long as that lasts, its size passed on, and afterwards
as it was, however it ends.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from builder.sandbox.spec import Terminal
from builder.sandbox.terminal import set_size
from builder.solver.running import ended

if TYPE_CHECKING:
    from types import FrameType

    from builder.sandbox.run import Running
    from builder.sandbox.spec import Exit

_CHUNK = 1 << 16
_GUARD = "import os, termios\nif not os.read(0, 1):\n    termios.tcsetattr(1, termios.TCSANOW, {!r})\n"


def size_of(*fds: int) -> Terminal:
    """The size of the first of `fds` that is a terminal."""
    for fd in fds:
        with suppress(OSError):
            columns, rows = os.get_terminal_size(fd)
            return Terminal(rows, columns)
    return Terminal()


@contextmanager
def own_terminal() -> Iterator[int]:
    """A descriptor of the terminal that standard input is, for both ways, whatever the other streams are."""
    try:
        fd = os.open(os.ttyname(0), os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # no name leads to it here
        fd = os.dup(0)
    try:
        yield fd
    finally:
        os.close(fd)


def attach(running: Running, source: int | None, target: int) -> Exit | None:
    """Join a sandbox's terminal to ours until it ends: `source` (a terminal; None for no input) to its input,
    its output to `target`. None when our side was gone first: then leaving `running` ends it.

    Raises SandboxError when it never began.
    """
    master = running.terminal()
    if master >= 0:
        with ExitStack() as stack:
            stack.callback(os.close, master)
            stack.enter_context(_size_passed_on(master, (target if source is None else source, target)))
            if source is not None:
                stack.enter_context(raw(source))
            if not join(master, source, target):
                return None
    return ended(running)


@contextmanager
def raw(fd: int) -> Iterator[None]:
    """The terminal `fd` passes every key on, as it is and at once, until the block ends.

    A process of its own sets it right when this one is killed without a chance to do so.
    """
    before = termios.tcgetattr(fd)
    with _guarded(fd, before):
        try:
            tty.setraw(fd, termios.TCSADRAIN)
            yield
        finally:
            # In the background, too: a stopped process would leave it raw.
            masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
            with suppress(termios.error):  # it was hung up
                termios.tcsetattr(fd, termios.TCSADRAIN, before)
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)


@contextmanager
def _guarded(fd: int, attributes: object) -> Iterator[None]:
    held, alive = os.pipe2(os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, old, new) for old, new in ((held, 0), (fd, 1), (fd, 2))]
    program = [sys.executable, "-I", "-S", "-c", _GUARD.format(attributes)]
    guard = os.posix_spawn(program[0], program, {}, file_actions=actions, setsid=True, setsigmask=[])
    os.close(held)
    try:
        yield
    finally:
        os.write(alive, b"x")
        os.close(alive)
        with suppress(ChildProcessError):
            os.waitpid(guard, 0)


@contextmanager
def _size_passed_on(master: int, ours: tuple[int, ...]) -> Iterator[None]:
    """Keep the size of `master` that of ours. Signals are the main thread's: elsewhere the size stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def resize(number: int = 0, frame: FrameType | None = None) -> None:
        size = size_of(*ours)
        if size != Terminal():
            set_size(master, size.rows, size.columns)

    before = signal.signal(signal.SIGWINCH, resize)
    try:
        resize()  # it may have changed since the sandbox was ordered
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)


def join(master: int, source: int | None, target: int) -> bool:
    """Copy both ways until the last process at the other end of `master` is gone (True), or until `source` or
    `target` is (False).
    """
    os.set_blocking(master, False)
    poll = select.poll()
    poll.register(master, select.POLLIN)
    if source is not None:
        poll.register(source, select.POLLIN)
    typed = b""
    while True:
        for fd, happened in poll.poll():
            if fd == source and not typed:
                block = _read(fd)
                if block == b"":
                    return False
                typed = block or b""
            elif fd == master and happened & ~select.POLLOUT:
                block = _read(master)
                if block == b"":
                    return True
                if block and not _write(target, block):
                    return False
        if typed:
            with suppress(OSError):
                typed = typed[os.write(master, typed) :]
        if source is not None:  # what cannot be taken yet is not read: nothing piles up
            poll.modify(source, 0 if typed else select.POLLIN)
        poll.modify(master, select.POLLIN | (select.POLLOUT if typed else 0))


def _read(fd: int) -> bytes | None:
    """What is there; empty at the end, None when nothing is there yet."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _write(fd: int, block: bytes) -> bool:
    view = memoryview(block)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        return False
    return True
