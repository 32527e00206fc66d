"""Options for what steps and containers may use, as docker names them; `--resource` is buildx's."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from builder.cli import values
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.limiting import Limiting
    from builder.sandbox.spec import Limits

F = TypeVar("F", bound=Callable[..., Any])

_LEAST_MEMORY = 6 << 20
_PERIOD_US = 100_000
_LIST = r"\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*"
_IO = {"read-bps": "rbps", "write-bps": "wbps", "read-iops": "riops", "write-iops": "wiops"}
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}

_LIMITS = (
    (("-m", "--memory"), "SIZE", "Memory, at least 6m."),
    (("--memory-swap",), "SIZE", "Memory and swap together (default: twice the memory; -1: any swap)."),
    (("-c", "--cpu-shares"), "N", "Weight for processor time, 2 to 262144 (usual: 1024)."),
    (("--cpu-period",), "MICROSECONDS", "Period of --cpu-quota (default: 100000)."),
    (("--cpu-quota",), "MICROSECONDS", "Processor time in each period."),
    (("--cpus",), "N", "Processors' worth of time, such as 1.5."),
    (("--cpuset-cpus",), "LIST", "Processors to run on, such as 0-2,7."),
    (("--cpuset-mems",), "LIST", "Memory nodes to use."),
    (("--pids-limit",), "N", "Processes and threads (-1: as many as without it)."),
    (("--blkio-weight",), "N", "Weight for block devices, 10 to 1000."),
)
_RATES = tuple(
    ((f"--device-{name}",), "DEVICE:RATE", f"{text} per second; repeatable.")
    for name, text in (
        ("read-bps", "Bytes read of a device"),
        ("write-bps", "Bytes written to a device"),
        ("read-iops", "Reads of a device"),
        ("write-iops", "Writes to a device"),
    )
)
_KEYS = frozenset(names[-1][2:] for names, _, _ in (*_LIMITS, *_RATES))


def options(*, build: bool) -> Callable[[F], F]:
    """Decorates a command with them; a build has `--resource` and times besides."""

    def decorate(command: F) -> F:
        declared = [
            *(click.option(*names, metavar=metavar, help=text) for names, metavar, text in _LIMITS),
            *(click.option(*names, metavar=what, help=text, multiple=True) for names, what, text in _RATES),
            _PARENT,
            _BEST_EFFORT,
        ]
        for option in reversed([_RESOURCE, *declared, *_TIMES] if build else declared):
            command = option(command)
        return command

    return decorate


_RESOURCE = click.option(
    "--resource",
    multiple=True,
    metavar="[scope=step,]NAME=VALUE,...",
    help="Limits of all steps together, or of each: memory=1g,cpus=2,...; repeatable.",
)
_PARENT = click.option(
    "--cgroup-parent",
    default="",
    metavar="CGROUP",
    help="Have the cgroups below this one, in every hierarchy.",
)
_BEST_EFFORT = click.option(
    "--best-effort", is_flag=True, help="Warn of a limit that cannot be enforced, and go on without it."
)
_TIMES = (
    click.option("--timeout", default="", metavar="DURATION", help="End a build that takes longer: 1h30m."),
    click.option("--step-timeout", default="", metavar="DURATION", help="End a RUN that takes longer."),
)


def enter_scope(flags: dict[str, Any]) -> None:
    """Go where the limits that are asked for are possible (`builder.cli.scope`), if any is."""
    if _plain(flags) or flags.get("resource"):
        from builder.cli import scope

        scope.enter_scope()


def build(flags: dict[str, Any]) -> Limiting | None:
    """What a build's options ask for; None for nothing."""
    given: dict[str, dict[str, list[str]]] = {"build": _plain(flags), "step": {}}
    for text in flags["resource"]:
        scope, found = _resource(text)
        for key, more in found.items():
            given[scope].setdefault(key, []).extend(more)
    return _limiting(given, flags, duration("--step-timeout", flags["step_timeout"]))


def container(flags: dict[str, Any]) -> Limiting | None:
    """What the options for a container ask for; None for nothing."""
    return _limiting({"build": {}, "step": _plain(flags)}, flags, 0.0)


def duration(option: str, text: str) -> float:
    """Seconds: `90s`, `1h30m`, or a number of seconds; 0 for no text."""
    if not text:
        return 0.0
    terms = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    whole = "".join(number + unit for number, unit in terms)
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        seconds = float(text)
    elif whole == text:
        seconds = sum(float(number) * _UNITS[unit] for number, unit in terms)
    else:
        raise UsageError(f"{option} {text!r} is no duration", hint="e.g. 90s or 1h30m")
    if seconds <= 0:
        raise UsageError(f"{option} {text!r}: nothing can be done in no time", hint="e.g. 90s or 1h30m")
    return seconds


def _plain(flags: dict[str, Any]) -> dict[str, list[str]]:
    found = {}
    for key in _KEYS:
        given = flags[key.replace("-", "_")]
        if given is not None and given != ():
            found[key] = list(given) if isinstance(given, tuple) else [given]
    return found


def _resource(text: str) -> tuple[str, dict[str, list[str]]]:
    """Fields as buildx reads them: comma-separated, quoted where a value has a comma."""
    import csv

    scope = "build"
    found: dict[str, list[str]] = {}
    for field in next(csv.reader([text]), []):
        key, equals, value = field.partition("=")
        key = "pids-limit" if key == "pids" else key
        if key == "scope" and value in ("build", "step"):
            scope = value
        elif equals and key in _KEYS:
            found.setdefault(key, []).append(value)
        else:
            hint = f"there are {', '.join(sorted(_KEYS))}, and scope=build|step"
            if re.fullmatch(r"[\d-]+", field):
                hint = "a value with commas is quoted: --resource '\"cpuset-cpus=0,1\",memory=1g'"
            raise UsageError(f"--resource {text!r}: {field!r} is no NAME=VALUE that is known", hint=hint)
    return scope, found


def _limiting(
    given: dict[str, dict[str, list[str]]], flags: dict[str, Any], wall_s: float
) -> Limiting | None:
    parent = _parent(flags["cgroup_parent"])
    if not any(given.values()) and not wall_s and not parent:
        return None
    from dataclasses import replace

    from builder.limiting import Limiting

    return Limiting(
        _limits(given["build"]),
        replace(_limits(given["step"]), wall_s=wall_s),
        parent,
        flags["best_effort"],
    )


def _limits(given: dict[str, list[str]]) -> Limits:
    from builder.sandbox.spec import Limits

    last = {key: texts[-1] for key, texts in given.items()}
    memory = values.size("--memory", last.get("memory", "0"))
    if 0 < memory < _LEAST_MEMORY:
        raise UsageError(f"--memory {last['memory']}: less than 6m is not enough to start a program")
    period, quota = _processor_time(last)
    return Limits(
        memory=memory,
        swap=_swap(last, memory),
        cpu_shares=_number(last, "cpu-shares", 2, 262144),
        cpu_period=period,
        cpu_quota=quota,
        cpus=_list(last, "cpuset-cpus"),
        mems=_list(last, "cpuset-mems"),
        pids=0 if last.get("pids-limit") in ("-1", "0") else _number(last, "pids-limit", 1, 1 << 22),
        io_weight=_number(last, "blkio-weight", 10, 1000),
        io=tuple(_rate(name, text) for name in _IO for text in given.get(f"device-{name}", ())),
    )


def _swap(last: dict[str, str], memory: int) -> int:
    text = last.get("memory-swap", "0")
    swap = -1 if text == "-1" else values.size("--memory-swap", text)
    if swap and not memory:
        raise UsageError("--memory-swap is memory and swap together: it needs --memory")
    if 0 < swap < memory:
        raise UsageError(f"--memory-swap {text} is memory and swap together: it cannot be below --memory")
    return swap


def _processor_time(last: dict[str, str]) -> tuple[int, int]:
    period = _number(last, "cpu-period", 1000, 1_000_000)
    quota = 0 if last.get("cpu-quota") in ("-1", "0") else _number(last, "cpu-quota", 1000, 1 << 40)
    if "cpus" not in last:
        return period, quota
    if period or quota:
        raise UsageError("--cpus is a period and a quota: it excludes --cpu-period and --cpu-quota")
    most = os.cpu_count() or 1
    try:
        cpus = float(last["cpus"])
    except ValueError:
        cpus = -1.0
    if not 0.01 <= cpus <= most:
        raise UsageError(f"--cpus {last['cpus']!r}: there can be 0.01 to {most} here")
    return _PERIOD_US, round(cpus * _PERIOD_US)


def _number(last: dict[str, str], key: str, least: int, most: int) -> int:
    """0 when it was not given, or given as 0."""
    text = last.get(key, "0")
    if not re.fullmatch(r"\d{1,19}", text) or not (text == "0" or least <= int(text) <= most):
        raise UsageError(f"--{key} {text!r}: a whole number of {least} to {most} is expected")
    return int(text)


def _list(last: dict[str, str], key: str) -> str:
    text = last.get(key, "")
    if text and not re.fullmatch(_LIST, text):
        raise UsageError(f"--{key} {text!r} is no list of numbers", hint="e.g. 0-2,7")
    return text


def _rate(name: str, text: str) -> tuple[str, str, int]:
    """`/dev/sda:1mb` as the device's numbers, the kind, the rate."""
    option = f"--device-{name}"
    path, _, rate = text.rpartition(":")
    if not path:
        raise UsageError(f"{option} {text!r} is no DEVICE:RATE", hint="e.g. /dev/sda:10m")
    try:
        found = os.stat(path)
    except OSError as error:
        raise UsageError(f"{option} {text!r}: {path}: {error.strerror}") from None
    if not stat.S_ISBLK(found.st_mode):
        raise UsageError(f"{option} {text!r}: {path} is no block device")
    number = values.size(option, rate) if name.endswith("bps") else _number({name: rate}, name, 1, 1 << 32)
    if number <= 0:
        raise UsageError(f"{option} {text!r}: the rate is at least 1")
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}", _IO[name], number


def _parent(text: str) -> str:
    if ".." in text.split("/") or "\0" in text or text.strip("/") == "." or (text and not text.strip("/")):
        raise UsageError(f"--cgroup-parent {text!r} is no path of a cgroup", hint="e.g. /ci/builds")
    return text.strip("/")
