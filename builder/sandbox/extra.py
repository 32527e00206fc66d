"""The sandbox's own mounts: binds, layers, tmpfs and files, put into a furnished root in the order given.

What other steps may have written is only ever entered by descriptor: a path inside it is resolved with links
and `..` kept inside, and what was found is cloned from the descriptor that found it. Exchanging it for a link
a moment later changes nothing (SECURITY.md S33).
"""

from __future__ import annotations

import os
import stat

from builder.sandbox import syscalls as sys_
from builder.sandbox.mountcalls import make_mount, mount_setattr, open_tree
from builder.sandbox.mounts import attach_overlay
from builder.sandbox.overlay import Stack
from builder.sandbox.syscalls import ATTR_NODEV, ATTR_NOEXEC, ATTR_NOSUID, ATTR_RDONLY, open_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from builder.sandbox.mounts import Tree
    from builder.sandbox.plan import Plan

_FLAGS = {"nosuid": ATTR_NOSUID, "noexec": ATTR_NOEXEC}


def add_mount(tree: Tree, plan: Plan, number: int) -> None:
    """Mount number `number` of `plan` into `tree`. Raises OSError with the call that failed."""
    kind, target, what, more = plan.mounts[number]
    if kind == "bind":
        _bind(tree, plan, target, what, *more)
        return
    if kind == "file":
        fd = tree.stage.clone(b"mount%d" % number)
    elif kind == "layers":
        fd = _layers(tree, plan, b"mount%d" % number, *more)
    else:
        fd = _tmpfs(*more)
    directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    tree.place(fd, target, directory=directory)
    os.close(fd)


def _tmpfs(size: int, mode: int, read_only: bool, flags: tuple[str, ...]) -> int:
    options = ((b"mode", b"%o" % mode), *(((b"size", b"%d" % size),) if size else ()))
    attributes = ATTR_NOSUID | ATTR_NODEV | (ATTR_RDONLY if read_only else 0)
    for flag in flags:
        attributes |= _FLAGS[flag]
    return make_mount(b"tmpfs", attributes, options)


def _layers(
    tree: Tree, plan: Plan, name: bytes, lowers: list[bytes], upper: bytes, work: bytes, path: bytes
) -> int:
    """The overlay waits on the stage, which goes away with the host's root; a part of it is cloned."""
    stack = Stack(plan, lowers, upper, work)
    root = attach_overlay(stack, tree.stage, name)
    return _clone(_held(root, path), _attributes(plan, stack.read_only))


def _bind(
    tree: Tree,
    plan: Plan,
    target: bytes,
    source: bytes,
    read_only: bool,
    path: bytes,
    flags: tuple[str, ...],
) -> None:
    prefix = b""
    attributes = _attributes(plan, read_only, flags)
    if path:
        top = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        found = _held(top, path)
        prefix = _below(top, found)
        fd = _clone(found, attributes)
    else:
        fd = open_tree(sys_.AT_FDCWD, source, recursive=True)
        mount_setattr(fd, attributes, recursive=True)
    directory = stat.S_ISDIR(os.fstat(fd).st_mode)
    at = tree.place(fd, target, directory=directory)
    if directory and not read_only:
        tree.stubs.writable_mount(fd, at, source, prefix)
    os.close(fd)


def _attributes(plan: Plan, read_only: bool, flags: tuple[str, ...] = ()) -> int:
    found = 0 if plan.privileged or "dev" in flags else ATTR_NODEV
    for name, attribute in _FLAGS.items():
        found |= attribute if name in flags else 0
    return found | (ATTR_RDONLY if read_only else 0)


def _held(root: int, path: bytes) -> int:
    """A descriptor of what `path` leads to inside `root`.

    Whoever renames something on the way for ever gets an error, never a way out.
    """
    try:
        return open_in_root(root, path, os.O_PATH)
    except BlockingIOError as error:
        said = "mount source: it is being renamed all the time"
        raise OSError(error.errno, said, os.fsdecode(path)) from None


def _clone(found: int, attributes: int) -> int:
    fd = open_tree(found, b"", recursive=True)
    mount_setattr(fd, attributes, recursive=True)
    os.close(found)
    return fd


def _below(top: int, found: int) -> bytes:
    """Where `found` lies below `top`, as the kernel tells; only used to find stubs again, by inode."""
    above, here = (os.fsencode(os.readlink(f"/proc/self/fd/{fd}")) for fd in (top, found))
    os.close(top)
    return here[len(above) :].strip(b"/") if here.startswith(above) else b""
