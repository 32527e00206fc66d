"""What the kernel grants this process, found out by trying. Nothing stays mounted, nothing is left behind.

`try_all` asks everything in a forked child, for those who only want to know; a process that means to work
asks `overlay_refused` once it is where it will work.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

from builder.sandbox import syscalls as sys_
from builder.sandbox.overlay import Bare, mount_overlay, mount_overlay_by_options
from builder.sandbox.userns import Maps, NotEntered, Unmapped, enter

FUSE_DEVICE = "/dev/fuse"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def overlay_refused(folder: str, *, userxattr: bool) -> str:
    """Why the kernel does not mount an overlay with an upper directory in the host directory `folder`, which
    can be written to; "" when it does. Half a millisecond; the mount is never attached anywhere.
    """
    place = os.path.join(folder, f".probe-{os.urandom(8).hex()}")
    try:
        for part in ("", "lower", "upper", "work"):
            os.mkdir(os.path.join(place, part), 0o700)
        if userxattr:
            os.setxattr(os.path.join(place, "upper"), "user.pybuild", b"y")
            os.removexattr(os.path.join(place, "upper"), "user.pybuild")
        return _mount(place, userxattr)
    except OSError as error:
        return f"{error.strerror or error}"
    finally:
        _remove(place)


def _remove(place: str) -> None:
    """Remove what a trial made, and what overlay made in it: that is another thing with every kernel."""
    for part in ("lower", "upper", os.path.join("work", "work"), "work", ""):
        with suppress(OSError):
            os.rmdir(os.path.join(place, part))
    if os.path.lexists(place):
        import shutil

        shutil.rmtree(place, ignore_errors=True)


def _mount(place: str, userxattr: bool) -> str:
    lower, upper, work = (os.fsencode(os.path.join(place, part)) for part in ("lower", "upper", "work"))
    stack = Bare([lower], upper, work, userxattr=userxattr)
    mount = mount_overlay(stack)
    if mount >= 0:
        os.close(mount)
        return ""
    # Before Linux 6.8 a mount has to be attached somewhere: where it goes away by itself.
    return _in_thread(lambda: _attach(stack, place))


def _attach(stack: Bare, place: str) -> str:
    sys_.unshare(sys_.CLONE_NEWNS)
    sys_.mount(b"none", b"/", b"", sys_.MS_REC | sys_.MS_PRIVATE)
    fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mount_overlay_by_options(stack, fd, b"lower")
    finally:
        os.close(fd)
    return ""


def fresh_proc_refused() -> str:
    """Why no new /proc can be mounted for a new pid namespace here; "" when it can. Needs CAP_SYS_ADMIN."""

    def attempt() -> str:
        sys_.unshare(sys_.CLONE_NEWPID | sys_.CLONE_NEWNS)
        return _in_child(_new_proc)

    return _in_child(attempt)


def _new_proc() -> str:
    os.close(sys_.make_mount(b"proc", 0))
    return ""


def fuse_refused() -> str:
    """Why /dev/fuse cannot be used; "" when it can."""
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{FUSE_DEVICE}: {(error.strerror or '').lower()}"
    return ""


def network_refused(maps: Maps | None) -> str:
    """Why steps can have no private network here, in a namespace with `maps` (None: with root's means); ""
    when they can. One is made in a child and goes with it.
    """

    def attempt() -> str:
        if maps is not None:
            enter(maps)
        else:
            sys_.unshare(sys_.CLONE_NEWNET)  # not the host's own rules: a namespace in its place
        from builder.sandbox.network import NetworkPool

        with NetworkPool(1, rootless=maps is not None) as pool:
            os.close(pool.take())
        return ""

    return _in_child(attempt)


class Tried:
    """What `try_all` found. Each is "" for a yes, else what was said; `number` is unshare's errno."""

    def __init__(self, found: dict[str, str]) -> None:
        self.unshare = found.get("unshare", "")
        self.maps = found.get("maps", "")
        self.privilege = found.get("privilege", "")
        self.overlay = found.get("overlay", "")
        self.proc = found.get("proc", "")
        self.number = int(found.get("number", "0"))


def try_all(maps: Maps | None, folder: str) -> Tried:
    """Enter a namespace with `maps` (None: stay in the present one) in a child, and try what steps need.

    `folder` is a directory that can be written to, on the store's file system. The process has one thread.
    """
    rows = _in_child(lambda: "\n".join(f"{key}={text}" for key, text in _attempt(maps, folder).items()))
    return Tried(dict(row.split("=", 1) for row in rows.splitlines() if "=" in row))


def _attempt(maps: Maps | None, folder: str) -> dict[str, str]:
    if maps is not None:
        try:
            enter(maps)
        except NotEntered as error:
            return {"unshare": error.strerror or "refused", "number": str(error.errno)}
        except Unmapped as error:
            return {"maps": error.strerror or "refused"}
    try:
        sys_.unshare(sys_.CLONE_NEWUTS)
    except OSError as error:
        return {"privilege": error.strerror or "refused"}
    return {
        "overlay": overlay_refused(folder, userxattr=maps is not None),
        "proc": fresh_proc_refused(),
    }


def _in_thread(work: Callable[[], str]) -> str:
    """What `work` gives, done in a thread that may have a mount namespace of its own, which ends with it; an
    OSError's text when it raises one. In a process with threads a forked child could wait for ever, for a
    lock that another thread held.
    """
    said: list[str] = []

    def run() -> None:
        try:
            said.append(work())
        except OSError as error:
            said.append(error.strerror or str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return said[0] if said else "it could not be tried"


def _in_child(work: Callable[[], str]) -> str:
    """What `work` gives, done in a forked child; an OSError's text when it raises one."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            said = work()
        except OSError as error:
            said = error.strerror or str(error)
        except BaseException as error:  # a forked copy of the builder must not run on, whatever happens
            said = f"{type(error).__name__}: {error}"
        os.write(write, os.fsencode(said))
        os._exit(0)
    os.close(write)
    answer = b""
    while block := os.read(read, 4096):
        answer += block
    os.close(read)
    os.waitpid(pid, 0)
    return os.fsdecode(answer)
