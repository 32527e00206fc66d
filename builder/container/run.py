"""`run` in the foreground: an image's program in a sandbox, its streams passed on, the container gone
afterwards.

Names, lists and detaching belong to the whole life of containers, which is a room of its own.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from builder.entitlements import granted
from builder.errors import UsageError
from builder.graph import Exec
from builder.isolation import current, need_runs
from builder.limiting import Limiting, limited, met
from builder.sandbox.spec import Exit
from builder.snapshot.overlay import opened
from builder.snapshot.view import DirectoryLayer, View
from builder.solver.chrooted import furnished
from builder.solver.result import Result, directories, parts_of, unpacker
from builder.solver.running import Runner, ended
from oci.data import dataclass

if TYPE_CHECKING:
    from types import FrameType

    from builder.events import Event
    from builder.sandbox.run import Running
    from builder.sandbox.spec import Sandbox
    from builder.state import StateDir
    from oci.blobs import BlobStore
    from oci.image import Image
    from oci.model import RunConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHUNK = 1 << 16
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What `run` was asked for. `args` replace the image's CMD, `entrypoint` its ENTRYPOINT (None keeps it).

    `interactive` passes standard input on; otherwise it is empty. With `terminal` the program gets a pseudo
    terminal of its own.
    """

    args: tuple[str, ...] = ()
    entrypoint: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    user: str = ""
    workdir: str = ""
    hostname: str = ""
    network: Literal["default", "none", "host"] = "default"
    extra_hosts: tuple[tuple[str, str], ...] = ()
    security_opts: tuple[str, ...] = ()
    allow: frozenset[str] = frozenset()
    interactive: bool = False
    terminal: bool = False
    limits: Limiting | None = None


def run(
    request: RunRequest,
    image: Image,
    state: StateDir,
    blobs: BlobStore,
    fetch: Callable[[int], bool] | None = None,
) -> int:
    """Run it to its end; the program's exit status (128+n for signal n, 126 and 127 as a shell).

    `fetch` makes a layer present and tells whether strangers wrote it (`builder.registries`).

    Raises UsageError when there is nothing to run, SandboxError when its surroundings could not be made.
    """
    config = image.config.value.config
    op = _op(request, config)
    with ExitStack() as stack:
        isolation = current()
        need_runs(isolation)
        snapshots = stack.enter_context(opened(state.snapshots, isolation))
        lowers = directories(Result("", parts_of(image, fetch)), unpacker(snapshots, blobs))
        view = View([DirectoryLayer(each, userxattr=isolation.userxattr) for each in reversed(lowers)])
        active = stack.enter_context(snapshots.prepare(lowers))
        stubs = os.path.join(state.snapshots, ".stubs")
        allow = granted(request.allow, request.network)
        groups = stack.enter_context(limited(request.limits, state.cgroups, _warn))
        runner = stack.enter_context(
            Runner(stubs=stubs, logs=lambda: "", emit=_warn, allow=allow, groups=groups)
        )
        sandbox = runner.sandbox(op, active, lambda: view)
        with_ = _with_terminal if request.terminal else _with_streams
        with furnished(sandbox, active):
            exit_ = with_(runner, sandbox, request.interactive)
    if exit_.error:
        from builder.solver.foreign import advice

        hint = advice(op, view)
        sys.stderr.write(f"pybuild: {exit_.error}\n" + (f"hint: {hint}\n" if hint else ""))
    elif exit_.status and (text := met(exit_, groups, "the container")):
        sys.stderr.write(f"pybuild: {text}\n")
    return exit_.status


def _warn(event: Event) -> None:
    sys.stderr.write(f"warning: {getattr(event, 'message', '')}\n")


def _op(request: RunRequest, config: RunConfig) -> Exec:
    """What to run, as RUN's op: the image's config under the request's options."""
    entrypoint = config.entrypoint or ()
    args = request.args or (() if request.entrypoint is not None else config.cmd or ())
    if request.entrypoint is not None:
        entrypoint = (request.entrypoint,) if request.entrypoint else ()
    argv = (*entrypoint, *args)
    if not argv:
        raise UsageError("no command: the image has neither ENTRYPOINT nor CMD", hint="name a program to run")
    env: dict[str, str] = {"PATH": DEFAULT_PATH, **({"TERM": "xterm"} if request.terminal else {})}
    env |= dict(each.partition("=")[::2] for each in config.env)
    env |= dict(request.env)
    return Exec(
        argv,
        tuple(env.items()),
        request.workdir or config.working_dir or "/",
        request.user or config.user,
        request.network,
        extra_hosts=request.extra_hosts,
        security_opts=request.security_opts,
        hostname=request.hostname or secrets.token_hex(6),
    )


def _with_streams(runner: Runner, sandbox: Sandbox, interactive: bool) -> Exit:
    """Run with pipes for its output, copied to ours; with `interactive`, one that our input is copied to.

    The container never holds a descriptor of the host: it could be reopened and written over, or typed into.
    """
    with ExitStack() as stack:
        pumps = []
        ends = []
        for ours in (1, 2):
            read, write = _pipe(stack)
            pumps.append(threading.Thread(target=_pump, args=(read, ours), daemon=True))
            ends.append(write)
        stdin, feed = _pipe(stack) if interactive else (None, None)
        with runner.begin(
            sandbox, ends[0].fd, errors=ends[1].fd, stdin=stdin.fd if stdin else None
        ) as running:
            for end in (*ends, *([stdin] if stdin else [])):
                end.close()
            if feed is not None:
                threading.Thread(target=_pump, args=(_End(os.dup(0)), feed.fd, feed), daemon=True).start()
            for pump in pumps:
                pump.start()
            with _signals_passed_on(running) as passed:
                for pump in pumps:
                    pump.join()
                exit_ = ended(running)
        return replace(exit_, status=128 + passed[-1]) if passed and exit_.status == 137 else exit_


def _with_terminal(runner: Runner, sandbox: Sandbox, interactive: bool) -> Exit:
    """Run with a terminal of its own joined to our standard output, and to our input if `interactive`."""
    from builder.container.terminal import attach, size_of

    with runner.begin(replace(sandbox, terminal=size_of(0, 1, 2)), None) as running:
        return attach(running, 0 if interactive else None, 1) or Exit(128 + signal.SIGHUP)


@contextmanager
def _signals_passed_on(running: Running) -> Iterator[list[int]]:
    """What asks us to end asks the program: the signals that were passed on. The third ends it."""
    passed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield passed
        return

    def pass_on(number: int, frame: FrameType | None) -> None:
        passed.append(number)
        if len(passed) > 2:
            raise KeyboardInterrupt
        running.signal(number)

    before = [(number, signal.signal(number, pass_on)) for number in _PASSED_ON]
    try:
        yield passed
    finally:
        for number, handler in before:
            signal.signal(number, handler)


class _End:
    """One end of a pipe, closed once."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _pipe(stack: ExitStack) -> tuple[_End, _End]:
    ends = os.pipe2(os.O_CLOEXEC)
    read, write = _End(ends[0]), _End(ends[1])
    stack.callback(read.close)
    stack.callback(write.close)
    return read, write


def _pump(source: _End, target: int, close: _End | None = None) -> None:
    """Copy until the source ends or nobody reads any more."""
    with suppress(OSError):
        while chunk := os.read(source.fd, _CHUNK):
            view = memoryview(chunk)
            while view:
                view = view[os.write(target, view) :]
    if close is not None:
        close.close()
