"""What one step's process does between clone(2) and exec(2), in this order and no other.

It is the init of its pid namespace, a copy of the launcher, and runs no foreign code before exec.
Everything it tells goes through one pipe that exec closes: frames of a letter, a length and a body (`S`
stubs, `W` what is weaker, `E` an error, `R` that its root directory is the only one from here on).
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import marshal
import os
import select
import stat
import struct

from builder.sandbox import syscalls as sys_
from builder.sandbox.extra import add_mount
from builder.sandbox.mounts import Stage, Tree, enter, mount_root
from builder.sandbox.owners import Owner, note
from builder.sandbox.stubs import StubMaker
from builder.sandbox.terminal import hand_over, open_foreign_terminal, open_terminal, take_terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from builder.sandbox.bounds import Bounds
    from builder.sandbox.plan import Plan

DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
READY = b"R"
SHOWN = ("mounted", "alone")
"""What is handed over of a root: with all that is mounted in it, or a copy of its own mount without."""
_REPORT, _LAUNCHER, _NOTING = 3, 4, 5
_SYS_ADMIN = 21
_CORE, _NPROC, _NOFILE, _MOST = 4, 6, 7, 1 << 20


class NotStarted(Exception):
    """The command itself cannot be run: `status` is what a shell would say, 126 or 127."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Step:
    """One step's process. `fds` are (output, netns, stdin, errors) as the builder sent them, -1 for what it
    did not; `ways` lead to the launcher, for the report, to the builder, for a terminal, and to who notes
    owners.
    """

    def __init__(
        self,
        plan: Plan,
        fds: tuple[int, int, int, int],
        ways: tuple[int, int, int],
        launcher: int,
        bounds: Bounds,
    ) -> None:
        self.plan = plan
        self.bounds = bounds
        self.output, self.netns, self.stdin, self.errors = fds
        self.report, self.answer, self.noting = ways
        self.launcher = launcher
        self.doing = ""

    def run(self) -> NoReturn:
        """Never returns: the program, or exit 125 to 127 with the reason in the report."""
        status = 125
        try:
            self._die_with_launcher()
            self._become()
        except NotStarted as error:
            status, text = error.status, str(error)
        except OSError as error:
            path = f" {os.fsdecode(error.filename)!r}" if error.filename else ""
            text = f"{self.doing}: {error.strerror or error}{path}"
        except BaseException as error:  # whatever it was, it must not run on as a second launcher
            text = f"{self.doing}: {type(error).__name__}: {error}"
        try:
            self._tell(b"E", marshal.dumps((status, text)))
        finally:
            os._exit(status)

    def _tell(self, kind: bytes, body: bytes) -> None:
        os.write(self.report, kind + struct.pack("=I", len(body)) + body)

    def _die_with_launcher(self) -> None:
        """In a pid namespace's init getppid() is 0, so the usual check for a parent that died meanwhile is
        a pidfd.
        """
        sys_.prctl(sys_.PR_SET_PDEATHSIG, 9)
        poll = select.poll()
        poll.register(self.launcher, select.POLLIN)
        if poll.poll(0):
            os._exit(137)

    def _become(self) -> None:
        self.doing = "resource limits"
        self.bounds.enter()
        null = self._surroundings()
        if self.plan.show:
            self._show()
        self._stdio(null)
        self._working_directory()
        self._rlimits()
        self._identity()
        self._die_with_launcher()  # changing ids has cleared it
        self._exec()

    def _surroundings(self) -> int:
        """All that it will see but its working directory; a descriptor of a /dev/null."""
        if self.plan.chroot:
            return self._chroot()
        self._network()
        null = self._tree()
        if self.plan.number:
            self._tell(READY, b"")
        return null

    def _show(self) -> NoReturn:
        """In place of a program: the root for the builder, who reads and writes below that descriptor. The
        mounts are there as long as this process is.
        """
        self.doing = "root directory"
        if self.plan.show == "alone":
            root = sys_.open_tree(sys_.AT_FDCWD, b"/")
        else:
            root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        hand_over(self.answer, root)
        os.close(self.report)
        self._shown()

    def _shown(self) -> NoReturn:
        while True:
            select.poll().poll()

    def _chroot(self) -> int:
        """No namespace and no mount: the root directory alone."""
        import builder.sandbox.landlock  # noqa: F401 - of the root nothing is imported

        sys_.new_keyring()
        self.doing = "root directory"
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        if self.plan.terminal:
            self._terminal(-1)
        os.chdir(self.plan.source)
        os.chroot(".")
        os.chdir("/")
        os.umask(0o022)
        return null

    def _network(self) -> None:
        sys_.new_keyring()
        self.doing = "network"
        if self.netns >= 0:
            sys_.setns(self.netns, sys_.CLONE_NEWNET)
        elif self.plan.network != "host":
            _loopback_up()
        self.doing = "hostname"
        try:
            sys_.sethostname(self.plan.hostname)
        except PermissionError:
            pass  # podman's filter refuses it whatever the namespace: the step has the container's name

    def _tree(self) -> int:
        plan = self.plan
        os.umask(0)
        self.doing = "root file system"
        stage = Stage(plan)
        root = mount_root(plan, stage)
        stubs = StubMaker(root, plan.upper, plan.source)
        tree = Tree(root, stage, stubs, privileged=plan.privileged, strict=plan.strict)
        self.doing = "/proc"
        tree.proc(self.bounds)
        self.doing = "/sys"
        tree.sysfs()
        self.doing = "/dev"
        null = tree.dev(plan.shm_size)
        if plan.terminal:
            self._terminal(root)
        for number, mount in enumerate(plan.mounts):
            self.doing = f"mount {os.fsdecode(mount[1])}"
            add_mount(tree, plan, number)
        if tree.weaker:
            self._tell(b"W", marshal.dumps(tree.weaker))
        if stubs.made or stubs.copied:
            self._tell(b"S", marshal.dumps((stubs.made, stubs.copied)))
        self.doing = "pivot_root"
        enter(root)
        os.umask(0o022)
        return null

    def _terminal(self, root: int) -> None:
        """Before the mounts, of which one may cover /dev/pts. -1 is no root: the caller's /dev then."""
        self.doing = "terminal"
        size = self.plan.terminal
        master, slave = open_foreign_terminal(*size) if root < 0 else open_terminal(root, *size)
        hand_over(self.answer, master)
        os.close(master)
        self.stdin = self.output = self.errors = slave

    def _stdio(self, null: int) -> None:
        """0, 1 and 2 are the step's, 3 and 4 ours until exec; everything else is closed here, before the
        working directory is entered: an image's link to /proc/self/fd/N then leads nowhere
        (CVE-2024-21626).
        """
        self.doing = "standard streams"
        os.setsid()
        stdin = self.stdin if self.stdin >= 0 else null
        high = [_above(fd) for fd in (stdin, self.output, self.errors, self.report, self.launcher)]
        if self.noting >= 0:
            high.append(_above(self.noting))
        for target, fd in enumerate(high):
            os.dup2(fd, target, inheritable=target < 3)
        self.report, self.launcher = _REPORT, _LAUNCHER
        sys_.close_from(len(high))
        if self.plan.terminal:
            take_terminal(0, self._owner[0])
        for fd in (1, 2):
            if stat.S_ISFIFO(os.fstat(fd).st_mode):
                os.fchown(fd, *self._owner)  # so that a USER may open /dev/stdout again

    @property
    def _owner(self) -> tuple[int, int]:
        """Who owns what is made for the step: root where there is nobody else."""
        return (0, 0) if self.plan.owners else (self.plan.uid, self.plan.gid)

    def _working_directory(self) -> None:
        """As root, like runc, so that USER may work in a directory it could not enter by itself.

        A directory that is missing is made, as BuildKit and Docker do; it belongs to the step's user.
        """
        cwd = os.fsdecode(self.plan.cwd)
        self.doing = f"working directory {cwd}"
        try:
            os.chdir(cwd)
        except FileNotFoundError:
            self._missing_working_directory(cwd)
            os.chdir(cwd)
        here = os.getcwd()
        if not here.startswith("/") or not os.path.samestat(os.stat(here), os.stat(".")):
            raise OSError(errno.ENOENT, "chdir: the directory is outside of the root")

    def _missing_working_directory(self, cwd: str) -> None:
        os.makedirs(cwd, 0o755)
        os.chown(cwd, *self._owner)
        if self.plan.owners:
            note(cwd, Owner(self.plan.uid, self.plan.gid))

    def _rlimits(self) -> None:
        for resource, soft, hard in self.plan.rlimits:
            self.doing = f"limit {resource}"
            sys_.set_rlimit(resource, soft, hard)

    def _identity(self) -> None:
        """KERNEL.md 7: bounding set, seccomp, groups and ids, capabilities. The filter loads while SYS_ADMIN
        is still effective, so no_new_privs is not needed and setuid programs keep working.
        """
        plan = self.plan
        self.doing = "identity"
        keep = plan.capabilities & sys_.permitted_capabilities()
        for number in range(64):
            if not keep >> number & 1:
                try:
                    sys_.prctl(sys_.PR_CAPBSET_DROP, number)
                except OSError as error:
                    if error.errno == errno.EINVAL:
                        break  # beyond the last capability of this kernel
                    raise
        self._note_owners()
        self._filter()
        sys_.prctl(sys_.PR_CAP_AMBIENT, sys_.PR_CAP_AMBIENT_CLEAR_ALL)
        self._groups()
        os.setresgid(plan.gid, plan.gid, plan.gid)
        if plan.uid:
            os.setresuid(plan.uid, plan.uid, plan.uid)
            sys_.set_capabilities(0)
        else:
            os.setresuid(0, 0, 0)
            sys_.set_capabilities(keep)

    def _note_owners(self) -> None:
        """Below the other filter, which is not asked about what is answered elsewhere."""
        if self.plan.owners:
            self.doing = "notes of owners"
            listener = sys_.load_listening(self.plan.owners[0])
            hand_over(_NOTING, listener)
            os.close(listener)
            os.close(_NOTING)

    def _groups(self) -> None:
        """In a user namespace of one group setgroups(2) is forbidden for good, and there is nothing to add:
        the caller's own groups, which have no id inside, stay.
        """
        try:
            os.setgroups(self.plan.groups)
        except PermissionError:
            if any(group != self.plan.gid for group in self.plan.groups):
                raise

    def _filter(self) -> None:
        """No_new_privs comes with it: both are for whatever is executed next."""
        if self.plan.no_new_privileges or (self.plan.chroot and not _may_filter()):
            sys_.prctl(sys_.PR_SET_NO_NEW_PRIVS, 1)
        if self.plan.chroot:
            self._confine()
        if self.plan.seccomp:
            self.doing = "system call filter"
            sys_.load_filter(self.plan.seccomp)
            self.doing = "identity"

    def _confine(self) -> None:
        """What namespaces do for other steps: files, processes and sockets of others are out of reach."""
        from builder.sandbox.landlock import confine  # loaded by `_chroot`, from outside

        self.doing = "landlock"
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        weaker = confine(root)
        os.close(root)
        if weaker:
            self._tell(b"W", marshal.dumps(weaker))

    def _exec(self) -> None:
        env = dict(self.plan.env)
        self.doing = "exec"
        name = self.plan.argv[0]
        path = _find(name, env.get(b"PATH", DEFAULT_PATH))
        for number in (13, 25, 32, 33):  # ignored by the interpreter, and by posix_spawn(3) for itself
            sys_.default_signal(number)
        try:
            os.execve(path, self.plan.argv, env)
        except OSError as error:
            status = 127 if error.errno == errno.ENOENT else 126
            raise NotStarted(status, f"exec {os.fsdecode(path)}: {lower(error)}") from None


def usual_limits(processes: int = 0) -> list[tuple[int, int, int]]:
    """What a process gets where nobody asks for other limits: of open files and processes at most as many as
    Docker gives, and no core files, which would end up in a layer. `processes` is a lower number of those.
    """
    limits = [(_CORE, 0, 0)]
    for resource in (_NPROC, _NOFILE):
        _, hard = sys_.get_rlimit(resource)
        most = (processes or _MOST) if resource == _NPROC else _MOST
        most = most if hard < 0 else min(most, hard)
        limits.append((resource, most, most))
    return limits


def _may_filter() -> bool:
    """Whether this process may confine itself and leave setuid programs their effect (CAP_SYS_ADMIN)."""
    return bool(sys_.permitted_capabilities() >> _SYS_ADMIN & 1)


def _above(fd: int) -> int:
    """A copy of `fd` beyond the numbers that are about to be overwritten."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16)


def _loopback_up() -> None:
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    fcntl.ioctl(control.fileno(), 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
    control.close()


def lower(error: OSError) -> str:
    """What went wrong, in the words of Docker."""
    return os.strerror(error.errno or 0).lower()


def _find(name: bytes, search: bytes) -> bytes:
    """The program's path by the rules and with the words of Docker: 127 if there is none, 126 if it cannot
    be executed.
    """
    shown = os.fsdecode(name)
    if b"/" in name:
        try:
            mode = os.stat(name).st_mode
        except OSError as error:
            status = 127 if error.errno in (errno.ENOENT, errno.ENOTDIR) else 126
            raise NotStarted(status, f'exec: "{shown}": stat {shown}: {lower(error)}') from None
        if stat.S_ISDIR(mode):
            raise NotStarted(126, f'exec: "{shown}": is a directory')
        if not os.access(name, os.X_OK):
            raise NotStarted(126, f'exec: "{shown}": permission denied')
        return name
    for folder in search.split(b":") if name else ():
        path = os.path.join(folder or b".", name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise NotStarted(127, f'exec: "{shown}": executable file not found in $PATH')
