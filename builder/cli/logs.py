"""`pybuild logs`: what a container printed, as it printed it."""

from __future__ import annotations

import os
import re
import sys
import time

import click

from builder.cli import output
from builder.cli.session import Session
from builder.errors import BuildError, UsageError

_DURATION = re.compile(r"-?(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+")
_TERM = re.compile(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)")
_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_SECONDS = re.compile(r"-?\d+(?:\.\d{1,9})?")


@click.command("logs", help="Show what a container printed: its output as output, its errors as errors.")
@click.argument("name", metavar="CONTAINER")
@click.option("-f", "--follow", is_flag=True, help="Go on until it ends.")
@click.option("-t", "--timestamps", is_flag=True, help="Show when each line came.")
@click.option("-n", "--tail", default="all", metavar="COUNT", help="Only the last lines of what is there.")
@click.option(
    "--since",
    default="",
    metavar="TIME",
    help="From then on: RFC 3339, seconds since 1970, or how long ago (10m).",
)
@click.option("--until", default="", metavar="TIME", help="Up to then.")
@click.option("--details", is_flag=True, help="Accepted: there are no further attributes of lines.")
@click.pass_obj  # fmt: skip
def command(
    session: Session,
    name: str,
    follow: bool,
    timestamps: bool,
    tail: str,
    since: str,
    until: str,
    details: bool,
) -> int:
    """Set by the decorator."""
    from builder.container.logs import read
    from builder.container.moments import now
    from builder.container.store import Containers

    first, last = moment("--since", since), moment("--until", until)
    count = lines("--tail", tail)
    containers = Containers(session.root)
    try:
        ident = containers.find(name)
    except BuildError as error:
        return output.report(error, debug=session.debug)

    def more() -> bool:
        return containers.is_watched(ident) and (not last or now() < last)

    began = {"stdout": True, "stderr": True}
    for line in read(
        containers.path(ident, "log"), tail=count, since=first, until=last, follow=more if follow else None
    ):
        head = b""
        if began[line.stream]:
            head = (f"{line.time} ".encode() if timestamps else b"") + (b" " if details else b"")
        began[line.stream] = line.text.endswith(b"\n")
        _write(1 if line.stream == "stdout" else 2, head + line.text)
    return 0


def lines(option: str, value: str) -> int:
    """How many lines; -1 for all. Raises UsageError."""
    if value == "all":
        return -1
    if not re.fullmatch(r"-?\d+", value):
        raise UsageError(f"{option} {value!r} is no number of lines", hint="e.g. 100, or all")
    return max(int(value), -1)


def moment(option: str, value: str) -> str:
    """A moment as people write it, as logs have it; "" for no text. Raises UsageError."""
    from builder.container.moments import rfc3339

    if not value:
        return ""
    if _DURATION.fullmatch(value):
        ago = sum(round(float(number) * _NS[unit]) for number, unit in _TERM.findall(value))
        return rfc3339(max(0, time.time_ns() + (ago if value.startswith("-") else -ago)))
    if _SECONDS.fullmatch(value):
        whole, _, rest = value.partition(".")
        return rfc3339(max(0, int(whole) * 10**9 + int(rest.ljust(9, "0") or 0)))
    return rfc3339(max(0, _date(option, value)))


def _date(option: str, value: str) -> int:
    from datetime import datetime

    head, _, tail = value.partition(".")
    digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
    text = head + tail[len(digits) :]
    if re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d(Z|[+-]\d\d:\d\d)?", text):  # docker's 2026-01-01T10
        text = f"{text[:13]}:00{text[13:]}"
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{option} {value!r} is no moment",
            hint="e.g. 2026-01-31T10:00:00Z, 1769853600 (seconds since 1970), or 10m (ago)",
        ) from None
    return int(found.timestamp()) * 10**9 + int(digits[:9].ljust(9, "0"))


def _write(fd: int, data: bytes) -> None:
    sys.stdout.flush()
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
