"""The overlay that is a step's root: two ways for two ages of kernels, neither with a host's name in it.

The kernel shows the options of an overlay to whoever is inside (mountinfo): layers are told to it by the
number of a descriptor, so that no path of the host is seen there (SECURITY.md S20) or could be misread as an
option (S21). Layers by descriptor itself (6.13) would be shown by their paths.
"""

from __future__ import annotations

import errno
import os

from builder.sandbox import syscalls as sys_
from builder.sandbox.mountcalls import have_new_calls
from builder.sandbox.syscalls import ATTR_NODEV, ATTR_RDONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    from builder.sandbox.plan import Plan

    Stacked: TypeAlias = "Plan | Stack | Bare"

BY_NAMES, BY_OPTIONS, OLD_CALLS = 1, 2, 3
"""Ways to make an overlay: `lowerdir+` for each layer (Linux 6.8), or all in mount(2)'s string; the last is
that of a kernel which lacks the newer calls altogether (before 5.12), also for all other mounts.
"""

_MOST_LAYERS = 500
_O_DIR = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Stack:
    """An overlay that is no step's root: of a Plan, what concerns its overlay."""

    __slots__ = ("lowers", "overlay_by", "privileged", "read_only", "upper", "userxattr", "volatile", "work")

    def __init__(self, plan: Plan, lowers: list[bytes], upper: bytes, work: bytes) -> None:
        self.lowers = lowers
        self.upper = upper
        self.work = work
        self.volatile = True
        self.read_only = not upper
        self.userxattr = plan.userxattr
        self.overlay_by = plan.overlay_by
        self.privileged = plan.privileged


class Bare:
    """An overlay without any plan, to try whether there can be one."""

    __slots__ = Stack.__slots__

    def __init__(self, lowers: list[bytes], upper: bytes, work: bytes, *, userxattr: bool) -> None:
        self.lowers = lowers
        self.upper = upper
        self.work = work
        self.volatile = True
        self.read_only = False
        self.userxattr = userxattr
        self.overlay_by = best_way()
        self.privileged = False


def best_way() -> int:
    """Which of them this kernel has.

    Before 6.5 a context for overlays takes any key and complains, without a word, at the end: hence the
    second question.
    """
    if not have_new_calls():
        return OLD_CALLS
    try:
        context = sys_.fsopen(b"overlay")
    except OSError:
        return BY_OPTIONS
    try:
        sys_.fsconfig(context, sys_.SET_STRING, b"lowerdir+", b"/")
        sys_.fsconfig(context, sys_.SET_STRING, b"no-such-key", b"/")
    except OSError as error:
        return BY_NAMES if error.filename == "no-such-key" else BY_OPTIONS
    finally:
        os.close(context)
    return BY_OPTIONS


def mount_overlay(plan: Stacked) -> int:
    """The overlay as a detached mount, or -1 where it has to be made with mount(2)."""
    if plan.overlay_by != BY_NAMES:
        return -1
    context = sys_.fsopen(b"overlay")
    try:
        for key, path in _layers(plan):
            _set_layer(context, key, path)
        _create(context, plan)
    except OSError:
        os.close(context)
        raise
    nodev = 0 if plan.privileged else ATTR_NODEV
    return sys_.fsmount(context, nodev | (ATTR_RDONLY if plan.read_only else 0))


def _layers(plan: Stacked) -> list[tuple[bytes, bytes]]:
    upper = [(b"upperdir", plan.upper), (b"workdir", plan.work)] if plan.upper else []
    return [*((b"lowerdir+", path) for path in plan.lowers), *upper]


def _set_layer(context: int, key: bytes, path: bytes) -> None:
    fd = _open_layer(path)
    try:
        sys_.fsconfig(context, sys_.SET_STRING, key, b"/proc/self/fd/%d" % fd)
    finally:
        os.close(fd)


def _create(context: int, plan: Stacked) -> None:
    """Spell out what we rely on, because distributions change the defaults (KERNEL.md 1.2)."""
    for flag in _flags(plan):
        sys_.fsconfig(context, sys_.SET_FLAG, flag)
    for key in (b"index", b"metacopy", b"redirect_dir", b"xino"):
        if not (plan.userxattr and key in (b"metacopy", b"redirect_dir")):
            sys_.fsconfig(context, sys_.SET_STRING, key, b"off")
    try:
        sys_.fsconfig(context, sys_.SET_STRING, b"uuid", b"null")
    except OSError:
        pass  # before 6.6: then nothing is written to the upper directory either
    sys_.fsconfig(context, sys_.CMD_CREATE, None)


def _flags(plan: Stacked) -> list[bytes]:
    volatile = [b"volatile"] if plan.volatile and plan.upper else []
    return volatile + ([b"userxattr"] if plan.userxattr else [])


def _open_layer(path: bytes) -> int:
    try:
        return os.open(path, _O_DIR)
    except OSError as error:
        raise OSError(error.errno, f"open layer: {error.strerror}", os.fsdecode(path)) from None


def mount_overlay_by_options(plan: Stacked, stage: int, name: bytes) -> None:
    """mount(2), at `name` in the stage, for kernels before 6.8. Layers are descriptor numbers, relative to
    /proc/self/fd: nothing to escape, and some 700 of them fit into the one page the kernel reads.
    """
    held: list[int] = []
    try:
        _mount_by_options(plan, stage, name, held)
    finally:
        for fd in held:
            os.close(fd)


def _mount_by_options(plan: Stacked, stage: int, name: bytes, held: list[int]) -> None:
    lowers = plan.lowers
    for path in (*lowers, *((plan.upper, plan.work) if plan.upper else ())):
        held.append(_open_layer(path))
    options = b"lowerdir=" + b":".join(b"%d" % fd for fd in held[: len(lowers)])
    if plan.upper:
        options += b",upperdir=%d,workdir=%d" % (held[-2], held[-1])
    options += b"".join(b"," + flag for flag in _flags(plan)) + b",index=off,xino=off"
    if not plan.userxattr:
        options += b",metacopy=off,redirect_dir=off"
    if len(lowers) > _MOST_LAYERS or len(options) > 4095:
        text = f"mount overlay: {len(lowers)} layers are more than this kernel takes ({_MOST_LAYERS})"
        raise OSError(errno.E2BIG, text)
    target = os.open(name, _O_DIR, dir_fd=stage)
    held.append(target)
    flags = (0 if plan.privileged else 4) | (1 if plan.read_only else 0)  # MS_NODEV, MS_RDONLY
    os.chdir("/proc/self/fd")
    try:
        sys_.mount(b"overlay", b"%d" % target, b"overlay", flags, options)
    except OSError as error:
        raise OSError(error.errno, f"mount overlay: {os.strerror(error.errno or 0)}") from None
    os.chdir("/")
