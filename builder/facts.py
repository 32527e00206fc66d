"""What the machine says about user namespaces, as checks that can be printed: read from files, nothing tried.

Each check names what it found, whether that is fine, and the exact command that mends it. They are read
from below `proc` and `etc`, so that any machine can be told of in a test.
"""

from __future__ import annotations

import os
import stat

from builder.sandbox import userns
from oci.data import dataclass

IDS_WANTED = 65536
_FIRST_ID = 100000


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `name` is a short word for it, `found` a sentence without a full stop,
    `mend` a command to type (or a setting to make), empty where there is nothing to mend.

    `rung` is where a process ends up without it (`builder.isolation`).
    """

    name: str
    ok: bool
    found: str
    mend: str = ""
    rung: int = 5


class Facts:
    """The checks that cost no more than reading a few small files; each is made when asked for."""

    def __init__(self, proc: str = "/proc", etc: str = "/etc", uid: int | None = None) -> None:
        self.proc = proc
        self.etc = etc
        self.uid = os.geteuid() if uid is None else uid
        self.gid = os.getegid()
        self.name = _login_name(self.uid)

    def checks(self) -> tuple[Check, ...]:
        """All of them, in the order in which they stand in the way."""
        return (
            self.limit(),
            self.debian_switch(),
            self.apparmor(),
            self.programs(),
            self.no_new_privs(),
            self.ranges("subuid"),
            self.ranges("subgid"),
        )

    def limit(self) -> Check:
        """user.max_user_namespaces (namespaces(7)); 0 forbids them (ENOSPC)."""
        value = self._number("sys/user/max_user_namespaces")
        name = "user.max_user_namespaces"
        if value is None:
            return Check(name, False, "this kernel has no user namespaces (CONFIG_USER_NS)")
        mend = "" if value else f"sudo sysctl -w {name}=15000"
        return Check(name, bool(value), f"{name} is {value}", mend)

    def debian_switch(self) -> Check:
        """kernel.unprivileged_userns_clone, of older Debian kernels."""
        value = self._number("sys/kernel/unprivileged_userns_clone")
        name = "kernel.unprivileged_userns_clone"
        if value is None:
            return Check(name, True, "this kernel has no such switch")
        mend = "" if value else f"sudo sysctl -w {name}=1"
        return Check(name, bool(value), f"{name} is {value}", mend)

    def apparmor(self) -> Check:
        """Ubuntu since 23.10 takes the capabilities away in namespaces of programs without a profile."""
        name = "kernel.apparmor_restrict_unprivileged_userns"
        if not self._number("sys/kernel/apparmor_restrict_unprivileged_userns"):
            return Check(name, True, "AppArmor does not restrict user namespaces")
        label = self._text("self/attr/apparmor/current") or self._text("self/attr/current")
        if label.strip() not in ("", "unconfined"):
            return Check(name, True, f"{name} is 1, and this program has the profile {label.strip()}")
        return Check(
            name,
            False,
            f"{name} is 1: capabilities are taken away in user namespaces",
            f"sudo sysctl -w {name}=0   # or give this program a profile with the rule `userns,`",
        )

    def programs(self) -> Check:
        """newuidmap and newgidmap, by absolute path from directories that only root writes to."""
        for each in ("newuidmap", "newgidmap"):
            path = userns.trusted(each)
            if not path:
                found = f"{each} is not in {', '.join(userns.PROGRAMS)}"
                mend = "sudo apt-get install uidmap   # Fedora: shadow-utils, Alpine: shadow-uidmap"
                return Check("newuidmap", False, found, mend, 4)
            if not userns.gives_ids(path):
                found = f"{path} is neither setuid root nor has it a capability that counts"
                return Check("newuidmap", False, found, f"sudo chmod u+s {path}", 4)
        return Check("newuidmap", True, "newuidmap and newgidmap are there", rung=4)

    def no_new_privs(self) -> Check:
        """With no_new_privs set, setuid programs have no power (Kubernetes: allowPrivilegeEscalation)."""
        ok = self._status("NoNewPrivs") != "1"
        found = (
            "this process may start setuid programs" if ok else "no_new_privs is set: newuidmap has no power"
        )
        mend = "" if ok else "allowPrivilegeEscalation: true   # Docker: leave out no-new-privileges"
        return Check("no_new_privs", ok, found, mend, 4)

    def ranges(self, file: str) -> Check:
        """The ids that /etc/subuid or /etc/subgid lend to this user."""
        path = f"{self.etc}/{file}"
        total = sum(count for _, count in self.lent(file))
        who = self.name or str(self.uid)
        if total >= IDS_WANTED:
            return Check(file, True, f"{path} lends {total} ids to {who}", rung=4)
        first = self._free(file)
        option = "--add-subuids" if file == "subuid" else "--add-subgids"
        mend = f"sudo usermod {option} {first}-{first + IDS_WANTED - 1} {who}"
        found = f"{path} lends {total or 'no'} ids to {who}" + (f", fewer than {IDS_WANTED}" if total else "")
        return Check(file, False, found, mend, 4)

    def lent(self, file: str) -> list[tuple[int, int]]:
        """The ranges (first id, count) of this user in /etc/subuid or /etc/subgid."""
        return userns.subordinate(self._bytes(f"{self.etc}/{file}"), self.name, self.uid)

    def filtered(self) -> bool:
        """Whether a filter of system calls is on this process (a container's, most likely)."""
        return self._status("Seccomp") == "2"

    def _free(self, file: str) -> int:
        """The first id after all that are lent already."""
        ends = [_FIRST_ID]
        for line in self._bytes(f"{self.etc}/{file}").splitlines():
            words = line.split(b":")
            if len(words) == 3 and words[1].isdigit() and words[2].strip().isdigit():
                ends.append(int(words[1]) + int(words[2]))
        return max(ends)

    def _status(self, field: str) -> str:
        for line in self._text("self/status").splitlines():
            if line.startswith(f"{field}:"):
                return line.split(":", 1)[1].strip()
        return ""

    def _number(self, name: str) -> int | None:
        text = self._text(name).strip()
        return int(text) if text.isdigit() else None

    def _text(self, name: str) -> str:
        return self._bytes(f"{self.proc}/{name}").decode(errors="replace")

    @staticmethod
    def _bytes(path: str) -> bytes:
        try:
            with open(path, "rb") as file:
                return file.read(1 << 20)
        except OSError:
            return b""


def _login_name(uid: int) -> str:
    """The login name, "" for a uid without one: newuidmap then does nothing for it."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def nearest(path: str) -> str:
    """The nearest directory at or above `path` that exists."""
    path = os.path.abspath(path)
    while not _is_directory(path):
        path = os.path.dirname(path)
    return path


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False
