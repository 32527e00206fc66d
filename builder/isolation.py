"""The rootless ladder: how much of a sandbox this process can have here, and the step onto its rung.

    1  root                             the kernel's overlay, every id
    2  user namespace, lent ids         newuidmap and /etc/subuid; the kernel's overlay (`userxattr`)
    3  user namespace, lent ids         fuse-overlayfs, or plain directories where overlay is refused
    4  user namespace, one id           owners other than root cannot be had (a typical pod of CI)
    5  no user namespace                COPY and ADD alone; RUN only as root with `--isolation=chroot`

`enter` chooses and moves the process there, before it has threads and before real work. `current` is where it
stands, for all that comes later. `examine` only looks, tries everything in a child, and gives all of it as
data for `pybuild doctor`.

A library caller who wants to run steps as an ordinary user calls `enter` first: a process that is not the
command's own is never moved without being asked.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from builder.errors import SandboxError, UsageError
from builder.facts import Check, Facts, nearest
from builder.sandbox import userns
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.sandbox.userns import Maps

Asked = Literal["auto", "strict", "rootless", "chroot"]
MODES = ("auto", "strict", "rootless", "chroot")
"""Values of `--isolation`: the best there is; nothing weaker than a full sandbox; a user namespace also for
root; no namespaces at all."""

Storage = Literal["auto", "overlay", "fuse", "copy"]
STORAGES = ("auto", "overlay", "fuse", "copy")
STORAGE_VARIABLE = "PYBUILD_SNAPSHOTTER"
"""The environment's way to have another storage than the best."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung of the ladder. `name` goes after "isolation: "."""

    number: int
    name: str
    needs: str


RUNGS = (
    Rung(1, "root", "root with CAP_SYS_ADMIN"),
    Rung(2, "user namespace with lent ids", "newuidmap, lines in /etc/subuid and /etc/subgid, overlay"),
    Rung(
        3, "user namespace with lent ids, without overlay", "newuidmap, lines in /etc/subuid and /etc/subgid"
    ),
    Rung(4, "user namespace with one id", "user namespaces"),
    Rung(5, "no user namespace", "nothing; RUN needs root and --isolation=chroot"),
)


@dataclass(frozen=True, slots=True)
class Isolation:
    """Where a process stands. `checks` are what was looked at on the way, the good and the bad; `notes` say
    what is weaker than a full sandbox, a sentence each.

    `storage` is how steps see merged layers (`auto`: found out when the first step wants to). `maps` are the
    ids of its namespace, None without one of its own.
    """

    rung: Rung
    asked: Asked = "auto"
    storage: Storage = "overlay"
    maps: Maps | None = None
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def userxattr(self) -> bool:
        """Whether overlay's marks are `user.` attributes: everywhere but for the system's root."""
        return self.rung.number > 1

    @property
    def unpacks(self) -> bool:
        """Whether layers can be unpacked: files can be given their owners, or these be noted."""
        return self.runs or (os.geteuid() == 0 and userns.may_chroot())

    @property
    def notes_owners(self) -> bool:
        """Whether owners other than root are noted beside the files, as there is one id for all."""
        return self.maps is not None and self.maps.single

    @property
    def chroot(self) -> bool:
        """Whether steps run without namespaces."""
        return self.asked == "chroot"

    @property
    def runs(self) -> bool:
        """Whether RUN can be had."""
        return self.rung.number < 5 or self.chroot

    @property
    def private_network(self) -> bool:
        """Whether the host's side of a private network can be made with root's means."""
        return self.rung.number == 1

    @property
    def stamp(self) -> str:
        """What the files of a snapshot depend on: other ids or other marks cannot read them."""
        return f" {self.maps}" if self.maps else ("" if self.rung.number == 1 else f" uid {os.geteuid()}")

    def processes(self) -> int:
        """How many processes and threads each step may have by default, where a cgroup has to see to that; 0
        where something cheaper does, or nothing is run (SECURITY.md S95). For a process that stands here.
        """
        from builder.sandbox.bounds import most_by_cgroup

        return most_by_cgroup(own_pids=not self.chroot) if self.runs else 0

    def blocking(self) -> tuple[Check, ...]:
        """What keeps the process from a better rung, the most important first."""
        here = self.rung.number
        failed = [each for each in self.checks if not each.ok and here > 1 and each.rung <= here]
        return tuple(sorted(failed, key=lambda each: -each.rung))

    def describe(self) -> list[str]:
        """Lines for people: the rung, every check, what is weaker, and what would mend it."""
        lines = [f"isolation: {self.rung.name} (rung {self.rung.number} of 5), snapshots: {self.storage}"]
        for each in self.checks:
            lines.append(f"  {'ok' if each.ok else 'no'}  {each.found}")
            if each.mend and not each.ok:
                lines.append(f"      {each.mend}")
        return [*lines, *(f"  weaker: {note}" for note in self.notes)]


_current: Isolation | None = None


def current() -> Isolation:
    """Where this process stands. One that never entered is root, or has no sandbox."""
    if _current is not None:
        return _current
    if userns.is_privileged():
        return Isolation(RUNGS[0], storage="auto")
    hint = Check(
        "enter",
        False,
        "this process has not entered a user namespace",
        "builder.isolation.enter(), before threads",
    )
    return Isolation(RUNGS[4], checks=(hint,))


def enter(asked: str = "auto", root: str = "", *, storage: str = "") -> Isolation:
    """Move this process, of one thread, to the best rung that `asked` allows; the store lies in `root`.

    Once per process: later calls give what the first one found. Raises UsageError for an unknown mode,
    SandboxError when what was asked for cannot be had, with what blocks it and the command that mends it.
    """
    global _current
    if _current is None:
        mode = _mode(asked)
        found = _stored(_entered(mode, Facts()), root, storage)
        _refuse(found)
        _current = found
    return _current


def examine(asked: str = "auto", root: str = "") -> Isolation:
    """What `enter` would choose and every check that leads there, with nothing changed: all that has to be
    tried is tried in a child, in a directory next to the store. Needs a process of one thread.
    """
    from builder.sandbox.probing import fuse_refused, try_all

    mode, facts = _mode(asked), Facts()
    folder = _writable(root)
    checks = facts.checks()
    maps = None if _stays_root(mode) else _maps(facts)
    tried = try_all(maps, folder) if maps or _stays_root(mode) else None
    if maps is not None and tried is not None and tried.maps:
        checks = (*checks, Check("maps", False, f"the id maps were refused: {tried.maps}", rung=4))
        maps = userns.single(facts.uid, facts.gid)
        tried = try_all(maps, folder)
    if tried is None or tried.unshare or tried.privilege:
        failed = _unshare_check(tried.unshare if tried else "", facts) if tried else None
        if tried is not None and tried.privilege:
            failed = Check("capabilities", False, f"they do not count in the namespace: {tried.privilege}")
        return Isolation(RUNGS[4], mode, "copy", None, (*checks, *([failed] if failed else [])))
    number = 1 if maps is None else 4 if maps.single else 2
    fuse = fuse_refused() or ("" if userns.trusted("fuse-overlayfs") else "fuse-overlayfs is not installed")
    kind: Storage = "overlay" if not tried.overlay else "copy" if fuse or maps is None else "fuse"
    if number == 2 and kind != "overlay":
        number = 3
    more = (_fuse_check(fuse),) if tried.overlay else ()
    checks = (*checks, _overlay_check(tried.overlay, folder or root), *more, _proc_check(tried.proc))
    notes = (PROC_NOTE,) if tried.proc else ()
    return Isolation(RUNGS[number - 1], mode, kind, maps, checks, notes)


# ---- inside ----

PROC_NOTE = "isolation is weaker: /proc is the one outside, which shows the processes there"
PROC_MEND = "docker run --security-opt systempaths=unconfined, procMount: Unmasked in Kubernetes"


def _mode(asked: str) -> Asked:
    for mode in MODES:
        if asked == mode:
            return mode  # type: ignore[return-value]
    raise UsageError(f"--isolation {asked}: it is one of {', '.join(MODES)}")


def _stays_root(mode: Asked) -> bool:
    return mode in ("auto", "strict") and userns.is_privileged()


def _maps(facts: Facts) -> Maps | None:
    """The ids to ask for; None when there is no sense in trying."""
    if not all(check.ok for check in (facts.limit(), facts.debian_switch(), facts.apparmor())):
        return None
    if userns.may_map_everything():
        return userns.everything()
    lent = facts.programs().ok and facts.no_new_privs().ok and bool(facts.name)
    uids, gids = facts.lent("subuid"), facts.lent("subgid")
    if not lent or not uids or not gids:
        return userns.single(facts.uid, facts.gid)
    return userns.Maps(userns.rows(facts.uid, uids), userns.rows(facts.gid, gids), "helpers")


def _entered(mode: Asked, facts: Facts) -> Isolation:
    """The rung, by moving onto it; its storage is not known yet."""
    if mode == "chroot":
        return Isolation(RUNGS[4], mode, notes=("steps are kept in a directory by chroot alone",))
    if _stays_root(mode):
        return Isolation(RUNGS[0], mode)
    maps = _maps(facts)
    if maps is None:
        return Isolation(RUNGS[4], mode, checks=facts.checks())
    failed: tuple[Check, ...] = ()
    checks = facts.checks()  # inside, the system's files no longer look like root's
    try:
        userns.enter(maps)
    except userns.NotEntered as error:
        return Isolation(RUNGS[4], mode, checks=(*checks, _unshare_check(error.strerror or "", facts)))
    except userns.Unmapped as error:
        failed = (Check("maps", False, f"the id maps were refused: {error.strerror}", rung=4),)
        maps = userns.single(facts.uid, facts.gid)
        userns.map_self(maps)
    number = 4 if maps.single else 2
    return Isolation(RUNGS[number - 1], mode, maps=maps, checks=(*checks, *failed))


def _stored(found: Isolation, root: str, wanted: str) -> Isolation:
    """`found` with the storage that works below `root`."""
    wanted = wanted or os.environ.get(STORAGE_VARIABLE, "") or "auto"
    if wanted not in STORAGES:
        raise UsageError(f"{STORAGE_VARIABLE}={wanted}: it is one of {', '.join(STORAGES)}")
    if found.rung.number == 5:
        return replace(found, storage="copy")
    if found.rung.number == 1 and wanted == "auto":
        return replace(found, storage="auto")  # a cached build makes no directory, and need not know
    kind, refused = _storage(found, root, wanted)
    if kind == "fuse":
        from builder.sandbox.fuse import share_mounts

        share_mounts()
    if kind == "overlay":
        return found
    rung = RUNGS[2] if found.rung.number == 2 else found.rung
    return replace(found, rung=rung, storage=kind, checks=(*found.checks, _overlay_check(refused, root)))


def _storage(found: Isolation, root: str, wanted: str) -> tuple[Storage, str]:
    """The storage and why the kernel's overlay is not it."""
    from builder.sandbox.probing import fuse_refused, overlay_refused

    refused = f"{STORAGE_VARIABLE} asks for {wanted}"
    if wanted in ("auto", "overlay"):
        folder = _writable(root)
        refused = overlay_refused(folder, userxattr=found.userxattr) if folder else ""
        if not refused:
            return "overlay", ""
        if wanted == "overlay":
            raise SandboxError(f"the kernel mounts no overlay in {folder}: {refused}", hint=_OVERLAY_MEND)
    fuse = fuse_refused() or ("" if userns.trusted("fuse-overlayfs") else "fuse-overlayfs is not installed")
    if wanted == "fuse" and fuse:
        raise SandboxError(f"fuse-overlayfs cannot be used: {fuse}", hint=_fuse_check(fuse).mend)
    return ("copy" if fuse or wanted == "copy" else "fuse"), refused


def _writable(root: str) -> str:
    """A directory on the file system of the store that can be written to; "" if there is none."""
    folder = nearest(root or os.getcwd())
    inner = os.path.join(folder, "snapshots")
    folder = inner if os.path.isdir(inner) else folder
    return folder if os.access(folder, os.W_OK | os.X_OK) else ""


def _refuse(found: Isolation) -> None:
    """Raise SandboxError where what was asked for is not to be had."""
    if found.asked == "chroot" and not userns.may_chroot():
        raise SandboxError(
            "--isolation=chroot needs root: CAP_SYS_CHROOT and CAP_CHOWN",
            hint="leave it out: a user namespace isolates better, and COPY and ADD need none",
        )
    if found.asked == "rootless" and found.rung.number == 5:
        text, mend = explain(found)
        raise SandboxError(f"--isolation=rootless: {text}", hint=mend)


def need_runs(found: Isolation) -> None:
    """Raise SandboxError where no program can be run, with the reason and what mends it (S104)."""
    if found.runs:
        return
    text, mend = explain(found)
    others = "COPY, ADD and WORKDIR work without; as root, --isolation=chroot runs programs all the same"
    raise SandboxError(f"programs cannot be run: {text}", hint=f"{mend}\n      {others}" if mend else others)


def explain(found: Isolation) -> tuple[str, str]:
    """Why RUN cannot be had on rung 5, in one sentence, and the command that mends it."""
    for each in found.blocking():
        if each.rung == 5:
            return f"no user namespace can be had: {each.found}", each.mend
    return "no user namespace can be had here", ""


_OVERLAY_MEND = "have the store on ext4, xfs, btrfs or tmpfs (--root), with Linux 5.11 or newer for users"


def unmapped(found: Isolation, what: str) -> tuple[str, str]:
    """An error's text and hint for `what` (a user, an owner), whose id does not exist in the namespace."""
    maps = found.maps
    lines = maps.uids if maps else ()
    last = max((first + count - 1 for first, _, count in lines), default=0)
    have = "0 alone" if last == 0 else f"0 to {last}"
    text = f"{what} has no id in this user namespace, which has {have}"
    if last == 0:
        mends = [each.mend for each in found.blocking() if each.mend and each.rung == 4]
        return text, "; ".join(mends) or "have more ids lent to you (subuid(5))"
    return text, "have more ids lent to you: lines in /etc/subuid and /etc/subgid (subuid(5))"


def _overlay_check(refused: str, folder: str) -> Check:
    if not refused:
        return Check("overlay", True, "the kernel mounts an overlay here", rung=3)
    return Check("overlay", False, f"no overlay can be mounted in {folder}: {refused}", _OVERLAY_MEND, 3)


def _fuse_check(refused: str) -> Check:
    if not refused:
        return Check("fuse", True, "fuse-overlayfs can be used where overlay is refused", rung=3)
    mend = "sudo apt-get install fuse-overlayfs" if "installed" in refused else "sudo chmod 666 /dev/fuse"
    return Check("fuse", False, refused, mend, 3)


def _proc_check(refused: str) -> Check:
    if not refused:
        return Check("proc", True, "a new /proc can be mounted")
    return Check(
        "proc", False, f"no new /proc can be mounted: {refused}; the one here is masked", PROC_MEND, 2
    )


def _unshare_check(said: str, facts: Facts) -> Check:
    """Whose refusal it was: of the things that can refuse unshare(2), those in files were looked at."""
    if said == os.strerror(errno.ENOSPC):
        mend = "sudo sysctl -w user.max_user_namespaces=15000"
        return Check("unshare", False, "unshare(2): the limit of user namespaces is reached", mend)
    if facts.filtered():
        found = f"unshare(2): {said}: a filter of system calls is on this process, a container's most likely"
        mend = (
            "docker run --security-opt seccomp=unconfined   # Kubernetes: seccompProfile: {type: Unconfined}"
        )
        return Check("seccomp", False, found, mend)
    return Check("unshare", False, f"unshare(2): {said}; in a chroot no user namespace can be made")
