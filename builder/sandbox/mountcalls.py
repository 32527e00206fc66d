"""Mounts that are made first and put in place afterwards, on every kernel.

The calls for that came with Linux 5.2 and, the last one, 5.12. Before, the same is done with mount(2) through
the names of descriptors (`oldmounts`): what is mounted on is always what a descriptor stands for, never what
a path leads to by then (SECURITY.md S18).
"""

from __future__ import annotations

import errno
import os

from builder.sandbox import syscalls as sys_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.sandbox.oldmounts import OldMounts

_old: OldMounts | None = None
"""Set in the process of a step on an old kernel, which makes no other mounts."""


def have_new_calls() -> bool:
    """Whether this kernel has all of them; the youngest tells."""
    try:
        sys_.mount_setattr(-1, 0)
    except OSError as error:
        return error.errno != errno.ENOSYS
    return True


def load_what_old_kernels_need() -> None:
    """Before the first step: once its root is another one, no module may be looked for any more."""
    if not have_new_calls():
        import builder.sandbox.oldmounts  # noqa: F401
    slash = os.open("/", os.O_PATH | os.O_CLOEXEC)
    os.close(sys_.open_in_root(slash, b"/", os.O_PATH))
    os.close(slash)


def use_old_calls() -> int:
    """From now on do without them in this process; a descriptor of a tmpfs over the host's `/`, where mounts
    wait for their places.
    """
    from builder.sandbox.oldmounts import OldMounts

    global _old
    _old = OldMounts()
    return _old.stage


def make_mount(kind: bytes, attributes: int, options: Sequence[tuple[bytes, bytes]] = ()) -> int:
    """A new file system of `kind`; an option with an empty value is a flag."""
    return (sys_ if _old is None else _old).make_mount(kind, attributes, options)


def open_tree(at: int, path: bytes, *, recursive: bool = False) -> int:
    """A copy of the mount that `path` lies in, rooted there. A final link is not followed."""
    return (sys_ if _old is None else _old).open_tree(at, path, recursive=recursive)


def mount_setattr(fd: int, attributes: int, *, recursive: bool = False) -> None:
    """Add mount attributes to the mount at `fd` and cut it off from its peers."""
    (sys_ if _old is None else _old).mount_setattr(fd, attributes, recursive=recursive)


def move_mount(fd: int, target: int) -> None:
    """Attach the mount at `fd` on top of what `target` stands for; `fd` stays a descriptor of it."""
    (sys_ if _old is None else _old).move_mount(fd, target)
