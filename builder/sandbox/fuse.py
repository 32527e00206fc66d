"""fuse-overlayfs: overlays where the kernel mounts none for a user, through /dev/fuse.

One program per mount. It would outlive a killed builder, and hold its mount namespace: a shell is its parent,
waits at a pipe whose other end only the builder has, and ends it when that goes. Layers are named to it by
links in a directory of ours, so that no path of the host is part of an option.

What it leaves in an upper directory has a form of its own (`builder.snapshot.fused`).
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from builder.sandbox import syscalls as sys_
from builder.sandbox.userns import trusted

if TYPE_CHECKING:
    from collections.abc import Sequence

PROGRAM = "fuse-overlayfs"
_WATCH = 'cd "$1" || exit 1; shift; "$@" & read _ <&3; kill $! 2>/dev/null; wait'
_READY_S = 10.0
_MS_SHARED = 1 << 20


def share_mounts() -> None:
    """Let what this process mounts from now on be seen in the mount namespaces made from its own."""
    sys_.mount(b"none", b"/", b"", sys_.MS_REC | _MS_SHARED)


class FuseOverlay:
    """`lowers` (host directories, topmost first) with `upper` and `work`, mounted at `target` until `close`.

    `folder` is an empty host directory for links. Raises OSError with what the program said.
    """

    def __init__(self, lowers: Sequence[str], upper: str, work: str, target: str, folder: str) -> None:
        self._target = target
        self._said = os.path.join(folder, "said")
        for number, path in enumerate((*lowers, upper, work)):
            os.symlink(path, os.path.join(folder, str(number)))
        count = len(lowers)
        layers = ":".join(map(str, range(count)))
        options = f"lowerdir={layers},upperdir={count},workdir={count + 1}"
        program = trusted(PROGRAM)
        words = ["sh", "-c", _WATCH, "sh", folder, program, "-f", "-o", options, target]
        ours, self._alive = os.pipe2(os.O_CLOEXEC)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            self._pid = os.posix_spawn(
                "/bin/sh",
                words,
                {"PATH": "/usr/bin:/bin"},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, ours, 3),
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, self._said, flags, 0o600),
                ],
                setsid=True,
                setsigmask=[],
            )
        finally:
            os.close(ours)
        self._wait()

    def _wait(self) -> None:
        """Until it is mounted. The program serves from then on."""
        outside = os.stat(os.path.dirname(self._target)).st_dev
        deadline = time.monotonic() + _READY_S
        while os.stat(self._target).st_dev == outside:
            if time.monotonic() > deadline or not _is_alive(self._pid):
                with open(self._said, errors="replace") as file:
                    said = " ".join(file.read().split()) or "no answer"
                self.close()
                raise OSError(5, f"fuse-overlayfs: {said}")
            time.sleep(0.001)

    def close(self) -> None:
        """Unmount it, and wait until the program has ended: then all that was written is in `upper`."""
        if self._alive < 0:
            return
        try:
            sys_.umount(os.fsencode(self._target))
        except OSError:
            try:
                sys_.umount(os.fsencode(self._target), sys_.MNT_DETACH)
            except OSError:
                pass  # never mounted
        os.close(self._alive)
        self._alive = -1
        try:
            os.waitpid(self._pid, 0)
        except ChildProcessError:
            pass


def _is_alive(pid: int) -> bool:
    """Whether the program runs: its shell has a child, or is about to have one."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False
