"""A step's own pseudo terminal, out of its own devpts: the caller's is never handed to it (SECURITY.md S30).

The master goes to the builder over the step's answer socket; the slave becomes the step's standard streams
and its controlling terminal. What a step pushes into its terminal (TIOCSTI) stays in it.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import struct

from builder.sandbox import syscalls as sys_
from builder.sandbox.mountcalls import move_mount, open_tree
from builder.sandbox.syscalls import open_in_root

MASTER = b"T"
"""The message that brings the master's descriptor; the answer at the end is never this."""

_OPEN = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
_DEVPTS_SUPER_MAGIC = 0x1CD1
_TIOCSPTLCK, _TIOCGPTN, _TIOCGPTPEER, _TIOCSCTTY, _TIOCSWINSZ = 0x40045431, 0x80045430, 0x5441, 0x540E, 0x5414


def open_terminal(root: int, rows: int, columns: int) -> tuple[int, int]:
    """Master and slave of a new terminal in the furnished `root`, whose /dev/console it becomes.

    The slave is opened through its master, never by a name (KERNEL.md 3).
    """
    pts = _devpts(root)
    master, slave = _pair(os.open(b"ptmx", _OPEN, dir_fd=pts), rows, columns)
    number = struct.unpack("=I", fcntl.ioctl(master, _TIOCGPTN, bytes(4)))[0]
    _console(root, open_tree(pts, b"%d" % number))
    os.close(pts)
    return master, slave


def open_further_terminal(root: int, rows: int, columns: int) -> tuple[int, int]:
    """One more terminal in a `root` that runs already; its /dev/console stays whose it is."""
    pts = _devpts(root)
    master, slave = _pair(os.open(b"ptmx", _OPEN, dir_fd=pts), rows, columns)
    os.close(pts)
    return master, slave


def _devpts(root: int) -> int:
    pts = open_in_root(root, b"/dev/pts", os.O_PATH | os.O_DIRECTORY)
    if sys_.file_system_type(pts) != _DEVPTS_SUPER_MAGIC:
        raise OSError(19, "terminal: /dev/pts is no devpts")
    return pts


def open_foreign_terminal(rows: int, columns: int) -> tuple[int, int]:
    """The same out of the caller's devpts, for a step that has none: a new one all the same."""
    return _pair(os.open(b"/dev/ptmx", _OPEN), rows, columns)


def _pair(master: int, rows: int, columns: int) -> tuple[int, int]:
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("=i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, _OPEN)
    set_size(master, rows, columns)
    return master, slave


def _console(root: int, terminal: int) -> None:
    dev = open_in_root(root, b"/dev", os.O_PATH | os.O_DIRECTORY)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    os.close(os.open(b"console", flags, 0o600, dir_fd=dev))
    target = os.open(b"console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dev)
    move_mount(terminal, target)
    for fd in (terminal, target, dev):
        os.close(fd)


def take_terminal(fd: int, uid: int) -> None:
    """Make the terminal `fd` the session's own, and its user's. The caller leads a session without one."""
    fcntl.ioctl(fd, _TIOCSCTTY, 0)
    os.fchown(fd, uid, -1)


def hand_over(answer: int, master: int) -> None:
    """Send a descriptor over a socket: the master to the builder, say."""
    there = _socket.socket(fileno=answer)
    there.sendmsg([MASTER], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("=i", master))])
    there.detach()


def set_size(fd: int, rows: int, columns: int) -> None:
    """The size of a terminal in characters; who runs in it gets SIGWINCH when that is another one."""
    fcntl.ioctl(fd, _TIOCSWINSZ, struct.pack("=HHHH", rows, columns, 0, 0))
