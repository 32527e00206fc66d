"""Cgroups as a file system: which hierarchies are mounted, and the files in them."""

from __future__ import annotations

import errno
import os
import re
import time
from contextlib import suppress
from typing import NamedTuple

_PATIENCE_S = 2.0
_OURS = re.compile(r"pybuild-[0-9a-f]{16}(/[a-z0-9]+)?")


class Hierarchy(NamedTuple):
    """A mounted hierarchy, of `version` 1 or 2; `own` is the builder's directory in it.

    `controllers` are those of a version 1.
    """

    version: int
    mount: str
    own: str
    controllers: frozenset[str] = frozenset()


def hierarchies(mountinfo: str = "", membership: str = "") -> list[Hierarchy]:
    """What is mounted, told by /proc/self/mountinfo and /proc/self/cgroup (or texts like theirs)."""
    mountinfo = mountinfo or text("/proc/self/mountinfo")
    membership = membership or text("/proc/self/cgroup")
    paths = {
        name: path
        for _, names, path in (line.split(":", 2) for line in membership.splitlines())
        for name in names.split(",")
    }
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, mount = (_unescaped(word) for word in left.split(" ")[3:5])
        names = frozenset() if kind == "cgroup2" else frozenset(options.split(",")) & paths.keys()
        if kind == "cgroup" and not names:
            continue  # a named one, without controllers
        path = paths.get(min(names, default=""), "/")
        found.append(Hierarchy(1 if names else 2, mount, _below(mount, root, path), names))
    return found


def _below(mount: str, root: str, path: str) -> str:
    """The directory of cgroup `path` in a mount that shows `root` at its top."""
    if root != "/" and (path + "/").startswith(root + "/"):
        path = path[len(root) :]
    own = os.path.normpath(mount + "/" + path)
    return own if ".." not in path.split("/") and os.path.isdir(own) else mount


def new_name() -> str:
    """A name for the cgroups of one build."""
    return f"pybuild-{os.urandom(8).hex()}"


def remove(path: str) -> bool:
    """Remove a cgroup; False if it is still in use.

    One of ours goes with all below it, and its last processes are waited for a little; any other may belong
    to somebody else by now.
    """
    ours = _OURS.search(path) is not None
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            _rmdir(path)
            return True
        except FileNotFoundError:
            return True
        except OSError as error:
            if not ours or error.errno != errno.EBUSY or time.monotonic() > until:
                return False
        for name in _children(path):
            remove(os.path.join(path, name))
        time.sleep(0.002)


def _children(path: str) -> list[str]:
    with suppress(OSError), os.scandir(path) as entries:
        return [each.name for each in entries if each.is_dir(follow_symlinks=False)]
    return []


def system_root() -> bool:
    """Whether this is the system's root, not that of a user namespace."""
    return os.geteuid() == 0 and text("/proc/self/uid_map").split()[:3] == ["0", "0", "4294967295"]


def delegated(path: str) -> bool:
    """Whether systemd gave this cgroup away (systemd.resource-control(5), Delegate=)."""
    for name in ("trusted.delegate", "user.delegate"):
        with suppress(OSError):
            if os.getxattr(path, name) == b"1":
                return True
    return False


def descends(pid: int, ancestor: int) -> bool:
    """Whether a process is `ancestor`, or its child or grandchild; one that has ended is nobody's."""
    while pid not in (0, ancestor):
        try:
            status = text(f"/proc/{pid}/status").split("\n")
        except OSError:
            return True
        pid = next((int(line.split()[1]) for line in status if line.startswith("PPid:")), 0)
    return pid == ancestor


def enable(path: str, names: list[str]) -> None:
    """Give the children of a cgroup of version 2 these controllers."""
    missing = [name for name in names if name not in words(path, "cgroup.subtree_control")]
    if missing:
        write(path, "cgroup.subtree_control", " ".join(f"+{name}" for name in missing))


def write(path: str, name: str, value: str) -> None:
    """Write to a file of a cgroup. Raises OSError, FileNotFoundError where there is no such file."""
    fd = os.open(os.path.join(path, name), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _rmdir(path: str) -> None:
    os.rmdir(path)


def words(path: str, name: str) -> list[str]:
    """What is in a file; nothing if it is not there."""
    try:
        return text(os.path.join(path, name)).split()
    except OSError:
        return []


def number(path: str, name: str) -> int:
    """The number in a file; 0 if there is none."""
    found = words(path, name)
    return int(found[0]) if found and found[0].isdigit() else 0


def count(path: str, name: str, key: str) -> int:
    """The number after `key` in a file of keys and numbers."""
    found = words(path, name)
    return int(found[found.index(key) + 1]) if key in found else 0


def text(path: str) -> str:
    """A file as a whole."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _unescaped(word: str) -> str:
    """mountinfo writes blanks and backslashes in octal."""
    for code, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        word = word.replace(code, character)
    return word
