"""The file systems a step sees. Runs in the step's own process and mount namespace, before any foreign code.

Nothing here trusts the image: every target is opened as if the root were `/` and mounted on by descriptor,
masks and devices are never taken from the image (SECURITY.md S14 to S18). The *stage* is a small tmpfs over
the host's root that holds what must exist somewhere: the place to attach the new root to, the sources of
masks, the contents of File mounts.
"""

from __future__ import annotations

import os
import stat

from builder.sandbox import syscalls as sys_
from builder.sandbox.mountcalls import make_mount, mount_setattr, move_mount, open_tree, use_old_calls
from builder.sandbox.overlay import OLD_CALLS, mount_overlay, mount_overlay_by_options
from builder.sandbox.stubs import StubMaker
from builder.sandbox.syscalls import (
    ATTR_NODEV,
    ATTR_NOEXEC,
    ATTR_NOSUID,
    ATTR_RDONLY,
    ATTR_STRICTATIME,
    open_in_root,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.sandbox.bounds import Bounds
    from builder.sandbox.overlay import Stack
    from builder.sandbox.plan import Plan

DEVICES = (
    (b"null", 1, 3),
    (b"zero", 1, 5),
    (b"full", 1, 7),
    (b"random", 1, 8),
    (b"urandom", 1, 9),
    (b"tty", 5, 0),
)
DEVICE_LINKS = (
    (b"fd", b"/proc/self/fd"),
    (b"stdin", b"/proc/self/fd/0"),
    (b"stdout", b"/proc/self/fd/1"),
    (b"stderr", b"/proc/self/fd/2"),
    (b"ptmx", b"pts/ptmx"),
    (b"core", b"/proc/kcore"),
)
MASKED_PROC = (
    b"acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats".split()
)
READ_ONLY_PROC = b"bus fs irq sys sysrq-trigger".split()
MASKED_SYS = b"devices/virtual/powercap firmware fs/selinux".split()
CLOSED = ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC

_O_DIR = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Stage:
    """The tmpfs over the host's `/`. Lookups of host paths still see the host: `/` itself is never looked
    up again.
    """

    def __init__(self, plan: Plan) -> None:
        self._one_id = bool(plan.owners)
        self.fd = use_old_calls() if plan.overlay_by == OLD_CALLS else _cover_root(bool(plan.mounts))
        for name in (b"root", b"empty"):
            os.mkdir(name, 0o555, dir_fd=self.fd)
        self._write(b"blank", b"", 0o444)
        for number, (kind, _, content, more) in enumerate(plan.mounts):
            if kind == "file":
                self._write(b"mount%d" % number, content, *more)
            elif kind == "layers":
                os.mkdir(b"mount%d" % number, 0o555, dir_fd=self.fd)
        mount_setattr(self.fd, ATTR_RDONLY)

    def _write(self, name: bytes, content: bytes, mode: int, uid: int = 0, gid: int = 0) -> None:
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        if (uid or gid) and not self._one_id:
            os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
        os.close(fd)

    def clone(self, name: bytes) -> int:
        """A read-only mount of one of the stage's files, ready to be moved."""
        return open_tree(self.fd, name)


def _cover_root(roomy: bool) -> int:
    options = ((b"mode", b"755"), (b"size", b"1g" if roomy else b"16m"))
    stage = make_mount(b"tmpfs", ATTR_NOSUID | ATTR_NODEV, options)
    slash = os.open("/", _O_DIR)
    move_mount(stage, slash)
    os.close(slash)
    return stage


def mount_root(plan: Plan, stage: Stage) -> int:
    """Attach the new root to the stage; a descriptor of it."""
    if plan.lowers:
        return attach_overlay(plan, stage, b"root")
    root = open_tree(sys_.AT_FDCWD, plan.source, recursive=True)
    attributes = (0 if plan.privileged else ATTR_NODEV) | (ATTR_RDONLY if plan.read_only else 0)
    mount_setattr(root, attributes, recursive=True)
    _attach(root, stage.fd, b"root")
    return root


def attach_overlay(stack: Plan | Stack, stage: Stage, name: bytes) -> int:
    """Mount an overlay at the directory `name` of the stage; a descriptor of its root."""
    overlay = mount_overlay(stack)
    if overlay >= 0:
        _attach(overlay, stage.fd, name)
        return overlay
    mount_overlay_by_options(stack, stage.fd, name)
    return os.open(name, _O_DIR, dir_fd=stage.fd)


def _attach(mount: int, at: int, name: bytes) -> None:
    target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    move_mount(mount, target)
    os.close(target)


class Tree:
    """The new root while it is being furnished. A `privileged` one is left open: nothing is masked in it."""

    def __init__(
        self, root: int, stage: Stage, stubs: StubMaker, *, privileged: bool = False, strict: bool = False
    ) -> None:
        self.root = root
        self.stage = stage
        self.stubs = stubs
        self.privileged = privileged
        self.strict = strict
        self.weaker: list[str] = []
        self.closed: list[str] = []

    def place(self, mount: int, path: bytes, *, directory: bool = True) -> bytes:
        """Attach `mount` at `path` in the root; the target's place in the root without links where it was
        made.
        """
        target, at = self._target(path, directory)
        try:
            if self._is_closed(target):
                raise OSError(1, "mount: nothing may be mounted inside /proc or /sys", os.fsdecode(path))
            if stat.S_ISDIR(os.fstat(target).st_mode) != directory:
                raise OSError(20, f"mount: not a {'directory' if directory else 'file'}", os.fsdecode(path))
            move_mount(mount, target)
        finally:
            os.close(target)
        return at

    def _is_closed(self, target: int) -> bool:
        """Whether it is in /proc or /sys, or on what masks a part of them, which is another file system."""
        if sys_.file_system_type(target) in (sys_.PROC_SUPER_MAGIC, sys_.SYSFS_MAGIC):
            return True
        place = _place_of(target)
        return any(place.startswith(each + "/") for each in self.closed)

    def _target(self, path: bytes, directory: bool) -> tuple[int, bytes]:
        try:
            return open_in_root(self.root, path, os.O_PATH), path.strip(b"/")
        except FileNotFoundError:
            return self.stubs.make(path, directory=directory)

    def mask(self, base: int, name: bytes) -> None:
        """Cover `name` below the mount `base` with an empty file or directory of our own, if it exists."""
        try:
            target = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=base)
        except FileNotFoundError:
            return
        directory = stat.S_ISDIR(os.fstat(target).st_mode)
        cover = self.stage.clone(b"empty" if directory else b"blank")
        move_mount(cover, target)
        os.close(cover)
        os.close(target)

    def protect(self, base: int, name: bytes) -> None:
        """Make `name` below the mount `base` read-only, if it exists."""
        try:
            cover = open_tree(base, name)
        except FileNotFoundError:
            return
        mount_setattr(cover, ATTR_RDONLY)
        _attach(cover, base, name)
        os.close(cover)

    def proc(self, bounds: Bounds) -> None:
        """A fresh /proc of the step's own pid namespace, with Docker's masked and read-only paths.

        What bounds the namespace is written while the mount is attached nowhere (S16).
        """
        proc = self._fresh(b"proc", CLOSED)
        bounds.limit_processes(proc)
        self.place(proc, b"/proc")
        self.closed.append(_place_of(proc))
        for name in () if self.privileged else MASKED_PROC:
            self.mask(proc, name)
        for name in () if self.privileged else READ_ONLY_PROC:
            self.protect(proc, name)
        os.close(proc)

    def sysfs(self) -> None:
        """A fresh, read-only /sys: it shows the network namespace the step is in by now."""
        sysfs = self._fresh(b"sysfs", CLOSED | (0 if self.privileged else ATTR_RDONLY))
        self.place(sysfs, b"/sys")
        self.closed.append(_place_of(sysfs))
        for name in () if self.privileged else (*MASKED_SYS, *_throttles(sysfs)):
            self.mask(sysfs, name)
        os.close(sysfs)

    def _fresh(self, kind: bytes, attributes: int) -> int:
        """A new proc or sysfs, or where a user namespace may not have one (KERNEL.md 3) the one outside.

        proc is refused where that outside is masked, as in a container; sysfs also in the host's network.
        """
        try:
            return make_mount(kind, attributes)
        except PermissionError as error:
            if self.strict and kind == b"proc":
                raise OSError(error.errno, "a new /proc is refused, and isolation is strict") from None
        mount = open_tree(sys_.AT_FDCWD, b"/proc" if kind == b"proc" else b"/sys", recursive=True)
        mount_setattr(mount, attributes, recursive=True)
        self.weaker.append(os.fsdecode(kind))
        return mount

    def dev(self, shm_size: int) -> int:
        """A minimal /dev; a descriptor of its `null`, the step's standard input.

        Mode 0755, never tmpfs' own 1777 (KERNEL.md 3). The tmpfs is nodev; the six nodes keep working
        because a bind mount has the flags of where it came from.
        """
        options = ((b"mode", b"755"), (b"size", b"65536k"))
        nodev = 0 if self.privileged else ATTR_NODEV
        dev = make_mount(b"tmpfs", ATTR_NOSUID | nodev | ATTR_STRICTATIME, options)
        self.place(dev, b"/dev")
        for name, major, minor in DEVICES:
            _bind_device(dev, name, os.makedev(major, minor))
        for name, target in DEVICE_LINKS:
            os.symlink(target, name, dir_fd=dev)
        for name in (b"pts", b"shm", b"mqueue"):
            os.mkdir(name, 0o755, dir_fd=dev)
        shm = ((b"mode", b"1777"), *(((b"size", b"%d" % shm_size),) if shm_size else ()))
        for name, mount in (
            (b"pts", _devpts()),
            (b"shm", make_mount(b"tmpfs", CLOSED, shm)),
            (b"mqueue", make_mount(b"mqueue", CLOSED)),
        ):
            _attach(mount, dev, name)
            os.close(mount)
        null = os.open(b"null", os.O_RDWR | os.O_CLOEXEC, dir_fd=dev)
        os.close(dev)
        return null


def _place_of(fd: int) -> str:
    """Where it lies, for comparison only: seen from the host's root, on which the stage lies."""
    return os.readlink(f"/proc/self/fd/{fd}")


def _throttles(sysfs: int) -> list[bytes]:
    """thermal_throttle of each processor: a side channel (GHSA-6fw5-f8r9-fgfm)."""
    try:
        cpus = os.open(b"devices/system/cpu", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=sysfs)
    except OSError:
        return []
    names = [os.fsencode(name) for name in os.listdir(cpus)]
    os.close(cpus)
    return [
        b"devices/system/cpu/%s/thermal_throttle" % name
        for name in names
        if name.startswith(b"cpu") and name[3:].isdigit()
    ]


def _bind_device(dev: int, name: bytes, number: int) -> None:
    """The host's node, which must really be that device, bound into the new /dev."""
    source = open_tree(sys_.AT_FDCWD, b"/dev/" + name)
    info = os.fstat(source)
    if not stat.S_ISCHR(info.st_mode) or info.st_rdev != number:
        raise OSError(19, "bind device: the host's node is not that device", "/dev/" + os.fsdecode(name))
    mount_setattr(source, ATTR_NOSUID | ATTR_NOEXEC)
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=dev))
    _attach(source, dev, name)
    os.close(source)


def _devpts() -> int:
    options = ((b"newinstance", b""), (b"ptmxmode", b"0666"), (b"mode", b"0620"))
    attributes = ATTR_NOSUID | ATTR_NOEXEC
    try:
        return make_mount(b"devpts", attributes, (*options, (b"gid", b"5")))
    except OSError:
        return make_mount(b"devpts", attributes, options)  # group 5 is not mapped


def enter(root: int) -> None:
    """Make `root` the only root. Nothing of the host's tree can be reached by name afterwards.

    pivot_root puts the old root on top of the new one; the stage lies on top of that: hence two to take off.
    """
    os.fchdir(root)
    sys_.pivot_root(b".", b".")
    sys_.umount(b".", sys_.MNT_DETACH)
    sys_.umount(b".", sys_.MNT_DETACH)
    os.chdir("/")
