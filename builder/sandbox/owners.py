"""Owners where there is one user id for all: what a step gives away is written down beside the file.

In a user namespace with one id, chown(2) to another one is EINVAL and mknod(2) of a device EPERM, and with
them fail tar, dpkg, adduser and install. Here these calls of a step are answered by a process of its own
(`builder.sandbox.answers`; seccomp_unotify(2), KERNEL.md 4.2): it makes the file root's, as far as that is
possible, and notes whose it should be. For files and directories the note is an extended attribute, which
follows a file through renames and copies between layers; symlinks and pipes cannot have one and are told in
a file of notes, by the number of their inode. A layer gets the owners of the notes. What changes the ids of a
process (setuid(2) and the like) is answered with success and changes nothing; stat(2) goes on to show root.
"""

from __future__ import annotations

import errno
import os
import stat
import struct

XATTR = "user.pybuild.owner"

_CHOWN = ("chown", "lchown", "fchown", "fchownat", "chown32", "lchown32", "fchown32")
_MKNOD = {"mknod": 1, "mknodat": 2}
"""The calls that make nodes, and which argument is the mode."""
_IDS = (
    *("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid"),
    *("setgroups", "setfsuid", "setfsgid"),
)
_IGNORED = [name + width for name in _IDS for width in ("", "32")]
_LOAD, _AND, _EQUAL, _RETURN = 0x20, 0x54, 0x15, 0x06
_ALLOW, _NOTIFY, _SUCCEED = 0x7FFF0000, 0x7FC00000, 0x00050000
_ARGUMENTS = 16
KEEP = 0xFFFFFFFF
"""The id that leaves an owner as it is."""


def program(machine: str = "") -> bytes:
    """The filter that hands these calls over; one that refuses others may lie on top of it.

    Raises `seccomp.Unfiltered` for a machine without a table of calls.
    """
    from builder.sandbox import seccomp

    code: list[tuple[int, int, int, int]] = [(_LOAD, 0, 0, 4)]
    for arch, numbers, _ in seccomp.tables(machine or os.uname().machine):
        body = [(_LOAD, 0, 0, 0)]
        for name in _IGNORED:
            body += _when(numbers.get(name), [(_RETURN, 0, 0, _SUCCEED)])
        for name in _CHOWN:
            body += _when(numbers.get(name), [(_RETURN, 0, 0, _NOTIFY)])
        for name, argument in _MKNOD.items():
            body += _when(numbers.get(name), _if_device(argument))
        code += [(_EQUAL, 0, len(body) + 1, arch), *body, (_RETURN, 0, 0, _ALLOW)]
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def handed_over(machine: str = "") -> list[tuple[int, int, str]]:
    """The calls that are handed over: architecture, number and name."""
    from builder.sandbox import seccomp

    return [
        (arch, numbers[name], name)
        for arch, numbers, _ in seccomp.tables(machine or os.uname().machine)
        for name in (*_CHOWN, *_MKNOD)
        if name in numbers
    ]


def _when(number: int | None, then: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    return [] if number is None else [(_EQUAL, 0, len(then), number), *then]


def _if_device(argument: int) -> list[tuple[int, int, int, int]]:
    return [
        (_LOAD, 0, 0, _ARGUMENTS + 8 * argument),
        (_AND, 0, 0, stat.S_IFMT(0xFFFF)),
        (_EQUAL, 1, 0, stat.S_IFCHR),
        (_EQUAL, 0, 1, stat.S_IFBLK),
        (_RETURN, 0, 0, _NOTIFY),
        (_RETURN, 0, 0, _ALLOW),
    ]


class Owner:
    """Whose a file should be. `node` is the device it stands for, as (kind, major, minor): kind is `b"c"` or
    `b"b"`; empty for what is no device.
    """

    __slots__ = ("gid", "node", "uid")

    def __init__(self, uid: int = 0, gid: int = 0, node: tuple[bytes, int, int] | tuple[()] = ()) -> None:
        self.uid = uid
        self.gid = gid
        self.node = node

    def __bytes__(self) -> bytes:
        """The value of the attribute."""
        return b"%d:%d" % (self.uid, self.gid) + (b":%s:%d:%d" % self.node if self.node else b"")

    @property
    def plain(self) -> bool:
        """Whether it is root's and no device: nothing to note."""
        return not (self.uid or self.gid or self.node)

    @classmethod
    def parse(cls, value: bytes) -> Owner:
        """An attribute's value; a step may have written anything there, which is root's then."""
        parts = value.split(b":")
        numbers = parts[:2] + parts[3:]
        sizes = len(parts) in (2, 5) and all(part.isdigit() and len(part) < 11 for part in numbers)
        if not sizes or (len(parts) == 5 and parts[2] not in (b"c", b"b")):
            return cls()
        uid, gid, *device = (int(part) for part in numbers)
        if max(uid, gid) >= KEEP:
            return cls()
        return cls(uid, gid, (parts[2], device[0], device[1]) if device else ())


def noted(path: bytes | str | int, *, follow: bool = False) -> Owner:
    """The owner noted at a file or directory, a path or a descriptor; root where none is."""
    follow = follow or isinstance(path, int)
    try:
        return Owner.parse(os.getxattr(path, XATTR, follow_symlinks=follow))
    except OSError:
        return Owner()


def note(path: bytes | str | int, owner: Owner, *, follow: bool = False) -> None:
    """Note `owner` at a file or directory; root's loses its note. Raises OSError where none can be kept."""
    follow = follow or isinstance(path, int)
    if not owner.plain:
        os.setxattr(path, XATTR, bytes(owner), follow_symlinks=follow)
        return
    try:
        os.removexattr(path, XATTR, follow_symlinks=follow)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
            raise


def read_notes(text: bytes) -> dict[int, Owner]:
    """The owners in a file of notes, by number of inode; the last note of each counts."""
    found = {}
    for line in text.splitlines():
        number, _, value = line.partition(b" ")
        if number.isdigit():
            found[int(number)] = Owner.parse(value)
    return found
