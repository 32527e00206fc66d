"""The fork that becomes a container's monitor: a session and standard streams of its own, and nothing else of
the command's.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from builder.container.monitor import Monitor
from builder.errors import SandboxError

if TYPE_CHECKING:
    import socket

    from builder.container.monitor import Start
    from builder.container.store import Containers
    from builder.state import StateDir


def fork(
    containers: Containers,
    state: StateDir,
    start: Start,
    alive: int,
    client: tuple[socket.socket, socket.socket] | None,
) -> dict[str, Any]:
    """Make the monitor, which has the lock `alive`. Its process id and what it says when the container
    runs, or why it does not. This process must have one thread.

    `client` are the two ends of a connection: ours, and its.
    """
    ready, tell = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(containers, state, start, alive, tell, client)
    os.close(tell)
    if client is not None:
        client[1].close()
    said = b""
    with open(ready, "rb") as pipe:
        said = pipe.read()
    if not said:
        os.waitpid(pid, 0)
        raise SandboxError("the container's monitor ended before the container began")
    return dict(json.loads(said))


def _become(
    containers: Containers,
    state: StateDir,
    start: Start,
    alive: int,
    tell: int,
    client: tuple[socket.socket, socket.socket] | None,
) -> NoReturn:
    """The forked process: nothing of the command's frames is ever returned to."""
    code = 70
    try:
        os.setsid()
        gc.enable()
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        null = os.open("/dev/null", os.O_RDWR)
        errors = os.open(
            containers.path(start.container.id, "monitor.log"),
            os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
        )
        for fd, target in ((null, 0), (null, 1), (errors, 2)):
            os.dup2(fd, target)
        keep = {0, 1, 2, alive, tell, *([client[1].fileno()] if client else [])}
        _close_all_but(keep | {state.version_fd})
        Monitor(containers, state, start, tell, client[1] if client else None).run()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _close_all_but(keep: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with suppress(OSError):
                os.close(int(name))
