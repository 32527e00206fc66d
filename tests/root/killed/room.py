"""One disturbed build in a room of its own: `unshare ... room.py PLAN`; PLAN and the findings are JSON.

The room is a new pid, mount and network namespace with an uplink that leads nowhere and fresh /tmp and /run:
all that is in it afterwards was left by the build, whatever else the machine is doing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

PATIENCE_S = 60.0
SETTLE_S = 60.0
STARTED_BYTES = 1 << 20


def main() -> None:
    """Disturb a build, look around, build again, look around."""
    with open(sys.argv[1], encoding="utf-8") as file:
        plan = json.load(file)
    prepare()
    before = inventory()
    found = disturbed(plan)
    found["left"] = left(before)
    found["store"] = None
    if plan["again"]:
        found["again"] = undisturbed(plan)
        found["left_again"] = left(before)
        found["store"] = store(plan["root"])
        found["outputs"] = outputs(plan["out"])
    json.dump(found, sys.stdout)


def prepare() -> None:
    """An uplink, and nothing of the machine's temporary files."""
    for command in (
        "mount -t tmpfs tmpfs /tmp",
        "mount -t tmpfs tmpfs /run",
        "ip link set lo up",
        "ip link add uplink type veth peer name beyond",
        "ip address add 198.51.100.2/24 dev uplink",
        "ip link set uplink up",
        "ip route add default via 198.51.100.1",
    ):
        subprocess.run(command.split(), check=True)


def disturbed(plan: dict[str, object]) -> dict[str, object]:
    """Start the build, wait for the moment, strike; how it ended and how long that took."""
    build = Build(plan["build"])
    build.wait_until(moment(plan, build))
    victim = build.launcher() if plan["victim"] == "launcher" else build.process.pid
    start = time.monotonic()
    if plan["signal"]:
        strike = os.killpg if plan["victim"] == "group" else os.kill
        strike(victim, plan["signal"])
    code = build.wait()
    return {"code": code, "seconds": time.monotonic() - start, "said": build.said()}


def undisturbed(plan: dict[str, object]) -> dict[str, object]:
    """The same build again, to its end."""
    build = Build(plan["next"])
    code = build.wait()
    return {"code": code, "said": build.said()}


class Build:
    """A running pybuild and what it says."""

    def __init__(self, argv: object) -> None:
        self.process = subprocess.Popen(
            argv,  # type: ignore[call-overload]
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.append(line.decode(errors="replace"))

    def said(self) -> str:
        return "".join(self._lines)

    def wait(self) -> int:
        """The exit code; -1000 when it has to be ended because it hangs."""
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            code = -1000
        self._reader.join(10.0)
        return code

    def wait_until(self, come: Callable[[], bool]) -> None:
        """Return when `come` says so, or the build has ended."""
        deadline = time.monotonic() + PATIENCE_S
        while not come() and self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)

    def launcher(self) -> int:
        """The process that makes the sandboxes."""
        for pid, command in processes().items():
            if "builder.sandbox.launcher" in command and parent(pid) == self.process.pid:
                return pid
        raise SystemExit(f"no launcher below {self.process.pid}: {processes()}")


def moment(plan: dict[str, object], build: Build) -> Callable[[], bool]:
    """When to strike: once the build said `said`, and a file in `growing` has its first MiB."""
    said, growing = str(plan["said"]), str(plan["growing"])

    def come() -> bool:
        return (not said or said in build.said()) and (not growing or has_grown(growing))

    return come if said or growing else lambda: build.process.poll() is not None


def has_grown(directory: str) -> bool:
    """Whether something is being written there."""
    try:
        with os.scandir(directory) as entries:
            return any(entry.stat().st_size >= STARTED_BYTES for entry in entries)
    except FileNotFoundError:
        return False


def inventory() -> dict[str, list[str]]:
    """Everything a build could leave in the room."""
    return {
        "mounts": mounts(),
        "processes": sorted(processes().values()),
        "namespaces": namespaces(),
        "interfaces": command_lines("ip", "-oneline", "link"),
        "rules": command_lines("nft", "list", "ruleset"),
        "forwarding": settings(),
        "cgroups": cgroups(),
        "temporary files": [path for top in ("/tmp", "/run") for path in files(top)],
    }


def left(before: dict[str, list[str]]) -> dict[str, list[str]]:
    """What differs from before, once the kernel had a while to tidy up: + is new, - is gone."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        reap()
        now = inventory()
        changed = {
            kind: [f"+ {each}" for each in now[kind] if each not in before[kind]]
            + [f"- {each}" for each in before[kind] if each not in now[kind] and not elsewhere(kind, each)]
            for kind in before
        }
        changed = {kind: lines for kind, lines in changed.items() if lines}
        if not changed or time.monotonic() > deadline:
            return changed
        time.sleep(0.05)


def elsewhere(kind: str, what: str) -> bool:
    """Whether what is gone can have been taken away from outside: somebody else's control group, or a mount
    whose mount point was removed there.
    """
    return kind == "cgroups" or (kind == "mounts" and not os.path.lexists(mount_point(what)))


def mount_point(shown: str) -> str:
    """Of a line of `mounts`. There, some characters are octal numbers (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), shown.split(" ")[1])


def reap() -> None:
    """Orphans become ours, the room's first process: those that ended are no longer there."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def mounts() -> list[str]:
    """Mount points with what is mounted there."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        fields = [line.rstrip().split(" ") for line in file]
    return [" ".join(each[3:5] + each[each.index("-") + 1 :]) for each in fields]


def processes() -> dict[int, str]:
    """All processes of the room but its first."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and name != "1":
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    found[int(name)] = file.read().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
    return found


def parent(pid: int) -> int:
    """The parent's id."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def namespaces() -> list[str]:
    """Namespaces that some process of the room is in or holds open."""
    found = set()
    for pid in (1, *processes()):
        for directory in (f"/proc/{pid}/ns", f"/proc/{pid}/fd"):
            try:
                names = os.listdir(directory)
            except OSError:
                continue
            for name in names:
                try:
                    target = os.readlink(f"{directory}/{name}")
                except OSError:
                    continue
                if directory.endswith("ns") or target.startswith(("net:", "mnt:", "user:", "pid:")):
                    found.add(target)
    return sorted(found)


def command_lines(*argv: str) -> list[str]:
    """What a command prints, by lines."""
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()


def settings() -> list[str]:
    """Which interfaces forward packets."""
    found = []
    for family in ("ipv4", "ipv6"):
        top = f"/proc/sys/net/{family}/conf"
        for name in sorted(os.listdir(top)):
            # The kernel may take an interface away between its listing and here: it is gone, as it should.
            with suppress(FileNotFoundError), open(f"{top}/{name}/forwarding", encoding="ascii") as file:
                found.append(f"{family} {name} {file.read().strip()}")
    return found


def cgroups() -> list[str]:
    """Control groups that carry our name."""
    return [each for each, _, _ in os.walk("/sys/fs/cgroup") if "pybuild" in os.path.basename(each)]


def files(top: str) -> list[str]:
    """All paths below a directory."""
    return sorted(
        os.path.join(directory, name) for directory, names, found in os.walk(top) for name in names + found
    )


def store(root: str) -> dict[str, object]:
    """What a store holds, without the names that are chosen by chance."""
    listed = {name: sorted(os.listdir(os.path.join(root, name))) for name in ("leases", "containers")}
    hidden = {f"snapshots/{name}": below(root, f"snapshots/{name}") for name in (".live", ".trash")}
    snapshots = [each for each in os.listdir(os.path.join(root, "snapshots")) if each[0] != "."]
    return {
        **listed,
        **hidden,
        "tmp": below(root, "tmp"),
        "quarantine": below(root, "quarantine"),
        "blobs": below(root, "blobs/sha256"),
        "snapshots": sorted(each.partition("-")[0] for each in snapshots),
    }


def below(root: str, name: str) -> list[str]:
    """The visible names in a directory of the store; none when it is not there."""
    try:
        return sorted(each for each in os.listdir(os.path.join(root, name)) if each[0] != ".")
    except FileNotFoundError:
        return []


def outputs(directory: str) -> dict[str, str]:
    """What was written for the user, by name."""
    found = {}
    for name in sorted(os.listdir(directory)):
        with open(os.path.join(directory, name), "rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


if __name__ == "__main__":
    main()
