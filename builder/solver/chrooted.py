"""Steps without namespaces (`--isolation=chroot`): what would be mounted is put into the root and taken out
again.

Files (resolv.conf, hosts, scripts, secrets) and the usual device nodes lie in the step's own copy of its
layers while it runs. What the image had in their places comes back afterwards and counts as unchanged;
what the step itself put there stays. Directories cannot be shown: such mounts are refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from builder.errors import SandboxError
from builder.sandbox.spec import File
from builder.sandbox.syscalls import birth_time
from oci.rooted import Root

if TYPE_CHECKING:
    from builder.sandbox.spec import Sandbox
    from builder.snapshot.base import Active

WARNING = (
    "--isolation=chroot: steps run as root in a changed root directory only: they share the network and the "
    "limits of pybuild itself, have no /proc, and setuid programs may have no effect"
)
UNCONFINED = {
    "landlock": "--isolation=chroot without Landlock (Linux 5.19, and a filter that lets it through): a step "
    "can signal the other processes of its user here, pybuild's too, and trace those of other steps",
    "landlock-scopes": "--isolation=chroot before Linux 6.12: a step can signal the other processes of its "
    "user here, pybuild's too, and connect to abstract sockets",
}
"""What a step is told to lack (`builder.sandbox.landlock`), in the words of a warning."""

WITHOUT = frozenset({"SYS_CHROOT", "MKNOD"})
"""Capabilities that such a step does not get: with them it would leave its root."""

_STAT = "/proc/stat"
_MACHINE = ("/proc/cpuinfo", "/proc/meminfo", _STAT)
_DEVICES = (
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
)


@contextmanager
def furnished(sandbox: Sandbox, active: Active) -> Iterator[None]:
    """Put what `sandbox` wants to see into the root of `active`, where it has no namespaces; else nothing.

    Raises SandboxError for mounts that cannot be had.
    """
    if not sandbox.chroot:
        yield
        return
    if sandbox.terminal:
        raise SandboxError(
            "a terminal needs namespaces, and --isolation=chroot has none", hint="leave out -t"
        )
    for mount in sandbox.mounts:
        if not isinstance(mount, File):
            raise SandboxError(
                f"RUN --mount for {mount.target} needs namespaces, and --isolation=chroot has none",
                hint="only secrets can be had; COPY what the step needs",
            )
    furniture = _Furniture(active)
    try:
        for name, major, minor in _DEVICES:
            with suppress(PermissionError):
                furniture.device(f"/dev/{name}", os.makedev(major, minor))
        for mount in (*sandbox.mounts, *_machine(active)):
            assert isinstance(mount, File)
            furniture.file(mount)
        furniture.settle()
        yield
    finally:
        furniture.take_out()


def _machine(active: Active) -> Iterator[File]:
    """What programs read in /proc to learn how many processors there are, where the image has no such file.

    Where there are none, npm 9 waits for ever to run its first script: it runs as many at once as there are
    processors. Of processes nothing is in these files, and no counter but that of time on each processor.
    """
    for name in _MACHINE:
        if os.path.lexists(os.path.join(active.merged, name[1:])):
            continue
        with suppress(OSError), open(name, "rb") as file:
            lines = file.readlines()
            cut = [line for line in lines if line.startswith(b"cpu")] if name == _STAT else lines
            yield File(name, b"".join(cut), 0o444)


class _Put(NamedTuple):
    """Something put at `path` in the root, what it is, and where the file that was there waits, if any."""

    path: bytes
    identity: tuple[int, int, int]
    saved: str


def _identity(path: bytes) -> tuple[int, int, int]:
    """What tells a file from another in its place: the number alone may have been given again."""
    st = os.lstat(path)
    return st.st_ino, stat.S_IFMT(st.st_mode), birth_time(path)


class _Furniture:
    def __init__(self, active: Active) -> None:
        self._active = active
        self._top = os.fsencode(active.merged)
        self._puts: list[_Put] = []
        self._made: list[bytes] = []
        self._times: dict[bytes, tuple[int, int]] = {}
        self._settled: dict[bytes, int] = {}

    def device(self, path: str, number: int) -> None:
        where = self._place(path)
        if not os.path.lexists(self._full(where)):
            os.mknod(self._full(where), stat.S_IFCHR | 0o666, number)
            os.chmod(self._full(where), 0o666)
            self._puts.append(_Put(where, _identity(self._full(where)), ""))

    def file(self, mount: File) -> None:
        where = self._place(mount.target)
        full = self._full(where)
        saved = ""
        if os.path.lexists(full):
            saved = os.path.join(self._active.scratch(), f"saved{len(self._puts)}")
            os.rename(full, saved)
        fd = os.open(full, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(mount.content)
            os.fchown(fd, mount.uid, mount.gid)
            os.fchmod(fd, mount.mode)
        self._puts.append(_Put(where, _identity(full), saved))

    def settle(self) -> None:
        """Remember how the directories look now: the step may change them as well."""
        self._settled = {path: os.lstat(self._full(path)).st_mtime_ns for path in self._times}

    def take_out(self) -> None:
        """Take it out again; a directory that the step has not changed has its old time again."""
        untouched = {path for path in self._times if self._is_settled(path)}
        for put in reversed(self._puts):
            full = self._full(put.path)
            with suppress(OSError):
                if _identity(full) != put.identity:
                    continue  # the step's own by now
                os.unlink(full)
                if put.saved:
                    os.rename(put.saved, full)
                    self._active.unchanged(put.path)
        for path in reversed(self._made):
            with suppress(OSError):
                os.rmdir(self._full(path))
        for path, times in self._times.items():
            if path in untouched:
                with suppress(OSError):
                    os.utime(self._full(path), ns=times)

    def _is_settled(self, path: bytes) -> bool:
        try:
            return os.lstat(self._full(path)).st_mtime_ns == self._settled.get(path)
        except OSError:
            return False

    def _full(self, path: bytes) -> bytes:
        return os.path.join(self._top, path) if path else self._top

    def _place(self, target: str) -> bytes:
        """The place of `target` in the root, without links; the directories above it are made."""
        with Root.at(self._top) as root:
            where = root.resolve(os.fsencode(target), missing_ok=True)
        missing = []
        above = os.path.dirname(where)
        while not os.path.isdir(self._full(above)):
            missing.append(above)
            above = os.path.dirname(above)
        self._note(above)
        for path in reversed(missing):
            os.mkdir(self._full(path), 0o755)
            os.chmod(self._full(path), 0o755)
            self._made.append(path)
            self._note(path)
        return where

    def _note(self, path: bytes) -> None:
        """Remember a directory's times before anything is put into it."""
        if path not in self._times:
            before = os.lstat(self._full(path))
            self._times[path] = (before.st_atime_ns, before.st_mtime_ns)
