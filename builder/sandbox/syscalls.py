"""Linux calls that `os` does not have, each raising OSError with the call's name. The only module with
ctypes.

Arguments are plain integers, bytes and descriptors. Every descriptor made here is close-on-exec. The
library is loaded so that the interpreter lock is kept: in a process with one thread a raw clone(2) then
returns in the child as fork does, and none of the calls here waits for long.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import time

TYPE_CHECKING = False  # `typing` costs 9 ms at the launcher's start
if TYPE_CHECKING:
    from collections.abc import Sequence

CLONE_PIDFD = 0x1000
CLONE_PARENT = 0x8000
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000
_NO_BIRTH_IN_A_CGROUP = (errno.ENOSYS, errno.E2BIG, errno.EINVAL)

MS_REC, MS_PRIVATE, MS_SLAVE = 0x4000, 1 << 18, 1 << 19
MNT_DETACH = 2
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC, ATTR_STRICTATIME = 1, 2, 4, 8, 0x20

SET_FLAG, SET_STRING, CMD_CREATE = 0, 1, 6
RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = (
    1,
    2,
    4,
    8,
    0x10,
)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
PR_SET_CHILD_SUBREAPER = 36
_OWN_DESCRIPTORS = "/proc/self/fd"
PROC_SUPER_MAGIC, SYSFS_MAGIC = 0x9FA0, 0x62656572

AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW, _AT_EMPTY_PATH, _AT_RECURSIVE = 0x100, 0x1000, 0x8000
_OPEN_TREE_CLONE = 1
_STATX_BTIME = 0x800
_FSMOUNT_CLOEXEC = _FSOPEN_CLOEXEC = 1
_MOVE_EMPTY_TO_EMPTY = 0x44
_MFD_EXEC = 0x10

# Calls since Linux 5.0 have one number everywhere; only these differ.
_CLONE, _PIVOT_ROOT, _RT_SIGACTION, _SECCOMP, _KEYCTL = (
    (56, 155, 13, 317, 250) if os.uname().machine == "x86_64" else (220, 41, 134, 277, 219)
)
_PIDFD_SEND_SIGNAL, _OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 424, 428, 429, 430, 431, 432
_STATX = 332 if os.uname().machine == "x86_64" else 291
_CLONE3, _CLOSE_RANGE, _OPENAT2, _MOUNT_SETATTR = 435, 436, 437, 442

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_TRIES, _AT_ONCE, _PAUSE_S = 500, 20, 0.002


def failure(call: str, path: bytes | str = b"", note: str = "") -> OSError:
    """The last call's errno as an OSError that names `call`; `note` is what the kernel said beyond the
    number.
    """
    number = ctypes.get_errno()
    text = f"{call}: {os.strerror(number)}" + (f" ({note})" if note else "")
    return OSError(number, text, os.fsdecode(path)) if path else OSError(number, text)


def _check(result: int, call: str, path: bytes | str = b"") -> int:
    if result < 0:
        raise failure(call, path)
    return result


def raw(call: str, number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """The system call `number`; `call` is its name for an OSError."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return _check(int(_libc.syscall(ctypes.c_long(number), *words)), call)


def clone(flags: int, cgroup: int = -1) -> tuple[int, int]:
    """fork(2) into the namespaces of `flags`; (0, -1) in the child, else the child's pid and a pidfd.

    `cgroup` is a directory of the unified hierarchy (cgroup v2): the child is born in it (clone3(2)), or goes
    there before this returns (before Linux 5.7, and where a filter refuses clone3).
    """
    pidfd = (ctypes.c_int * 1)(-1)
    place = ctypes.addressof(pidfd)
    if cgroup < 0:
        pid = raw("clone", _CLONE, flags | CLONE_PIDFD | 17, 0, place, 0, 0)
    else:
        number = 0 if flags & CLONE_PARENT else 17  # the signal for the parent, which has its own then
        flags |= CLONE_PIDFD | CLONE_INTO_CGROUP
        what = struct.pack("=11Q", flags, place, 0, 0, number, 0, 0, 0, 0, 0, cgroup)
        try:
            pid = raw("clone3", _CLONE3, what, len(what))
        except OSError as error:
            if error.errno not in _NO_BIRTH_IN_A_CGROUP:
                raise
            return _clone_and_move(flags & ~(CLONE_PIDFD | CLONE_INTO_CGROUP), cgroup)
    return (0, -1) if pid == 0 else (pid, pidfd[0])


def _clone_and_move(flags: int, cgroup: int) -> tuple[int, int]:
    """The child writes for itself: its parent's numbers are none in there."""
    door = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=cgroup)
    try:
        pid, pidfd = clone(flags)
        if pid == 0:
            try:
                os.write(door, b"0")
            except OSError:
                os._exit(125)  # it must not run on as its parent, and not without its limits
        return pid, pidfd
    finally:
        os.close(door)


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int = 0) -> None:
    """Move the calling thread into the namespace that `fd` stands for."""
    _check(_libc.setns(fd, kind), "setns")


def pidfd_kill(pidfd: int, number: int = 9) -> None:
    """Send a signal (SIGKILL); a process that has ended already is no error."""
    try:
        raw("pidfd_send_signal", _PIDFD_SEND_SIGNAL, pidfd, number, None, 0)
    except ProcessLookupError:
        pass


def prctl(option: int, argument: int = 0, second: int = 0) -> None:
    """prctl(2) with up to two arguments."""
    words = (ctypes.c_ulong(word) for word in (argument, second, 0, 0))
    _check(_libc.prctl(ctypes.c_int(option), *words), f"prctl {option}")


def keep_freed_memory() -> None:
    """Have the C library keep the blocks of 1 MiB that layers pass through (mallopt(3)).

    By default glibc hands each back to the kernel, which clears its pages anew for the next one. A C library
    without mallopt has nothing to set.
    """
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 256 << 20)


def load_filter(program: bytes) -> None:
    """Filter the system calls of this process and all it starts (seccomp(2)), an array of sock_filter.

    Needs CAP_SYS_ADMIN or no_new_privs.
    """
    text = ctypes.create_string_buffer(program, len(program))
    what = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(text))
    raw("seccomp", _SECCOMP, 1, 0, what)  # SECCOMP_SET_MODE_FILTER


def load_listening(program: bytes) -> int:
    """`load_filter` of a program that hands calls over; the descriptor on which they arrive."""
    text = ctypes.create_string_buffer(program, len(program))
    what = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(text))
    return raw("seccomp", _SECCOMP, 1, 8, what)  # SECCOMP_FILTER_FLAG_NEW_LISTENER


def new_keyring() -> None:
    """A session keyring of its own, empty, for this process and all it starts (keyctl(2)).

    A kernel without keys (ENOSYS), a container that forbids them (EPERM) and a user with too many (EDQUOT)
    are no error: whoever asks made one for the process before.
    """
    try:
        raw("keyctl", _KEYCTL, 1, None)  # KEYCTL_JOIN_SESSION_KEYRING
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EDQUOT):
            raise


def get_rlimit(resource: int) -> tuple[int, int]:
    """getrlimit(2): soft and hard; -1 is no limit."""
    pair = ctypes.create_string_buffer(16)
    _check(_libc.getrlimit(ctypes.c_int(resource), pair), f"getrlimit {resource}")
    soft, hard = struct.unpack("=qq", pair.raw)
    return soft, hard


def default_signal(number: int) -> None:
    """Give a signal its default action. The raw call: the C library keeps 32 and 33 to itself."""
    raw("rt_sigaction", _RT_SIGACTION, number, bytes(32), None, 8)


def sethostname(name: bytes) -> None:
    """The name of this UTS namespace."""
    _check(_libc.sethostname(name, ctypes.c_size_t(len(name))), "sethostname", name)


def set_capabilities(effective: int, inheritable: int = 0) -> None:
    """capset(2), version 3: `effective` becomes the permitted set as well."""
    low, high = effective & 0xFFFFFFFF, effective >> 32
    header = struct.pack("=Ii", 0x20080522, 0)
    data = struct.pack("=6I", low, low, inheritable, high, high, 0)
    _check(_libc.capset(header, data), "capset")


def permitted_capabilities() -> int:
    """The calling process's permitted set as a bit mask (capget(2))."""
    header, data = struct.pack("=Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    _check(_libc.capget(header, data), "capget")
    words = struct.unpack("=6I", data.raw)
    return int(words[1] | words[4] << 32)


def set_rlimit(resource: int, soft: int, hard: int) -> None:
    """setrlimit(2); -1 is no limit."""
    pair = struct.pack("=QQ", soft & 0xFFFFFFFFFFFFFFFF, hard & 0xFFFFFFFFFFFFFFFF)
    _check(_libc.setrlimit(ctypes.c_int(resource), pair), f"setrlimit {resource}")


def close_from(first: int) -> None:
    """Close every descriptor from `first` on.

    Raises OSError where the kernel cannot do it and the list of them is not procfs's own: another one, which
    an image might bring, could leave some out.
    """
    try:
        raw("close_range", _CLOSE_RANGE, first, 0xFFFFFFFF, 0)
    except OSError as error:
        if error.errno != errno.ENOSYS:  # before 5.9
            raise
        listing = os.open(_OWN_DESCRIPTORS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if file_system_type(listing) != PROC_SUPER_MAGIC:
            os.close(listing)
            raise OSError(errno.ENODEV, "list: this is no directory of procfs", _OWN_DESCRIPTORS) from None
        for number in map(int, os.listdir(listing)):
            if number >= first:
                os.closerange(number, number + 1)  # which does not mind that one of them is gone
        os.closerange(listing, listing + 1)


def mount(source: bytes, target: bytes, kind: bytes, flags: int, options: bytes = b"") -> None:
    """mount(2), for what the newer calls cannot do on an older kernel."""
    _check(_libc.mount(source, target, kind, ctypes.c_ulong(flags), options), "mount", target)


def umount(target: bytes, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target, ctypes.c_int(flags)), "umount2", target)


def pivot_root(new: bytes, old: bytes) -> None:
    """pivot_root(2)."""
    raw("pivot_root", _PIVOT_ROOT, new, old)


def file_system_type(fd: int) -> int:
    """The magic number of the file system `fd` is on (fstatfs(2))."""
    buffer = ctypes.create_string_buffer(256)
    _check(_libc.fstatfs(ctypes.c_int(fd), buffer), "fstatfs")
    return int(struct.unpack_from("=q", buffer.raw)[0])


def open_uncovered(root: int, path: bytes, flags: int) -> int:
    """Open `path` below `root` on the very mount that `root` is on: EXDEV where something is mounted on the
    way, ELOOP at magic links. Before Linux 5.6 a plain open, which sees neither.
    """
    try:
        return _openat2(root, path, flags, RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_BENEATH)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    return os.open(path, flags | os.O_CLOEXEC, dir_fd=root)


def _openat2(at: int, path: bytes, flags: int, resolve: int) -> int:
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    for turn in range(_TRIES):
        fd = int(_libc.syscall(ctypes.c_long(_OPENAT2), at, path or b".", how, ctypes.c_size_t(len(how))))
        if fd >= 0 or ctypes.get_errno() != errno.EAGAIN:  # a rename or mount elsewhere disturbed a `..`
            break
        if turn >= _AT_ONCE:
            time.sleep(_PAUSE_S)
    return _check(fd, "openat2", path)


def open_in_root(root: int, path: bytes, flags: int, *, links: bool = True) -> int:
    """Open `path` as if `root` were `/`: links and `..` stay inside, magic links are refused (openat2(2)).

    With `links` off a symbolic link anywhere in `path` is an error. BlockingIOError when renames elsewhere
    disturbed it for a second.
    """
    resolve = RESOLVE_IN_ROOT | (RESOLVE_NO_MAGICLINKS if links else RESOLVE_NO_SYMLINKS)
    try:
        return _openat2(root, path, flags, resolve)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    from builder.sandbox.walk import open_by_walking

    return open_by_walking(root, path, flags, links=links)


def open_tree(at: int, path: bytes, *, recursive: bool = False) -> int:
    """A detached copy of the mount that `path` lies in, rooted there. A final link is not followed."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_SYMLINK_NOFOLLOW | (_AT_EMPTY_PATH if not path else 0)
    fd = int(_libc.syscall(ctypes.c_long(_OPEN_TREE), at, path, flags | (_AT_RECURSIVE if recursive else 0)))
    return _check(fd, "open_tree", path)


def mount_setattr(
    fd: int, attributes: int, *, propagation: int = MS_PRIVATE, recursive: bool = False
) -> None:
    """Add mount attributes to the mount at `fd` and cut it off from its peers."""
    attr = struct.pack("=QQQQ", attributes, 0, propagation, 0)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    raw("mount_setattr", _MOUNT_SETATTR, fd, b"", flags, attr, len(attr))


def move_mount(fd: int, target: int) -> None:
    """Attach the mount at `fd` on top of what `target` stands for."""
    raw("move_mount", _MOVE_MOUNT, fd, b"", target, b"", _MOVE_EMPTY_TO_EMPTY)


def fsopen(kind: bytes) -> int:
    """A file system context of `kind`."""
    return _check(int(_libc.syscall(ctypes.c_long(_FSOPEN), kind, _FSOPEN_CLOEXEC)), "fsopen", kind)


def fsconfig(context: int, command: int, key: bytes | None, value: bytes | None = None, aux: int = 0) -> None:
    """One parameter or command to a context; the kernel's own words join the error."""
    arguments = (context, command, key, value, ctypes.c_int(aux))
    if _libc.syscall(ctypes.c_long(_FSCONFIG), *arguments) < 0:
        number = ctypes.get_errno()
        said = _context_log(context)
        ctypes.set_errno(number)
        raise failure("fsconfig", key or b"", said)


def _context_log(context: int) -> str:
    lines = []
    try:
        while line := os.read(context, 4096):
            lines.append(os.fsdecode(line).strip())
    except OSError:
        pass  # ENODATA: all read
    return "; ".join(lines)


def fsmount(context: int, attributes: int) -> int:
    """The configured file system as a detached mount; the context is closed."""
    try:
        return raw("fsmount", _FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def make_mount(kind: bytes, attributes: int, options: Sequence[tuple[bytes, bytes]] = ()) -> int:
    """A new file system of `kind` as a detached mount; an option with an empty value is a flag."""
    context = fsopen(kind)
    try:
        for key, value in options:
            fsconfig(context, SET_STRING if value else SET_FLAG, key, value or None)
        fsconfig(context, CMD_CREATE, None)
    except OSError:
        os.close(context)
        raise
    return fsmount(context, attributes)


def birth_time(path: bytes) -> int:
    """When the file itself was made, in nanoseconds (statx(2)); 0 where the file system does not know."""
    buffer = ctypes.create_string_buffer(256)
    raw("statx", _STATX, AT_FDCWD, path, _AT_SYMLINK_NOFOLLOW, _STATX_BTIME, buffer)
    mask, seconds, nanoseconds = (
        struct.unpack_from(form, buffer.raw, at)[0] for form, at in (("=I", 0), ("=q", 80), ("=I", 88))
    )
    return int(seconds * 1_000_000_000 + nanoseconds) if mask & _STATX_BTIME else 0


def memfd(content: bytes, *, executable: bool = False) -> int:
    """A sealed file in memory that holds `content`; nobody can change it any more."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("pybuild", flags | (_MFD_EXEC if executable else 0))
    except OSError as error:
        if error.errno != errno.EINVAL:  # before 6.3 every such file can be executed
            raise
        fd = os.memfd_create("pybuild", flags)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    import fcntl

    fcntl.fcntl(fd, 1033, 15)  # F_ADD_SEALS: seal, shrink, grow, write
    os.lseek(fd, 0, 0)
    return fd
