"""What a step of ours meets beside what `docker run` gives: one program, run in both, compared line by line.

    sudo .venv/bin/python tests/interop/conformance/listing.py                          # to the terminal
    sudo .venv/bin/python tests/interop/conformance/listing.py --write docs/conformance.md

Needed: uid 0, docker.io, gcc. A private dockerd is started and stopped (judges/dockerd.py).
Exit code 1 when a line differs and nothing here says why.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from judges.dockerd import Docker, private_docker
from judges.pybuild import Pybuild

from builder.sandbox import abi

Lines = dict[str, dict[str, str]]
"""Values by kind and key, as the probe printed them."""

_TABLES = {"x86_64": abi.X86_64, "aarch64": abi.AARCH64}
SAME, TIGHTER, LOOSER_, OTHER = "same", "tighter", "looser", "other"

_YOUNGER = "younger than this Docker's profile; it does what older calls do that are allowed"
LOOSER = {
    ("call", "personality *"): "-1 asks which personality there is; the kernel reads the lower half only",
    (
        "call",
        "name_to_handle_at *",
    ): "as in newer Docker: what opens a handle is refused",
    (
        "call",
        "process_vm_*",
    ): "as in newer Docker since Linux 4.8: only what may be traced can be read",
    ("call", "pkey_*"): "as in newer Docker: a process's own memory",
    ("call", "cachestat *"): _YOUNGER,
    ("call", "fchmodat2 *"): _YOUNGER,
    ("call", "map_shadow_stack *"): _YOUNGER,
    ("call", "futex_*"): _YOUNGER,
    ("call", "mseal *"): _YOUNGER,
    ("call", "*xattrat *"): _YOUNGER,
}
"""Lines where a step may do more than in Docker, and why that is meant. Keys may hold wildcards."""

_CGROUPS = "a step sees no control groups; limits are set from outside"
_MASKS = "covered by read-only files of our own; Docker covers with /dev/null or a tmpfs"
NOTES = {
    ("status", "Seccomp_filters"): "one filter each; a builder in a container adds that container's",
    ("mount", "/"): "`nodev`: nodes that an image or a step makes are kept, and open nothing",
    ("mount", "/dev"): "the six nodes are the host's, each bound by itself",
    ("mount", "/dev/*"): "the host's nodes, each bound by itself: `/dev` is `nodev`",
    ("mount", "/proc/*"): _MASKS,
    ("mount", "/sys/fs/cgroup*"): _CGROUPS,
    ("mount", "/sys/*"): _MASKS,
    ("mount", "/etc/*"): "read-only, and no hostname file, as BuildKit has them in a step",
    ("dev", "/dev/core"): "a link to /proc/kcore, which is covered; Docker makes it where there is one",
    ("dev", "/dev/console"): "only where there is a terminal",
    ("path", "/etc/*"): "read-only, and no hostname file, as BuildKit; no resolver where there is no network",
    ("path", "/proc/*"): _MASKS,
    ("path", "/sys/fs/cgroup*"): _CGROUPS,
    ("limit", "core"): "no core files: they would end up in a layer",
    ("limit", "n*"): "at most 1,048,576, and no more than the builder may have",
    ("call", "socket *"): "a family of which the kernel would know nothing either",
    ("call", "io_uring_*"): "rings make calls that no filter sees; newer Docker refuses them too",
    ("call", "no call *"): "ENOSYS for what this list has never heard of, as an older kernel would answer",
    ("call", "*"): "refused by both, each in its way",
    ("argument", "socket *"): "families beyond UNIX, IPv4, IPv6, netlink and packet answer EAFNOSUPPORT",
    ("argument", "x32 *"): "ENOSYS, as from a kernel built without that ABI",
}
"""Why other lines differ. Keys may hold wildcards."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One line that is not the same on both sides. `verdict` is TIGHTER, LOOSER_ or OTHER, seen from ours."""

    kind: str
    key: str
    ours: str
    theirs: str
    verdict: str

    @property
    def explained(self) -> str:
        """Why it is so; "" when nobody has said."""
        table = LOOSER if self.verdict == LOOSER_ else NOTES
        for (kind, pattern), text in table.items():
            if kind == self.kind and fnmatchcase(self.key, pattern):
                return text
        return ""


@dataclass(frozen=True, slots=True)
class Row:
    """Differences as the page shows them."""

    kind: str
    key: str
    ours: str
    theirs: str
    verdict: str
    explained: str


def probe(folder: str) -> str:
    """The program, compiled."""
    target = os.path.join(folder, "probe")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "probe.c")
    subprocess.run(["gcc", "-static", "-O1", "-o", target, source], check=True)
    return target


def collect(folder: str, docker: Docker) -> tuple[Lines, Lines]:
    """What it prints in a step of ours and in a container of Docker's, each without a network."""
    context = os.path.join(folder, "context")
    os.mkdir(context)
    probe(context)
    with open(os.path.join(context, "Dockerfile"), "w", encoding="ascii") as file:
        file.write('FROM scratch\nCOPY probe /probe\nRUN ["/probe"]\n')
    pybuild = Pybuild(os.path.join(folder, "store"))
    done = pybuild.run("build", "--network", "none", "--progress", "plain", context)
    ours = [line.split(" ", 2)[-1] for line in done.stderr.decode().splitlines()]
    with open(os.path.join(context, "Dockerfile"), "w", encoding="ascii") as file:
        file.write('FROM scratch\nCOPY probe /probe\nENTRYPOINT ["/probe"]\n')
    docker.run("build", "--quiet", "-t", "conformance", context)
    theirs = docker.run("run", "--rm", "--network", "none", "conformance").stdout.decode().splitlines()
    return parsed(ours), parsed(theirs)


def parsed(lines: list[str]) -> Lines:
    """The probe's lines among others, calls by their names."""
    names = {number: name for name, number in abi.numbers(_TABLES[platform.machine()]).items()}
    found: Lines = {}
    for line in lines:
        parts = line.split("\t")
        if len(parts) == 3 and parts[0] in _JUDGES:
            key = parts[1]
            if parts[0] == "call":
                key = f"{names.get(int(key), 'no call')} ({key})"
            found.setdefault(parts[0], {})[key] = parts[2]
    return found


def differences(ours: Lines, theirs: Lines) -> Iterator[Difference]:
    """All lines that are not the same."""
    for kind, judge in _JUDGES.items():
        mine, others = ours.get(kind, {}), theirs.get(kind, {})
        for key in {**mine, **others}:
            one, other = mine.get(key, ""), others.get(key, "")
            if one != other and (verdict := judge(one, other)) != SAME:
                yield Difference(kind, key, one, other, verdict)


def _mount(ours: str, theirs: str) -> str:
    """More flags that forbid are tighter; a mount that only one side has is judged by what it shows."""
    if not ours or not theirs:
        return OTHER
    forbidding = {"ro", "nosuid", "nodev", "noexec"}
    mine, others = (forbidding & set(each.split()[1].split(",")) for each in (ours, theirs))
    if others - mine:
        return LOOSER_
    return TIGHTER if mine - others else SAME


def _status(ours: str, theirs: str) -> str:
    if len(ours) == len(theirs) == 16:  # a set of capabilities
        mine, others = int(ours, 16), int(theirs, 16)
        return LOOSER_ if mine & ~others else TIGHTER
    if ours.isdigit() and theirs.isdigit():
        return LOOSER_ if int(ours) < int(theirs) else TIGHTER
    return OTHER


def _device(ours: str, theirs: str) -> str:
    if not ours:
        return TIGHTER
    if not theirs:
        return OTHER if ours == "link" or not ours.startswith(("c", "b")) else LOOSER_
    mode, other = (int(each.split()[-1], 8) if each != "link" else 0 for each in (ours, theirs))
    if ours.split()[:2] != theirs.split()[:2]:
        return OTHER
    return LOOSER_ if mode & ~other & 0o777 else TIGHTER


_READS, _WRITES = ("absent", "closed", "empty", "readable"), ("-", "closed", "read-only", "writable")


def _path(ours: str, theirs: str) -> str:
    """More to read or to write is looser; empty and closed, closed and read-only tell the same."""
    mine, other = (ours or "absent -").split(), (theirs or "absent -").split()
    reads = [each == "readable" for each in (mine[0], other[0])]
    writes = [each == "writable" for each in (mine[1], other[1])]
    if reads[0] > reads[1] or writes[0] > writes[1]:
        return LOOSER_
    return TIGHTER if reads[0] < reads[1] or writes[0] < writes[1] else SAME


def _limit(ours: str, theirs: str) -> str:
    mine, other = ([_number(word) for word in each.split()] for each in (ours, theirs))
    return LOOSER_ if any(one > two for one, two in zip(mine, other, strict=True)) else TIGHTER


def _number(word: str) -> float:
    return float("inf") if word == "-1" else float(word)


def _call(ours: str, theirs: str) -> str:
    if ours == "reached":
        return LOOSER_
    return TIGHTER if theirs == "reached" else OTHER


_JUDGES: dict[str, Callable[[str, str], str]] = {
    "status": _status,
    "mount": _mount,
    "dev": _device,
    "path": _path,
    "limit": _limit,
    "call": _call,
    "argument": _call,
}
_TITLES = {
    "status": "/proc/self/status",
    "mount": "Mounts",
    "dev": "/dev",
    "path": "Paths in /proc, /sys and /etc: what they give, whether they can be opened for writing",
    "limit": "Resource limits (soft, hard; -1 is none)",
    "call": "System calls by number, all arguments -1",
    "argument": "System calls that are judged by an argument",
}


def rendered(ours: Lines, theirs: Lines, versions: str) -> str:
    """The listing as a page."""
    found = list(differences(ours, theirs))
    page = [_HEAD.format(versions=versions)]
    for kind, title in _TITLES.items():
        page.append(f"\n## {title}\n")
        keys = {*ours.get(kind, {}), *theirs.get(kind, {})}
        rows = [each for each in found if each.kind == kind]
        page.append(f"{len(keys)} compared, {len(keys) - len(rows)} alike.\n")
        if rows:
            page.append("| | a step | docker run | verdict | why |\n|---|---|---|---|---|")
            page += [_row(each) for each in _joined(rows)]
    page.append("\n## All lines of a step\n\nWhat is alike on both sides has no second value.\n\n```")
    for kind in _TITLES:
        if kind not in ("call", "argument"):
            for key, value in ours.get(kind, {}).items():
                other = theirs.get(kind, {}).get(key, "not there")
                page.append(f"{kind} {key}: {value}" + ("" if other == value else f"  [{other}]"))
    page.append("```")
    return "\n".join(page) + "\n"


def _joined(rows: list[Difference]) -> Iterator[Row]:
    """Lines with the same answers for the same reason become one row."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for each in rows:
        groups.setdefault((each.kind, each.ours, each.theirs, each.verdict, each.explained), []).append(
            each.key
        )
    for (kind, ours, theirs, verdict, why), keys in groups.items():
        shown = ", ".join(keys) if len(keys) < 40 else f"{keys[0]} to {keys[-1]}"
        yield Row(kind, shown, ours, theirs, verdict, why)


def _row(each: Row) -> str:
    return f"| {each.key} | {each.ours or '-'} | {each.theirs or '-'} | {each.verdict} | {each.explained} |"


_HEAD = """\
# What a step may do, beside Docker

Made by `tests/interop/conformance/listing.py --write`: one static program runs in a RUN step and in
`docker run`, both without a network, and prints what it meets. {versions}.

*Tighter* and *looser* say how a step compares with Docker's container; *other* is neither. A test keeps every
difference explained. System calls are made with -1 for every argument: *reached* means that the kernel looked
at the arguments, whatever it then said."""


def versions(docker: Docker) -> str:
    """Of both sides and the kernel, as one sentence."""
    shown = docker.run("version", "--format", "{{.Server.Version}}").stdout.decode().strip()
    return f"Docker {shown}, Linux {platform.release().split('-')[0]}, {platform.machine()}"


def main() -> int:
    """Compare and show, or write the page; 1 when a difference is not explained."""
    parser = argparse.ArgumentParser(description="Compare a step of ours with docker run.")
    parser.add_argument("--write", metavar="FILE", help="write the page there")
    options = parser.parse_args()
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="pybuild-conformance-", dir=fast) as folder:
        with private_docker(os.path.join(folder, "docker")) as docker:
            ours, theirs = collect(folder, docker)
            page = rendered(ours, theirs, versions(docker))
    if options.write:
        with open(options.write, "w", encoding="utf-8") as file:
            file.write(page)
    else:
        sys.stdout.write(page)
    bad = [each for each in differences(ours, theirs) if not each.explained]
    for each in bad:
        print(f"not explained: {each}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
