"""`pybuild top`: the processes of a container, as `ps` shows them on the host."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import click

from builder import roster
from builder.cli import container_filters, text
from builder.cli.session import Session
from builder.errors import UsageError
from oci.data import dataclass

_USUAL = ("user", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
_WIDTH = 20
_GAP = 3


@dataclass(frozen=True, slots=True)
class _Process:
    """What /proc says of a process (proc(5)): `ticks` of processor time, `began` in seconds since 1970."""

    pid: int
    ppid: int
    state: str
    uid: int
    gid: int
    levels: int
    tty: int
    ticks: int
    began: float
    nice: int
    rss_kb: int
    size_kb: int
    name: str
    args: str


@click.command(
    "top",
    help="List the processes of a running container, with their ids on this machine.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("name", metavar="CONTAINER")
@click.argument("options", nargs=-1, metavar="[-o FIELD,...]", type=click.UNPROCESSED)
@click.pass_obj
def command(session: Session, name: str, options: tuple[str, ...]) -> None:
    """Set by the decorator."""
    fields = _wanted(options)
    each = container_filters.one_of(roster.listed(session.root), name)
    if not each.alive:
        raise UsageError(
            f"the container {each.name} does not run", hint=f"pybuild start {each.name} starts it"
        )
    rows = [[_FIELDS[field][1](process) for field in fields] for process in members(int(each.state["pid"]))]
    sys.stdout.write(_columns([[_title(field, options) for field in fields], *rows]))


def members(pid: int) -> list[_Process]:
    """The processes of the container whose first process is `pid`, in the order of their ids: its children,
    and those that were put into it (`exec`), which have its parent.
    """
    found = {each.pid: each for each in map(_process, _pids()) if each is not None}
    if pid not in found:
        return []
    first = found[pid]

    def within(process: _Process) -> bool:
        return process.pid == pid or process.ppid in inside

    inside = {pid} | {
        each.pid for each in found.values() if each.ppid == first.ppid and each.levels >= first.levels > 1
    }
    while more := {each.pid for each in found.values() if within(each)} - inside:
        inside |= more
    return [found[one] for one in sorted(inside)]


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _process(pid: int) -> _Process | None:
    with suppress(OSError, ValueError, KeyError, IndexError):
        with open(f"/proc/{pid}/stat", "rb") as file:
            head, _, tail = file.read().decode(errors="replace").rpartition(")")
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = [line.partition(":") for line in file.read().decode(errors="replace").splitlines()]
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            args = file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        status = {key: value.split() for key, _, value in lines}
        stat, name = tail.split(), head.partition("(")[2]
        ticks = os.sysconf("SC_CLK_TCK")
        return _Process(
            pid=pid,
            ppid=int(stat[1]),
            state=stat[0],
            uid=int(status["Uid"][1]),
            gid=int(status["Gid"][1]),
            levels=len(status["NSpid"]),
            tty=int(stat[4]),
            ticks=int(stat[11]) + int(stat[12]),
            began=_booted() + int(stat[19]) / ticks,
            nice=int(stat[16]),
            rss_kb=int(stat[21]) * os.sysconf("SC_PAGESIZE") // 1024,
            size_kb=int(stat[20]) // 1024,
            name=name,
            args=args or f"[{name}]",
        )
    return None


def _booted() -> float:
    with open("/proc/uptime", encoding="ascii") as file:
        return time.time() - float(file.read().split()[0])


def _wanted(options: Sequence[str]) -> tuple[str, ...]:
    """The fields that ps's options name. Raises UsageError for options beyond `-ef` and `-o`."""
    words = list(options)
    fields: list[str] = []
    while words:
        word = words.pop(0)
        match = re.fullmatch(r"(-e?o|o|--format=?)(.*)", word)
        if match:
            listed = match[2] or (words.pop(0) if words else "")
            fields += [each.partition("=")[0] for each in re.split(r"[,\s]+", listed) if each]
        elif word not in ("-ef", "-e", "-f", "-A", "ax", "-eF"):
            raise UsageError(f"top takes of ps's options -ef and -o FIELD,... and not {word!r}")
    for each in fields:
        if each not in _FIELDS:
            raise UsageError(f"top: no field {each!r}", hint=f"there are {', '.join(_FIELDS)}")
    return tuple(fields) or _USUAL


def _title(field: str, options: Sequence[str]) -> str:
    return "UID" if field == "user" and not any("o" in each for each in options) else _FIELDS[field][0]


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Docker's columns for this command: twenty wide at least, the last free."""
    cells = [[text.safe(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(_WIDTH, max(map(len, column)) + _GAP) for column in zip(*cells, strict=True)]
    widths[-1] = 0
    return "".join(
        "".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) + "\n" for row in cells
    )


def _user(process: _Process) -> str:
    import pwd

    try:
        return pwd.getpwuid(process.uid).pw_name
    except KeyError:
        return str(process.uid)


def _seconds(process: _Process) -> int:
    return process.ticks // os.sysconf("SC_CLK_TCK")


def _cpu(process: _Process) -> float:
    lived = time.time() - process.began
    return 100 * process.ticks / os.sysconf("SC_CLK_TCK") / lived if lived > 1 else 0.0


def _stime(process: _Process) -> str:
    form = "%H:%M" if time.time() - process.began < 86400 else "%b%d"
    return time.strftime(form, time.localtime(process.began))


def _tty(process: _Process) -> str:
    """The terminal by its device's number: pts are the majors 136 to 143."""
    major, minor = os.major(process.tty), os.minor(process.tty)
    if 136 <= major <= 143:
        return f"pts/{(major - 136) * 256 + minor}"
    return f"tty{minor}" if major == 4 else "?"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _elapsed(process: _Process) -> str:
    seconds = max(0, int(time.time() - process.began))
    days, clock = divmod(seconds, 86400)
    whole = f"{days}-{_clock(clock)}" if days else _clock(clock)
    return whole.removeprefix("00:")


_FIELDS: Mapping[str, tuple[str, Callable[[_Process], str]]] = {
    "user": ("USER", _user),
    "uid": ("UID", lambda each: str(each.uid)),
    "gid": ("GID", lambda each: str(each.gid)),
    "pid": ("PID", lambda each: str(each.pid)),
    "ppid": ("PPID", lambda each: str(each.ppid)),
    "c": ("C", lambda each: str(int(_cpu(each)))),
    "pcpu": ("%CPU", lambda each: f"{_cpu(each):.1f}"),
    "stime": ("STIME", _stime),
    "etime": ("ELAPSED", _elapsed),
    "tty": ("TTY", _tty),
    "time": ("TIME", lambda each: _clock(_seconds(each))),
    "stat": ("STAT", lambda each: each.state),
    "ni": ("NI", lambda each: str(each.nice)),
    "rss": ("RSS", lambda each: str(each.rss_kb)),
    "vsz": ("VSZ", lambda each: str(each.size_kb)),
    "comm": ("COMMAND", lambda each: each.name),
    "args": ("COMMAND", lambda each: each.args),
    "cmd": ("CMD", lambda each: each.args),
}
