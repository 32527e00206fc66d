"""The process moves itself into a user namespace, with more ids than one where the system lends some
(user_namespaces(7), subuid(5)).

No second process and no exec: a forked helper stays behind in the old namespace, where alone `newuidmap`
has its power, and writes the maps while the process waits. Process id, terminal, signals, exit status and
descriptors stay what they were; there is no marker in the environment that somebody could forge.

Nothing of ours is setuid. `newuidmap` and `newgidmap` are taken from directories that only root can write,
by absolute path (SECURITY.md S94).
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from builder.sandbox.procfs import Procfs

PROGRAMS = ("/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin")
"""Where programs are looked for, and nowhere else: never in PATH."""

_CAP_SETUID, _CAP_SETGID, _CAP_SYS_ADMIN, _CAP_CHOWN, _CAP_SYS_CHROOT = 7, 6, 21, 0, 18
_SETFCAP_XATTR = "security.capability"
_TIMEOUT_TEXT = "the helper that writes the id maps ended early"

Row = tuple[int, int, int]
"""First id inside, first id outside, how many."""


class Maps(NamedTuple):
    """Which ids inside are which outside. `by` says who writes them: `helpers` (newuidmap and newgidmap),
    `self` (one id each, which anybody may) or `parent` (a process with CAP_SETUID outside).
    """

    uids: tuple[Row, ...]
    gids: tuple[Row, ...]
    by: str

    @property
    def single(self) -> bool:
        """Whether there is one user id alone."""
        return sum(row[2] for row in self.uids) == 1

    def has_uid(self, number: int) -> bool:
        """Whether the user id `number` exists inside."""
        return any(first <= number < first + count for first, _, count in self.uids)

    def has_gid(self, number: int) -> bool:
        """Whether the group id `number` exists inside."""
        return any(first <= number < first + count for first, _, count in self.gids)

    def __str__(self) -> str:
        """One line that is the same for the same ids."""
        uids, gids = (",".join(":".join(map(str, row)) for row in rows) for rows in (self.uids, self.gids))
        return f"uid {uids} gid {gids}"


class NotEntered(OSError):
    """The namespace was not entered; the process is as it was. `call` is what refused."""

    def __init__(self, number: int, text: str, call: str) -> None:
        super().__init__(number, text)
        self.call = call


class Unmapped(OSError):
    """The process is in a new user namespace, but its maps could not be written as asked."""


TOOLS = ("fuse-overlayfs", "pasta", "slirp4netns")
"""Programs that `trusted` knows inside as well."""

_looked_up: dict[str, str] = {}
_entered: Maps | None = None
_outer: tuple[int, int] | None = None


def entered() -> Maps | None:
    """The maps of the namespace this process has moved itself into; None when it has not."""
    return _entered


def outer_ids() -> tuple[int, int]:
    """uid and gid of this process as the rest of the system sees them."""
    return _outer or (os.geteuid(), os.getegid())


def trusted(name: str, *, folders: tuple[str, ...] = PROGRAMS) -> str:
    """The absolute path of a system program that nobody but root can have written; "" if there is none.

    File and directory belong to root and are writable for nobody else. In a namespace of our own that cannot
    be seen: what is wanted there (`TOOLS`) is looked for before.
    """
    if name in _looked_up:
        return _looked_up[name]
    for folder in folders:
        path = os.path.join(folder, name)
        try:
            file, above = os.stat(path), os.stat(os.path.dirname(os.path.realpath(path)))
        except OSError:
            continue
        looks = (file, above)
        if stat.S_ISREG(file.st_mode) and all(
            each.st_uid == 0 and not each.st_mode & 0o022 for each in looks
        ):
            return path
    return ""


def gives_ids(path: str) -> bool:
    """Whether the program at `path` may write maps for others: setuid root, or a file capability, and not
    on a file system that ignores both.
    """
    try:
        info = os.stat(path)
        if os.statvfs(path).f_flag & os.ST_NOSUID:
            return False
    except OSError:
        return False
    if info.st_mode & stat.S_ISUID and info.st_uid == 0:
        return True
    try:
        return bool(os.getxattr(path, _SETFCAP_XATTR))
    except OSError:
        return False


def subordinate(text: bytes, name: str, uid: int) -> list[tuple[int, int]]:
    """The ranges (first id, count) that subuid(5) text lends to a user, by login name or number.

    Of /etc/subgid too the lines are the *user's*. Lines that are no such lines are passed over, as
    newuidmap does.
    """
    found = []
    for line in text.splitlines():
        words = line.strip().split(b":")
        if len(words) != 3 or words[0] not in (os.fsencode(name or str(uid)), b"%d" % uid):
            continue
        if words[1].isdigit() and words[2].isdigit() and int(words[2]) > 0:
            found.append((int(words[1]), int(words[2])))
    return found


def rows(own: int, ranges: list[tuple[int, int]]) -> tuple[Row, ...]:
    """0 inside is `own`; from 1 on come the ranges, one after the other."""
    made: list[Row] = [(0, own, 1)]
    for first, count in ranges:
        inside, _, length = made[-1]
        made.append((inside + length, first, count))
    return tuple(made)


def single(uid: int, gid: int) -> Maps:
    """One id each: what everybody may have."""
    return Maps(rows(uid, []), rows(gid, []), "self")


def everything() -> Maps:
    """All ids of the present namespace under their own numbers: for a process with CAP_SETUID and
    CAP_SETGID here, such as root in a container.
    """
    found = []
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/self/{name}", "rb") as file:
            found.append(
                tuple((int(inside), int(inside), int(count)) for inside, _, count in map(bytes.split, file))
            )
    return Maps(found[0], found[1], "parent")


def may_map_everything() -> bool:
    """Whether this process may give a new namespace every id it has itself."""
    mask = _permitted()
    return bool(mask >> _CAP_SETUID & 1 and mask >> _CAP_SETGID & 1)


def is_privileged() -> bool:
    """Whether this process is root with CAP_SYS_ADMIN: it needs no namespace of ids."""
    return os.geteuid() == 0 and bool(_permitted() >> _CAP_SYS_ADMIN & 1)


def may_chroot() -> bool:
    """Whether this process may change its root and the owners of files."""
    mask = _permitted()
    return bool(mask >> _CAP_SYS_CHROOT & 1 and mask >> _CAP_CHOWN & 1)


def _permitted() -> int:
    """The permitted capabilities, without loading what calls the kernel: every cached build asks."""
    with open("/proc/self/status", "rb") as file:
        return next((int(line[7:], 16) for line in file if line.startswith(b"CapPrm:")), 0)


def enter(maps: Maps) -> None:
    """Move this process, which has one thread, into a new user namespace and a mount namespace of its own.

    Afterwards it is root inside. Its supplementary groups stay: what they let it read outside, a build
    context may need; steps drop them. Raises NotEntered (nothing has changed), or Unmapped: it is inside
    and has no ids yet; `single` maps can still be written with `map_self`.
    """
    global _entered, _outer
    from builder.sandbox import syscalls as sys_
    from builder.sandbox.procfs import Procfs

    ids = (os.geteuid(), os.getegid())
    _looked_up.update({name: trusted(name) for name in TOOLS})
    with Procfs() as proc, _Helper(maps, proc) as helper:
        try:
            sys_.unshare(sys_.CLONE_NEWUSER | sys_.CLONE_NEWNS)
        except OSError as error:
            raise NotEntered(error.errno or 0, os.strerror(error.errno or 0), "unshare") from None
        _outer = ids
        if maps.by == "self":
            _write_single(maps, proc)
        else:
            helper.write()
    _become_root(maps)
    _entered = maps


def map_self(maps: Maps) -> None:
    """After Unmapped: content oneself with one id. Raises OSError."""
    global _entered
    from builder.sandbox.procfs import Procfs

    with Procfs() as proc:
        _write_single(maps, proc)
    _become_root(maps)
    _entered = maps


def _become_root(maps: Maps) -> None:
    if maps.has_gid(0):
        os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _write_single(maps: Maps, proc: Procfs) -> None:
    """setgroups has to be given up before the group's map (user_namespaces(7))."""
    for name, text in (
        ("setgroups", b"deny"),
        ("uid_map", _text(maps.uids)),
        ("gid_map", _text(maps.gids)),
    ):
        try:
            proc.write(f"self/{name}", text)
        except OSError as error:
            if name != "setgroups" or not isinstance(error, FileNotFoundError):
                raise Unmapped(error.errno, f"{name}: {error.strerror}") from None


def _text(lines: tuple[Row, ...]) -> bytes:
    return b"".join(b"%d %d %d\n" % row for row in lines)


class _Helper:
    """A child that stays in the old namespace and writes our maps when told; nothing for `self`."""

    def __init__(self, maps: Maps, proc: Procfs) -> None:
        self._maps = maps
        self._proc = proc
        self._pid = 0
        self._go = self._answer = -1

    def __enter__(self) -> _Helper:
        if self._maps.by != "self":
            wait, self._go = os.pipe2(os.O_CLOEXEC)
            self._answer, tell = os.pipe2(os.O_CLOEXEC)
            target = os.getpid()
            self._pid = os.fork()
            if self._pid == 0:
                os.close(self._go)
                os.close(self._answer)
                _help(self._maps, target, wait, tell, self._proc)
            os.close(wait)
            os.close(tell)
        return self

    def __exit__(self, *exc: object) -> None:
        for fd in (self._go, self._answer):
            if fd >= 0:
                os.close(fd)
        if self._pid:
            os.waitpid(self._pid, 0)

    def write(self) -> None:
        """Have the maps written. Raises Unmapped with what the programs said."""
        os.write(self._go, b"1")
        answer = b""
        while block := os.read(self._answer, 4096):
            answer += block
        if answer != b"ok":
            raise Unmapped(1, answer.decode(errors="replace") or _TIMEOUT_TEXT)


def _help(maps: Maps, target: int, wait: int, tell: int, proc: Procfs) -> None:
    """The helper's whole life; never returns."""
    try:
        if os.read(wait, 1):
            said = _write_for(maps, target, proc) if maps.by == "parent" else _run_programs(maps, target)
            os.write(tell, os.fsencode(said) or b"ok")
    except BaseException as error:  # a forked copy of the builder must not run on, whatever happens
        os.write(tell, f"{type(error).__name__}: {error}".encode(errors="replace"))
    finally:
        os._exit(0)


def _write_for(maps: Maps, target: int, proc: Procfs) -> str:
    for name, text in (("uid_map", _text(maps.uids)), ("gid_map", _text(maps.gids))):
        try:
            proc.write(f"{target}/{name}", text)
        except OSError as error:
            return f"{name}: {error.strerror}"
    return ""


def _run_programs(maps: Maps, target: int) -> str:
    """newuidmap and newgidmap at once: one after the other takes twice as long."""
    read, write = os.pipe2(os.O_CLOEXEC)
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, write, 1),
        (os.POSIX_SPAWN_DUP2, write, 2),
    ]
    pids = []
    for name, lines in (("newuidmap", maps.uids), ("newgidmap", maps.gids)):
        path = trusted(name)
        if not path:
            return f"{name} is not installed"
        words = [path, str(target), *(str(number) for row in lines for number in row)]
        pids.append(os.posix_spawn(path, words, {}, file_actions=streams, setsigmask=[]))
    os.close(write)
    said = b""
    while block := os.read(read, 4096):
        said += block
    failed = [pid for pid in pids if os.waitpid(pid, 0)[1]]
    return (
        " ".join(said.decode(errors="replace").split()) or ("they failed" if failed else "") if failed else ""
    )
