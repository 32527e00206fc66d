"""openat2's RESOLVE_IN_ROOT for kernels before 5.6: one component after the other, each link read by us."""

from __future__ import annotations

import errno
import os
import stat

from builder.sandbox import syscalls as sys_

_LINKS = 40
_PROC_ROOT_INODE = 1


def open_by_walking(root: int, path: bytes, flags: int, *, links: bool = True) -> int:
    """Open `path` as if `root` were `/`; with `links` off a symbolic link in it is an error.

    The kernel never follows one, and `..` is the directory we came from: what others rename or exchange
    meanwhile leads nowhere but into `root`. Links of /proc that are none, but lead to whatever a process has
    open, are refused.
    """
    trail = [os.dup(root)]
    try:
        _walk(trail, path, links=links, last=bool(flags & os.O_NOFOLLOW))
        return _opened(trail[-1], flags)
    except OSError as error:
        text = f"open in root: {os.strerror(error.errno or 0)}"
        raise OSError(error.errno, text, os.fsdecode(path)) from None
    finally:
        for fd in trail:
            os.close(fd)


def _walk(trail: list[int], path: bytes, *, links: bool, last: bool) -> None:
    """Leave in `trail` the descriptors on the way; `last`: a link at the end is what is meant."""
    waiting = path.split(b"/")
    followed = 0
    while waiting:
        name = waiting.pop(0)
        if name in (b"", b".", b".."):
            if not stat.S_ISDIR(os.fstat(trail[-1]).st_mode):
                raise OSError(errno.ENOTDIR, "")
            if name == b".." and len(trail) > 1:
                os.close(trail.pop())
            continue
        trail.append(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=trail[-1]))
        if not stat.S_ISLNK(os.fstat(trail[-1]).st_mode) or (last and not waiting):
            continue
        followed += 1
        if not links or followed > _LINKS or _is_magic(trail[-2]):
            raise OSError(errno.ELOOP, "")
        target = os.readlink(b"", dir_fd=trail[-1])
        keep = 1 if target.startswith(b"/") else len(trail) - 1
        while len(trail) > keep:
            os.close(trail.pop())
        waiting = target.split(b"/") + waiting


def _is_magic(folder: int) -> bool:
    """Whether links in this directory of /proc are doors to other places; those in its root are plain."""
    proc = sys_.file_system_type(folder) == sys_.PROC_SUPER_MAGIC
    return proc and os.fstat(folder).st_ino != _PROC_ROOT_INODE


def _opened(found: int, flags: int) -> int:
    if not flags & os.O_PATH:
        return os.open(b"/proc/self/fd/%d" % found, flags & ~os.O_NOFOLLOW | os.O_CLOEXEC)
    if flags & os.O_DIRECTORY and not stat.S_ISDIR(os.fstat(found).st_mode):
        raise OSError(errno.ENOTDIR, "")
    return os.dup(found)
