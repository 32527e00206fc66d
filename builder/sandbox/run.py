"""The builder's side of the launcher: start it, hand it sandboxes, wait for their ends."""

from __future__ import annotations

import _socket
import itertools
import marshal
import os
import struct
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from builder.sandbox import launcher as there
from builder.sandbox.plan import pack
from builder.sandbox.spec import Bind, Exit, Overlay
from builder.sandbox.stubs import stub_tree
from builder.sandbox.terminal import MASTER

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from builder.sandbox.cgroup import StepGroup
    from builder.sandbox.spec import Sandbox

_PATIENCE_S = 3.0
_numbers = itertools.count(1)
"""Of steps that can be joined: each has one that no step of another launcher has either."""

_BOOT = (
    "import sys\n"
    "for name, path in (('builder', sys.argv[1]), ('builder.sandbox', sys.argv[1] + '/sandbox')):\n"
    "    module = sys.modules[name] = type(sys)(name)\n"
    "    module.__path__ = [path]\n"
    "from builder.sandbox.launcher import main\n"
    "main(int(sys.argv[2]))\n"
)
"""Neither site-packages nor `builder/__init__.py` are touched: only this folder's files are imported."""


class Launcher:
    """Runs sandboxes from any number of threads. Use it in `with`; the process starts with `start` or the
    first `run`.

    `stubs` is a directory on the file system of the snapshots for the shared trees of mount points (see
    `stubs`); it is made when missing and may stay for later builds. Without it, mount points that an image
    lacks are made in the upper directory and removed after each step.
    """

    def __init__(self, stubs: str = "", *, overlay_by: int = 0) -> None:
        self._stubs = stubs
        self._overlay_by = overlay_by
        self._lock = threading.Lock()
        self._orders: _socket.socket | None = None
        self._pid = 0
        self._closed = False
        self._running = 0
        self._idle = threading.Condition(self._lock)

    def __enter__(self) -> Launcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is not None:
            self.kill_all()
        self.close()

    @property
    def pid(self) -> int:
        """The launcher's process id, 0 before its start."""
        return self._pid

    def start(self) -> None:
        """Start the process without waiting for it: orders may be given at once."""
        with self._lock:
            if self._closed:
                raise OSError("start launcher: it was closed")
            if self._orders is None:
                self._orders, self._pid = _spawn()

    def run(
        self,
        sandbox: Sandbox,
        *,
        output_fd: int,
        netns_fd: int | None = None,
        stdin_fd: int | None = None,
        cgroup: StepGroup | None = None,
    ) -> Exit:
        """Run one sandbox to its end and say how it ended: `begin` and `Running.wait` in one."""
        running = self.begin(
            sandbox, output_fd=output_fd, netns_fd=netns_fd, stdin_fd=stdin_fd, cgroup=cgroup
        )
        with running:
            return running.wait()

    def begin(
        self,
        sandbox: Sandbox,
        *,
        output_fd: int | None,
        netns_fd: int | None = None,
        stdin_fd: int | None = None,
        error_fd: int | None = None,
        cgroup: StepGroup | None = None,
        tell_pid: bool = False,
        show: str = "",
    ) -> Running:
        """Begin to run one sandbox; any number may run at once. Use the result in `with`.

        `output_fd` becomes standard output, and standard error unless `error_fd` does: give a pipe (its
        other end sees EOF when the last process of the step is gone and the caller has closed its own
        copy), never a log file, which the step could reopen and truncate. A sandbox with a terminal of its
        own takes no other stream (`output_fd` is None), see `Running.terminal`. `netns_fd` is a ready network
        namespace for `network="private"`; without it a private network has only `lo`. `cgroup` is where
        its processes are counted and limited from the first moment on (`builder.sandbox.cgroup`). The caller
        keeps and closes all descriptors, as soon as this has returned if it likes. With `tell_pid` the result
        knows its process id, and others can `join` it.

        With `show` no program is executed: the root comes as a descriptor (`Running.terminal`), with all that
        is mounted in it ("mounted"), as long as the result's `with` block lasts; or without ("alone").

        OSError: the launcher itself is gone. ValueError: a name or string that cannot be passed on.
        """
        _need_streams(sandbox, output_fd, stdin_fd, error_fd)
        number = next(_numbers) if tell_pid else 0
        with_netns = netns_fd is not None and sandbox.network == "private"
        stubs = stub_tree(self._stubs, sandbox) if self._stubs and isinstance(sandbox.root, Overlay) else ""
        order = pack(
            sandbox,
            stubs=stubs,
            overlay_by=self._overlay_by,
            stdin=stdin_fd is not None,
            errors=error_fd is not None,
            netns=with_netns,
            cgroup=cgroup is not None and cgroup.membership.unified >= 0,
            tasks=len(cgroup.membership.tasks) if cgroup else 0,
            number=number,
            show=show,
        )
        fds = (output_fd, netns_fd if with_netns else None, stdin_fd, error_fd)
        running = self._give(order, fds, cgroup)
        running.expect(
            pid=tell_pid,
            terminal=sandbox.terminal is not None or bool(show),
            number=0 if sandbox.chroot else number,
        )
        return running

    def join(
        self,
        running: Running,
        sandbox: Sandbox,
        *,
        output_fd: int | None,
        stdin_fd: int | None = None,
        error_fd: int | None = None,
        cgroup: StepGroup | None = None,
        show: str = "",
    ) -> Running:
        """Begin one more process inside a running sandbox: in its namespaces, with its root, mounts, network
        and hostname, whatever `sandbox` says of these. Its program, identity, capabilities, filter, limits
        and terminal are those of `sandbox`; it is confined no less than a first process with them.

        `running` was begun by this launcher with `tell_pid`. A process that comes before the sandbox's own
        program has started waits for that. It ends with the sandbox, with status 137; its own children stay
        behind when it ends first. It is not in the sandbox's cgroups unless `cgroup` brings it there. A
        working directory that is missing is an error (status 127). Streams, descriptors and
        `show` as for `begin`; the root shown is that of its mounts, wherever its processes put their own.

        OSError: the launcher itself is gone. ValueError: one of the two has no namespaces, or `running` was
        not begun so that it can be joined.
        """
        _need_streams(sandbox, output_fd, stdin_fd, error_fd)
        if sandbox.chroot or not running.number:
            raise ValueError("only a sandbox with namespaces, begun with `tell_pid`, can be joined")
        order = pack(
            replace(sandbox, root=Bind(""), mounts=()),
            stdin=stdin_fd is not None,
            errors=error_fd is not None,
            cgroup=cgroup is not None and cgroup.membership.unified >= 0,
            tasks=len(cgroup.membership.tasks) if cgroup else 0,
            join=running.number,
            show=show,
        )
        joined = self._give(order, (output_fd, stdin_fd, error_fd), cgroup)
        joined.expect(pid=True, terminal=sandbox.terminal is not None or bool(show))
        return joined

    def _give(self, order: bytes, fds: tuple[int | None, ...], cgroup: StepGroup | None) -> Running:
        """Hand an order with its descriptors to the process."""
        self.start()
        mine, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        groups = cgroup.membership.fds() if cgroup else ()
        self._count(1)
        try:
            self._send(order, theirs.fileno(), [fd for fd in (*fds, *groups) if fd is not None])
        except BaseException:
            mine.close()
            self._count(-1)
            raise
        finally:
            theirs.close()
        return Running(mine, lambda: self._count(-1), cgroup)

    def _count(self, change: int) -> None:
        with self._idle:
            self._running += change
            self._idle.notify_all()

    def _send(self, order: bytes, answer: int, fds: list[int]) -> None:
        kind, fds, long = there.RUN, [answer, *fds], -1
        if len(order) >= there.MESSAGE:
            from builder.sandbox.syscalls import memfd

            long = memfd(order)
            kind, order = there.RUN_FROM_FILE, b""
            fds.insert(1, long)
        try:
            rights = struct.pack(f"={len(fds)}i", *fds)
            self._orders_socket().sendmsg(
                [kind + order], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)], _socket.MSG_NOSIGNAL
            )
        finally:
            if long >= 0:
                os.close(long)

    def _orders_socket(self) -> _socket.socket:
        if self._orders is None:
            raise OSError("run: the launcher was closed")
        return self._orders

    def kill_all(self) -> None:
        """Kill every running step; their `run` returns with status 137. Later runs are not affected."""
        with self._lock:  # else another thread's `close` may give the descriptor's number away meanwhile
            if self._orders is None:
                return
            try:
                self._orders.send(there.KILL_ALL, _socket.MSG_NOSIGNAL)
            except OSError:
                pass  # the launcher is gone, and its steps with it

    def close(self) -> None:
        """Wait for running steps, then end the process and reap it."""
        with self._idle:
            self._closed = True
            self._idle.wait_for(lambda: self._running == 0)
            orders, self._orders = self._orders, None
        if orders is not None:
            orders.close()
            try:
                os.waitpid(self._pid, 0)
            except ChildProcessError:
                pass


class Running:
    """A sandbox under way. Leaving the `with` block without `wait` kills it, and waits until it is gone."""

    def __init__(self, answer: _socket.socket, ended: Callable[[], None], cgroup: StepGroup | None) -> None:
        self._answer = answer
        self._ended = ended
        self._cgroup = cgroup
        self._end = b""
        self._over = False
        self._pid: int | None = 0
        self._master: int | None = -1
        self._started: bool | None = True
        self.number = 0
        """By which the launcher knows it; 0 when it cannot be joined."""

    def expect(self, *, pid: bool, terminal: bool, number: int = 0) -> None:
        """What the launcher and the process are going to tell, in any order and before the end."""
        self._pid = None if pid else 0
        self._master = None if terminal else -1
        self._started = None if pid else True
        self.number = number

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if not self._over:
                self._kill()
        finally:
            if (master := self._master) is not None and master >= 0:
                os.close(master)
            self._answer.close()
            self._ended()

    def _kill(self) -> None:
        """As long as it is there its files are in use. One that cannot be ended, because it waits for a disk
        that does not answer, is left to the kernel.
        """
        self.signal(9)
        self._answer.settimeout(_PATIENCE_S)
        with suppress(OSError):
            while not self._over:
                self._hear()

    def _hear(self) -> None:
        """Take in one message: the process id, the terminal, or the end."""
        space = _socket.CMSG_SPACE(struct.calcsize("=i"))
        message, ancillary, _, _ = self._answer.recvmsg(1 << 16, space, _socket.MSG_CMSG_CLOEXEC)
        for _, _, data in ancillary:
            self._master = struct.unpack("=i", data)[0]
        if ancillary or message == MASTER:
            return
        if message[:1] == there.PID:
            self._pid = struct.unpack("=i", message[1:])[0]
            return
        if message == there.STARTED:
            self._started = True
            return
        self._end, self._over = message, True
        self._pid = self._pid or 0
        self._started = bool(self._started)
        self._master = -1 if self._master is None else self._master

    @property
    def pid(self) -> int:
        """The process id of its first process as this process sees it, asked for with `tell_pid`; waits until
        there is one. 0 when it never came to that.
        """
        while self._pid is None:
            self._hear()
        return self._pid

    def fileno(self) -> int:
        """A descriptor to poll: readable means that it has ended and `wait` does not block, if `over` does
        not say so already. Waits until its program has been executed, or cannot be.
        """
        while self._pid is None or self._master is None or self._started is None:
            self._hear()
        return self._answer.fileno()

    @property
    def over(self) -> bool:
        """Whether its end is known, and `wait` only tells it."""
        return self._over

    @property
    def started(self) -> bool:
        """Whether its program has been executed; waits until that is known. For those begun with
        `tell_pid`, and those that joined.
        """
        while self._started is None:
            self._hear()
        return self._started

    @property
    def group(self) -> StepGroup | None:
        """The cgroups that it is in."""
        return self._cgroup

    def terminal(self) -> int:
        """The other end of the sandbox's terminal, which the caller closes: reading gives EIO when its last
        process is gone. -1 when it never came to that: `wait` tells why. Call it once, before `wait`.
        """
        while self._master is None:
            self._hear()
        master, self._master = self._master, -1
        return master

    def signal(self, number: int) -> None:
        """Send a signal to the process. Without a handler for it a sandbox's first process ends, with status
        137; for one that joined it does what it does anywhere.
        """
        with suppress(OSError):  # it has ended
            self._answer.send(bytes([number]), _socket.MSG_NOSIGNAL)

    def wait(self) -> Exit:
        """How it ended.

        A sandbox that could not be set up is no exception: `Exit.error` says what failed (status 125), or
        why the command could not be executed (126, 127). OSError: the launcher itself is gone.
        """
        while not self._over:
            self._hear()
        if not self._end:
            raise OSError("run: the launcher process ended; see the lines above for its reason")
        status, user_s, system_s, max_rss, error, left, *end = marshal.loads(self._end)
        read, written, timed_out, weaker = end
        used = self._cgroup.used() if self._cgroup else None
        moved = (read, written, timed_out, used, tuple(weaker))
        return Exit(status, user_s, system_s, max_rss, error, tuple(left), *moved)


def _need_streams(sandbox: Sandbox, output: int | None, *others: int | None) -> None:
    given = [fd for fd in (output, *others) if fd is not None]
    if given if sandbox.terminal is not None else output is None:
        raise ValueError("a sandbox has either a terminal or an output")


def _spawn() -> tuple[_socket.socket, int]:
    """posix_spawn, which unlike fork costs the same in a large process. Own session: Ctrl-C is the
    builder's to handle.
    """
    python = getattr(sys, "_base_executable", "") or sys.executable
    program = _protected(python)
    mine, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    for end in (mine, theirs):
        end.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, 4 * there.MESSAGE)
    folder = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    try:
        pid = os.posix_spawn(
            f"/proc/self/fd/{program}",
            [python, "-I", "-S", "-c", _BOOT, folder, str(os.getpid())],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), there.ORDERS),
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=range(1, 32),
        )
    except BaseException:
        mine.close()
        raise
    finally:
        theirs.close()
        os.close(program)
    return mine, pid


def _protected(python: str) -> int:
    """The interpreter as a descriptor through which nobody can write to it.

    An image can make the kernel run the process's own program again (`#!/proc/self/exe`) and then write to
    it through /proc (CVE-2019-5736). Seen through a read-only mount of its own it meets EROFS; where such a
    mount cannot be had, the program is a sealed copy in memory (SECURITY.md S10). OSError: neither can be.
    """
    import fcntl

    real = os.path.realpath(python)
    found = _read_only_clone(real)
    if found < 0:
        found = _sealed_copy(real)
    try:
        return fcntl.fcntl(found, fcntl.F_DUPFD_CLOEXEC, there.ORDERS + 1)  # ORDERS is about to be taken
    finally:
        os.close(found)


def _read_only_clone(path: str) -> int:
    from builder.sandbox import syscalls

    try:
        fd = syscalls.open_tree(syscalls.AT_FDCWD, os.fsencode(path))
    except OSError:
        return -1
    try:
        syscalls.mount_setattr(fd, syscalls.ATTR_RDONLY | syscalls.ATTR_NODEV)
    except OSError:
        os.close(fd)
        return -1
    return fd


def _sealed_copy(path: str) -> int:
    from builder.sandbox import syscalls

    with open(path, "rb") as file:
        return syscalls.memfd(file.read(), executable=True)
