"""The process that answers for the kernel where a step gives files away (see `builder.sandbox.owners`).

It is forked by the launcher beside a step and ends with it. It stands in the step's mount namespace and root
directory, with the step's user id, so a path that the step makes up leads it nowhere the step could not go by
itself. Its working directory is the outer /proc: there it finds the descriptors and working directories of
the step's processes.
"""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import select
import stat
import struct

from builder.sandbox import syscalls as sys_
from builder.sandbox.owners import KEEP, Owner, note, noted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_RECEIVE, _SEND, _STILL_VALID = 0xC0502100, 0xC0182101, 0x40082102
_NOTICE = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_NOFOLLOW, _EMPTY_PATH = 0x100, 0x1000
_NARROW_ARCHES = (0x40000003, 0x40000028)
"""i386 and arm: there chown, lchown and fchown have ids of 16 bits."""
_LONGEST_PATH = 4096
_PAGE = 4096


def serve(pid: int, way: int, names: list[tuple[int, int, str]], upper: bytes, notes: bytes) -> NoReturn:
    """Answer the calls of the step whose init is `pid`, until its last process is gone.

    Over the socket `way` the step hands its listener. `names` are the calls (`owners.handed_over`). `upper`
    is the step's upper directory, and `notes` the file to append to, both as the caller sees them; empty:
    none.
    """
    status = 1
    try:
        sys_.prctl(sys_.PR_SET_PDEATHSIG, 9)
        listener = _received(way)
        if listener >= 0:
            calls = {(arch, number): name for arch, number, name in names}
            _Answers(pid, listener, calls, upper, notes).serve()
        status = 0
    finally:
        os._exit(status)


def _received(way: int) -> int:
    here = _socket.socket(fileno=way)
    space = _socket.CMSG_SPACE(struct.calcsize("=i"))
    _, ancillary, _, _ = here.recvmsg(1, space, _socket.MSG_CMSG_CLOEXEC)
    here.close()
    for _, _, data in ancillary:
        return int(struct.unpack("=i", data)[0])
    return -1


class _Answers:
    def __init__(
        self, pid: int, listener: int, names: dict[tuple[int, int], str], upper: bytes, notes: bytes
    ) -> None:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        self._listener = listener
        self._names = names
        self._upper = os.open(upper, flags) if upper else -1
        appending = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._notes = os.open(notes, appending, 0o600) if notes else -1
        proc = os.open("/proc", flags)
        self._root = os.open(f"/proc/{pid}/root", flags)
        self._root_id = _identity(os.fstat(self._root))
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        sys_.setns(namespace, sys_.CLONE_NEWNS)
        os.close(namespace)
        self._proc = proc
        self._stand_in_root()

    def _stand_in_root(self) -> None:
        os.fchdir(self._root)
        os.chroot(".")
        os.fchdir(self._proc)

    def serve(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while True:
            for _, events in poll.poll():
                if not events & select.POLLIN:
                    return
                self._one()

    def _one(self) -> None:
        buffer = bytearray(_NOTICE.size)
        try:
            fcntl.ioctl(self._listener, _RECEIVE, buffer, True)
        except OSError:
            return  # the process was killed meanwhile
        cookie, pid, _, number, arch, _, *words = _NOTICE.unpack(buffer)
        failed = 0
        try:
            moved = _identity(os.stat(f"{pid}/root")) != self._root_id
            if moved:  # by chroot(2)
                os.chroot(f"{pid}/root")
            try:
                self._act(cookie, pid, arch, self._names[arch & 0xFFFFFFFF, number], words)
            finally:
                if moved:
                    self._stand_in_root()
        except OSError as error:
            failed = error.errno or errno.EIO
        except Exception:  # whatever a step makes of it, its other processes want answers too
            failed = errno.EIO
        try:
            fcntl.ioctl(self._listener, _SEND, _ANSWER.pack(cookie, 0, -failed, 0))
        except OSError:
            pass  # it was killed meanwhile

    def _act(self, cookie: int, pid: int, arch: int, name: str, words: list[int]) -> None:
        """Do what the call asks for, as far as it can be done, and note the rest. Raises OSError."""
        low = [word & 0xFFFFFFFF for word in words]
        at, flags = sys_.AT_FDCWD, 0
        narrow = arch & 0xFFFFFFFF in _NARROW_ARCHES and name in ("chown", "lchown", "fchown")
        match name.removesuffix("32"):
            case "fchown":
                self._give(cookie, f"{pid}/fd/{_signed(low[0])}", True, _ids(low[1:3], narrow))
                return
            case "mknod":
                self._make(cookie, pid, self._where(pid, at, words[0]), low[1], low[2])
                return
            case "mknodat":
                self._make(cookie, pid, self._where(pid, _signed(low[0]), words[1]), low[2], low[3])
                return
            case "fchownat":
                at, flags, address, ids = _signed(low[0]), low[4], words[1], _ids(low[2:4], False)
            case "lchown":
                flags, address, ids = _NOFOLLOW, words[0], _ids(low[1:3], narrow)
            case _:
                address, ids = words[0], _ids(low[1:3], narrow)
        where = self._where(pid, at, address, empty=bool(flags & _EMPTY_PATH))
        self._give(cookie, where, not flags & _NOFOLLOW or where.endswith("/."), ids)

    def _where(self, pid: int, at: int, address: int, *, empty: bool = False) -> str:
        """The path a process means, from our working directory."""
        path = os.fsdecode(self._read_path(pid, address))
        base = f"{pid}/cwd" if at == sys_.AT_FDCWD else f"{pid}/fd/{at}"
        if path.startswith("/"):
            return path
        if path:
            return f"{base}/{path}"
        if not empty:
            raise OSError(errno.ENOENT, "an empty path")
        return base

    def _read_path(self, pid: int, address: int) -> bytes:
        """A string in the memory of a process."""
        memory = os.open(f"{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        found = b""
        try:
            while b"\0" not in found and len(found) <= _LONGEST_PATH:
                part = os.pread(memory, _PAGE - (address + len(found)) % _PAGE, address + len(found))
                if not part:
                    break
                found += part
        finally:
            os.close(memory)
        path, end, _ = found.partition(b"\0")
        if not end:
            raise OSError(errno.ENAMETOOLONG, "a path without an end")
        return path

    def _check(self, cookie: int) -> None:
        """Raise OSError when the process is gone, whose number another one may have by now."""
        fcntl.ioctl(self._listener, _STILL_VALID, struct.pack("=Q", cookie))

    def _give(self, cookie: int, where: str, follow: bool, ids: tuple[int, int]) -> None:
        self._check(cookie)
        # What is left of the call: the file is changed, and no longer setuid.
        os.chown(where, *(-1 if each == KEEP else 0 for each in ids), follow_symlinks=follow)
        st = os.stat(where, follow_symlinks=follow)
        if stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode):
            old = noted(where, follow=follow)
            new = Owner(*_chosen(ids, old), old.node)
            if bytes(new) != bytes(old):
                _note(where, new, follow)
        elif self._notes >= 0 and (number := self._in_upper(where, st, follow)):
            # Of what was noted before only the last counts: an id that is kept cannot be told here.
            line = b"%d %s\n" % (number, bytes(Owner(*_chosen(ids, Owner()))))
            os.write(self._notes, line)

    def _make(self, cookie: int, pid: int, where: str, mode: int, device: int) -> None:
        """An empty file that stands for a device."""
        major, minor = os.major(device), os.minor(device)
        if major == minor == 0:
            raise OSError(errno.EPERM, "a whiteout is no device")
        self._check(cookie)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(where, flags, 0o600)
        try:
            os.fchmod(fd, mode & 0o7777 & ~_umask(pid))
            kind = b"c" if stat.S_ISCHR(mode) else b"b"
            note(fd, Owner(0, 0, (kind, major, minor)))
        except OSError:
            os.unlink(where)
            raise OSError(errno.EPERM, "no device can be noted here") from None
        finally:
            os.close(fd)

    def _in_upper(self, where: str, st: os.stat_result, follow: bool) -> int:
        """The number of an inode as the upper directory has it; 0 when the file does not lie there."""
        if self._upper < 0:
            return st.st_ino
        try:
            fd = os.open(where, os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
            try:
                self._stand_in_root()
                path = os.readlink(f"self/fd/{fd}")
            finally:
                os.close(fd)
            fd = sys_.open_in_root(
                self._upper, os.fsencode(path.lstrip("/")), os.O_PATH | os.O_NOFOLLOW, links=False
            )
        except OSError:
            return 0
        number = os.fstat(fd).st_ino
        os.close(fd)
        return number


def _note(where: str, owner: Owner, follow: bool) -> None:
    """Where no notes can be kept, as in a tmpfs of the step, the file is in no layer either."""
    try:
        note(where, owner, follow=follow)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise


def _chosen(ids: tuple[int, int], old: Owner) -> tuple[int, int]:
    uid, gid = ids
    return (old.uid if uid == KEEP else uid), (old.gid if gid == KEEP else gid)


def _ids(words: list[int], narrow: bool) -> tuple[int, int]:
    uid, gid = ((KEEP if word & 0xFFFF == 0xFFFF else word & 0xFFFF) if narrow else word for word in words)
    return uid, gid


def _umask(pid: int) -> int:
    with open(f"{pid}/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    return 0o022


def _identity(st: os.stat_result) -> tuple[int, int]:
    return st.st_dev, st.st_ino


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word
