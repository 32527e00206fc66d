"""The launcher: a small process of its own that makes each step's process with one clone(2).

The builder has threads and much memory and must not fork; this process has neither. It takes orders from
descriptor 3 (a SOCK_SEQPACKET), each with the descriptors of one step and an answer socket; it answers when
the step has ended, and before with its process id if that was asked for. It ends when the builder does,
however that happens, and all steps with it: each is the init of its own pid namespace, or joins that of
another one, and asks for SIGKILL at our death.

Imports are few on purpose (KERNEL.md 2.1): the start of this process stands before the first RUN.
"""

from __future__ import annotations

import _socket
import gc
import marshal
import os
import select
import struct
import time

from builder.sandbox import syscalls as sys_
from builder.sandbox.bounds import Bounds, most_by_rlimit, most_pids
from builder.sandbox.mountcalls import load_what_old_kernels_need
from builder.sandbox.overlay import best_way
from builder.sandbox.plan import Plan
from builder.sandbox.step import READY, Step, usual_limits
from builder.sandbox.stubs import remove_stubs

ORDERS = 3
MESSAGE = 1 << 16
"""The longest order that travels in the message itself, in bytes; a longer one comes as a file in memory."""

RUN, RUN_FROM_FILE, KILL_ALL = b"R", b"F", b"K"
PID, STARTED = b"P", b"X"
"""Begins the message that brings a process id; the message that says that the program has been executed."""

_RETRY_S = 0.1
_NAMESPACES = (
    sys_.CLONE_NEWNS | sys_.CLONE_NEWPID | sys_.CLONE_NEWIPC | sys_.CLONE_NEWUTS | sys_.CLONE_NEWCGROUP
)


class Running:
    """A step's process as its launcher sees it."""

    __slots__ = (
        "_said",
        "answer",
        "chroot",
        "joined",
        "noting",
        "number",
        "pid",
        "pidfd",
        "report",
        "timed_out",
        "until",
    )

    def __init__(self, plan: Plan, pid: int, pidfd: int, report: int, answer: _socket.socket) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.report = report
        self.answer = answer
        self._said = b""
        self.until = time.monotonic() + plan.wall_s if plan.wall_s else 0.0
        self.timed_out = False
        self.number = plan.number
        self.joined = plan.join > 0
        """Whether it went into the namespaces of another one."""
        self.chroot = plan.source if plan.chroot else b""
        """The root of a step without namespaces, which leaves processes behind."""
        self.noting = 0
        """The process that notes its owners."""

    def reported(self) -> list[tuple[bytes, bytes]]:
        """All it told until its program started or it ended; waits for that."""
        if self.report >= 0:
            self._said, self.report = _read_all(self.report), -1
        return _frames(self._said)

    def begins(self) -> bool:
        """Whether its program has not started yet and it has not failed either."""
        if self.report < 0:
            return False
        poll = select.poll()
        poll.register(self.report, 0)
        return not poll.poll(0)


class Launcher:
    """The loop over orders, ends of steps and ends of those who wait for them."""

    def __init__(self, builder: int) -> None:
        self.orders = _socket.socket(fileno=ORDERS)
        self.builder = os.pidfd_open(builder)
        self.me = os.pidfd_open(os.getpid())
        self.poll = select.poll()
        for fd in (ORDERS, self.builder):
            self.poll.register(fd, select.POLLIN)
        self.overlay_by = best_way()
        load_what_old_kernels_need()
        self.rlimits = usual_limits(most_by_rlimit())
        self.by_pidfd: dict[int, Running] = {}
        self.by_answer: dict[int, Running] = {}
        self.starting: dict[int, Running] = {}
        """Those whose program has not started yet and whose builder wants to know, by their report."""
        self.joining: dict[int, list[tuple[Plan, list[int], _socket.socket]]] = {}
        """Who waits for a step's program to start, by that step's report."""
        self.held: list[Running] = []
        """Who has ended, but cannot be reaped yet: a process of the container traces it (ptrace(2))."""
        self.left: list[int] = []
        """Processes that note owners for what joined processes may have left behind."""
        self.most_pids = most_pids()

    def serve(self) -> None:
        """Until the builder closes its end or dies."""
        while True:
            ready = self.poll.poll(self._patience_ms())
            for fd, _ in ready:
                if fd == self.builder or (fd == ORDERS and not self._order()):
                    return
                if fd in self.by_pidfd:
                    self._ended(self.by_pidfd.pop(fd))
                elif fd in self.by_answer:
                    self._told(self.by_answer[fd])
            for fd, _ in ready:  # last: their descriptors' numbers may be closed ones of this round
                if fd in self.starting:
                    self._started(fd)
            for running in list(self.held):
                self._ended(running)

    def _patience_ms(self) -> int | None:
        """How long to wait until a step's time is over; None: no step has a limit. Kills those that are."""
        now, ends = time.monotonic(), []
        for running in self.by_pidfd.values():
            if running.until and now >= running.until:
                running.until, running.timed_out = 0.0, True
                sys_.pidfd_kill(running.pidfd)
            elif running.until:
                ends.append(running.until - now)
        if self.held:
            ends.append(_RETRY_S)
        return 1 + int(min(ends) * 1000) if ends else None

    def _told(self, running: Running) -> None:
        """A signal for a step; or nobody waits for it any more, which is its end.

        The kernel drops a signal for a pid namespace's init that has no handler for it: then the step ends by
        it as any other process would, which a joined one is.
        """
        try:
            message = running.answer.recv(1, _socket.MSG_DONTWAIT)
        except ConnectionResetError:
            message = b""
        number = message[0] if message else 9
        plain = running.joined or _catches(running.pid, number)
        sys_.pidfd_kill(running.pidfd, number if plain else 9)
        if not message:
            self.poll.unregister(running.answer.fileno())
            del self.by_answer[running.answer.fileno()]

    def end(self) -> None:
        """End what a pid namespace does not end by itself."""
        for running in self.by_pidfd.values():
            if running.chroot:
                sys_.pidfd_kill(running.pidfd)
                os.waitpid(running.pid, 0)
                end_orphans(running.chroot, [])

    def _order(self) -> bool:
        message, ancillary, _, _ = self.orders.recvmsg(MESSAGE + 1, 256, _socket.MSG_CMSG_CLOEXEC)
        fds = [fd for *_, data in ancillary for fd in struct.unpack(f"={len(data) // 4}i", data)]
        kind, body = message[:1], message[1:]
        if kind == KILL_ALL:
            for running in self.by_pidfd.values():
                sys_.pidfd_kill(running.pidfd)
        elif kind in (RUN, RUN_FROM_FILE):
            answer = _socket.socket(fileno=fds.pop(0))
            if kind == RUN_FROM_FILE:
                body = _read_all(fds.pop(0))
            plan = Plan(body)
            if plan.join:
                self._join(plan, fds, answer)
            else:
                self._begin(plan, fds, answer)
        return bool(message)

    def _join(self, plan: Plan, fds: list[int], answer: _socket.socket) -> None:
        """Begin a process in a step's namespaces, as soon as the step's program has started: before, the root
        directory there may be the host's still. So it is for good where that program was never reached.
        """
        target = next((each for each in self.by_pidfd.values() if each.number == plan.join), None)
        if target and target.begins():
            self.joining.setdefault(target.report, []).append((plan, fds, answer))
        elif target and READY in (said := [kind for kind, _ in target.reported()]) and b"E" not in said:
            self._begin(plan, fds, answer, target)
        else:
            _refuse(answer, fds, "join: the container is not running")

    def _started(self, report: int) -> None:
        """A program has started, or never will: tell, and let those in who waited for it."""
        self.poll.unregister(report)
        running = self.starting.pop(report)
        if not any(kind == b"E" for kind, _ in running.reported()):
            _tell(running.answer, STARTED)
        for waiting in self.joining.pop(report, ()):
            self._join(*waiting)

    def _begin(
        self, plan: Plan, fds: list[int], answer: _socket.socket, target: Running | None = None
    ) -> None:
        try:
            self._start(plan, fds, answer, target)
        except OSError as error:
            _refuse(answer, fds, f"{'join' if target else 'clone'}: {error.strerror or error}")
        else:
            for fd in fds:
                os.close(fd)

    def _start(self, plan: Plan, fds: list[int], answer: _socket.socket, target: Running | None) -> None:
        plan.overlay_by = max(plan.overlay_by, self.overlay_by)
        asked = {resource for resource, _, _ in plan.rlimits}
        usual = usual_limits(most_by_rlimit(own_pids=False)) if plan.chroot else self.rlimits
        plan.rlimits += [limit for limit in usual if limit[0] not in asked]
        rest = list(fds)
        output = -1 if plan.terminal else rest.pop(0)
        netns = rest.pop(0) if plan.netns else -1
        stdin = rest.pop(0) if plan.stdin else -1
        errors = rest.pop(0) if plan.errors else output
        cgroup = rest.pop(0) if plan.cgroup else -1
        flags = _NAMESPACES | (sys_.CLONE_NEWNET if netns < 0 and plan.network != "host" else 0)
        if plan.chroot:
            flags = 0
            sys_.prctl(sys_.PR_SET_CHILD_SUBREAPER, 1)
        if plan.cgroup or plan.tasks:
            flags &= ~sys_.CLONE_NEWCGROUP  # the step makes it when it is in its cgroups: its root
        if plan.number or target:
            # With the first of them: who joins it in some weeks must not meet the files of a later version.
            from builder.sandbox import answers, joining  # noqa: F401
        inside = joining.Namespaces(target.pid) if target else None
        report, tell = os.pipe2(os.O_CLOEXEC)
        here, there = _socket.socketpair() if plan.owners else (None, None)
        try:
            if inside and not plan.show:
                pid, pidfd = inside.clone(cgroup)
            else:
                pid, pidfd = sys_.clone(0 if inside else flags, cgroup)
            if pid == 0:
                confined = not target and not plan.chroot and (plan.cgroup or plan.tasks > 0)
                bounds = Bounds(confined, tuple(rest[: plan.tasks]), self.most_pids)
                ways = (tell, answer.fileno(), there.fileno() if there else -1)
                all_ = (plan, (output, netns, stdin, errors), ways, self.me, bounds)
                (joining.Joined(*all_, inside) if inside else Step(*all_)).run()
        except OSError:
            os.close(report)
            raise
        finally:
            os.close(tell)
            if inside:
                inside.close()
        running = Running(plan, pid, pidfd, report, answer)
        if plan.number or target:
            _tell(answer, PID + struct.pack("=i", pid))
            self.starting[report] = running
            self.poll.register(report, 0)
        if here and there:
            running.noting = _note_owners(plan, pid, here, there)
        self.by_pidfd[pidfd] = running
        self.by_answer[answer.fileno()] = running
        self.poll.register(pidfd, select.POLLIN)
        self.poll.register(answer.fileno(), select.POLLIN)

    def _ended(self, running: Running) -> None:
        if running.report in self.starting:
            self._started(running.report)
        reaped, code, usage = os.wait4(running.pid, os.WNOHANG)
        if running in self.held:
            if reaped:
                self.held.remove(running)
        else:
            self.poll.unregister(running.pidfd)
            if not reaped:
                self.held.append(running)
        if not reaped:
            return
        if running.chroot:
            end_orphans(running.chroot, [each.pid for each in self.by_pidfd.values()])
        if running.noting and running.joined:
            self.left.append(running.noting)
        elif running.noting:
            os.waitpid(running.noting, 0)
        self.left = [pid for pid in self.left if not os.waitpid(pid, os.WNOHANG)[0]]
        status, error, left, weaker = os.waitstatus_to_exitcode(code), "", [], []
        for kind, body in running.reported():
            if kind == b"S":
                left = remove_stubs(*marshal.loads(body))
            elif kind == b"W":
                weaker = marshal.loads(body)
            elif kind == b"E":
                status, error = marshal.loads(body)
        status = 128 - status if status < 0 else status
        os.close(running.pidfd)
        if self.by_answer.pop(running.answer.fileno(), None):
            self.poll.unregister(running.answer.fileno())
        end = (running.timed_out, weaker)
        seen = (usage.ru_utime, usage.ru_stime, usage.ru_maxrss * 1024)
        moved = (usage.ru_inblock * 512, usage.ru_oublock * 512)
        try:
            running.answer.send(marshal.dumps((status, *seen, error, left, *moved, *end)))
        except OSError:
            pass  # nobody waits for it
        running.answer.close()


def _refuse(answer: _socket.socket, fds: list[int], error: str) -> None:
    """Say why a process was not begun, and let go of what came for it."""
    try:
        answer.send(marshal.dumps((125, 0.0, 0.0, 0, error, [], 0, 0, False, [])))
    except OSError:
        pass  # nobody waits for it
    answer.close()
    for fd in fds:
        os.close(fd)


def _tell(answer: _socket.socket, message: bytes) -> None:
    try:
        answer.send(message)
    except OSError:
        pass  # nobody waits for it


def _catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal, or ignores it."""
    try:
        status = _read_all(os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    masks = [line.split()[1] for line in status.split(b"\n") if line.startswith((b"SigCgt:", b"SigIgn:"))]
    return any(int(mask, 16) >> number - 1 & 1 for mask in masks)


def _note_owners(plan: Plan, step: int, here: _socket.socket, there: _socket.socket) -> int:
    """The process that answers where the step gives files away; it ends with the step."""
    pid = os.fork()
    if pid == 0:
        from builder.sandbox import answers

        way = os.dup2(here.fileno(), ORDERS, inheritable=False)
        sys_.close_from(ORDERS + 1)  # above all the step's output, whose end somebody waits for
        answers.serve(step, way, *plan.owners[1:])
    here.close()
    there.close()
    return pid


def end_orphans(root: bytes, steps: list[int]) -> None:
    """Kill what a step in the root directory `root` left running. It has become our child; `steps` are the
    processes of other steps.
    """
    while True:
        text = _read_all(os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC))
        pids = [int(word) for word in text.split() if int(word) not in steps]
        ended = False
        for pid in pids:
            try:
                if os.fsencode(os.readlink(f"/proc/{pid}/root")) != root:
                    continue  # another step's
            except PermissionError:
                pass  # of a user: nobody else's but a step's
            except OSError:
                continue
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            ended = True
        if not ended:
            return


def _read_all(fd: int) -> bytes:
    blocks = []
    while block := os.read(fd, 1 << 20):
        blocks.append(block)
    os.close(fd)
    return b"".join(blocks)


def _frames(text: bytes) -> list[tuple[bytes, bytes]]:
    frames = []
    while len(text) >= 5:
        end = 5 + int(struct.unpack_from("=I", text, 1)[0])
        frames.append((text[:1], text[5:end]))
        text = text[end:]
    return frames


def main(builder: int) -> None:
    """Serve the builder with process id `builder`."""
    gc.disable()
    sys_.close_from(ORDERS + 1)
    os.set_inheritable(ORDERS, False)
    sys_.prctl(sys_.PR_SET_DUMPABLE, 0)
    sys_.new_keyring()
    # A mount namespace whose mounts send nothing back to the host, made once: copies of it for steps need
    # no further call.
    try:
        sys_.unshare(sys_.CLONE_NEWNS)
        sys_.mount(b"none", b"/", b"", sys_.MS_REC | sys_.MS_SLAVE)
    except PermissionError:
        pass  # then steps have no namespaces either, or say that they cannot have them
    launcher = Launcher(builder)
    launcher.serve()
    launcher.end()
    os._exit(0)
