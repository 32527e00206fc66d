"""One more process in the namespaces of a step that runs: what `exec` is (SECURITY.md S92).

It is a child of the launcher, born in the step's pid namespace, and enters the other namespaces by itself,
the mounts last. From its birth on the step's processes see it, so it can be neither traced nor looked into
(not dumpable, which is inherited from the launcher), and from the mounts on it opens no file of the image.

One that only shows the root (`Plan.show`) stays out of the pid namespace and the cgroups: nothing in there
can see it, or stop it.
"""

from __future__ import annotations

import errno
import os
import struct

from builder.sandbox import syscalls as sys_
from builder.sandbox.step import NotStarted, Step, lower
from builder.sandbox.terminal import hand_over, open_further_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from builder.sandbox.bounds import Bounds
    from builder.sandbox.plan import Plan

_ENTERED = (
    ("net", sys_.CLONE_NEWNET),
    ("ipc", sys_.CLONE_NEWIPC),
    ("uts", sys_.CLONE_NEWUTS),
    ("cgroup", sys_.CLONE_NEWCGROUP),
    ("mnt", sys_.CLONE_NEWNS),
)
"""In this order: whoever has the step's mounts sees the host's /proc no more."""


class Gone(OSError):
    """The step has ended."""


class Namespaces:
    """Descriptors of the namespaces of a step. Close them in the launcher."""

    __slots__ = ("entered", "pid")

    def __init__(self, pid: int) -> None:
        """Of the process `pid`, which is not reaped before this returns. Raises Gone when it has ended."""
        self.entered: list[tuple[str, int, int]] = []
        self.pid = -1
        try:
            self.pid = _open(pid, "pid")
            for name, kind in _ENTERED:
                if _identity("self", name) != _identity(pid, name):
                    self.entered.append((name, kind, _open(pid, name)))
        except OSError as error:
            self.close()
            if error.errno in (errno.ENOENT, errno.ESRCH):
                raise Gone(errno.ESRCH, "the container is not running any more") from None
            raise

    def close(self) -> None:
        """Let go of all of them."""
        for fd in (self.pid, *(fd for _, _, fd in self.entered)):
            if fd >= 0:
                os.close(fd)
        self.entered, self.pid = [], -1

    def clone(self, cgroup: int = -1) -> tuple[int, int]:
        """fork(2) into the pid namespace: (0, -1) in the child, else its pid as we see it and a pidfd.

        Made by a helper, as its brother: who has chosen a pid namespace for his children cannot choose the
        old one again where that belongs to another user namespace. Raises Gone, OSError.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC)
        helper, handle = sys_.clone(0)
        if helper == 0:
            try:
                sys_.setns(self.pid, sys_.CLONE_NEWPID)
                made, _ = sys_.clone(sys_.CLONE_PARENT, cgroup)
                if made == 0:
                    return 0, -1
            except OSError as error:
                made = -(error.errno or errno.EIO)
            os.write(writing, struct.pack("=i", made))
            os._exit(0)
        os.close(writing)
        told = os.read(reading, 4)
        os.waitpid(helper, 0)
        os.close(handle)
        os.close(reading)
        pid = struct.unpack("=i", told)[0] if told else -errno.EIO
        if pid == -errno.ENOMEM:  # what a namespace without its init says
            raise Gone(errno.ENOMEM, "the container is ending")
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        return pid, os.pidfd_open(pid)


def _open(pid: int | str, name: str) -> int:
    return os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)


def _identity(pid: int | str, name: str) -> tuple[int, int]:
    st = os.stat(f"/proc/{pid}/ns/{name}")
    return st.st_dev, st.st_ino


class Joined(Step):
    """The process. All as for a step's own but its surroundings, which are there."""

    def __init__(
        self,
        plan: Plan,
        fds: tuple[int, int, int, int],
        ways: tuple[int, int, int],
        launcher: int,
        bounds: Bounds,
        namespaces: Namespaces,
    ) -> None:
        super().__init__(plan, fds, ways, launcher, bounds)
        self.namespaces = namespaces

    def _surroundings(self) -> int:
        sys_.new_keyring()
        self.doing = "standard streams"
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for name, kind, fd in self.namespaces.entered:
            if self.plan.show and name != "mnt":
                continue
            self.doing = f"{name} namespace"
            sys_.setns(fd, kind)
        if self.plan.terminal:
            self._further_terminal()
        os.umask(0o022)
        return null

    def _shown(self) -> NoReturn:
        os._exit(0)  # the container's own processes keep its mounts

    def _further_terminal(self) -> None:
        self.doing = "terminal"
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        master, slave = open_further_terminal(root, *self.plan.terminal)
        os.close(root)
        hand_over(self.answer, master)
        os.close(master)
        self.stdin = self.output = self.errors = slave

    def _missing_working_directory(self, cwd: str) -> None:
        """Nothing is made here: others are at work in these directories, and would have it made where they
        please. As in Docker it is an error.
        """
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _working_directory(self) -> None:
        try:
            super()._working_directory()
        except OSError as error:
            status = 127 if error.errno == errno.ENOENT else 126
            raise NotStarted(status, f"{self.doing}: {lower(error)}") from None
