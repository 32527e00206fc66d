"""What the instructions that shape stages and config must look like, one function per instruction.

Each takes a `Line` (keyword and flags already split off) and returns the typed instruction, or raises
DockerfileError that names what was expected. Flags and options are allow-lists: anything unknown is an error
(SECURITY.md S38).
"""

from __future__ import annotations

import re

from builder.frontend import durations, extensions
from builder.frontend import instructions as ins
from builder.frontend.flags import json_words
from builder.frontend.line import BLANKS, Line, quoted_words
from builder.frontend.words import SPACE

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")


def from_(line: Line) -> ins.From:
    words = line.words()
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
        raise line.error(
            "FROM needs an image, or `image AS name`",
            "for example `FROM debian:stable-slim AS build`",
        )
    name = words[2].lower() if len(words) == 3 else ""
    if name and not _STAGE_NAME.fullmatch(name):
        raise line.error(
            f"`{words[2]}` cannot name a stage",
            "a name begins with a letter and holds letters, digits, `-`, `_` and `.`",
        )
    options = line.options({"platform": str})
    return ins.From(line.code, line.at, words[0], name, str(options.get("platform", "")))


def arg(line: Line) -> ins.Arg:
    line.no_flags()
    words = quoted_words(line.rest, line.escape)
    if not words:
        raise line.error("ARG needs a name", "write `ARG NAME` or `ARG NAME=default`")
    args: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise line.error(f"ARG `{word}` has no name", "write `ARG NAME=default`")
        args.append((name, value if equals else None))
    return ins.Arg(line.code, line.at, tuple(args))


def env(line: Line) -> ins.Env:
    if any(flag.startswith("--from-file") for flag in line.flags):
        raise line.error("ENV --from-file is not known here", extensions.advice(extensions.ENV_FILE))
    return ins.Env(line.code, line.at, _pairs(line))


def label(line: Line) -> ins.Label:
    return ins.Label(line.code, line.at, _pairs(line))


def _pairs(line: Line) -> ins.Pairs:
    """`key=value ...`, or the old `key value` where the value is the rest of the line."""
    line.no_flags()
    words = quoted_words(line.rest, line.escape)
    form = f"write `{line.keyword} NAME=value`"
    if not words:
        raise line.error(f"{line.keyword} needs a name and a value", form)
    if "=" not in words[0]:
        parts = BLANKS.split(line.rest, maxsplit=1)
        if len(parts) < 2:
            raise line.error(f"{line.keyword} `{words[0]}` has no value", form)
        return ((parts[0], parts[1]),)
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise line.error(
                f"{line.keyword}: `{word}` has no `=`", 'a value with spaces needs quotes: NAME="a b"'
            )
        if not name:
            raise line.error(f"{line.keyword}: `{word}` has no name before its `=`", form)
        pairs.append((name, value))
    return tuple(pairs)


def maintainer(line: Line) -> ins.Maintainer:
    return ins.Maintainer(line.code, line.at, line.one("a name"))


def expose(line: Line) -> ins.Expose:
    line.one("a port")
    return ins.Expose(line.code, line.at, tuple(sorted(line.words())))


def volume(line: Line) -> ins.Volume:
    line.no_flags()
    paths = line.json_or_words()
    if not paths:
        raise line.error("VOLUME needs a path", 'write `VOLUME /data` or `VOLUME ["/data"]`')
    return ins.Volume(line.code, line.at, tuple(paths))


def user(line: Line) -> ins.User:
    return ins.User(line.code, line.at, line.one("a user"))


def workdir(line: Line) -> ins.Workdir:
    return ins.Workdir(line.code, line.at, line.one("a path"))


def stopsignal(line: Line) -> ins.StopSignal:
    return ins.StopSignal(line.code, line.at, line.one("a signal"))


def shell(line: Line) -> ins.Shell:
    line.no_flags()
    words = json_words(line.rest)
    if not words:
        raise line.error("SHELL needs the JSON form", 'write `SHELL ["/bin/bash", "-c"]`, with double quotes')
    return ins.Shell(line.code, line.at, tuple(words))


def cmd(line: Line) -> ins.Cmd:
    line.no_flags()
    return ins.Cmd(line.code, line.at, line.command())


def entrypoint(line: Line) -> ins.Entrypoint:
    line.no_flags()
    return ins.Entrypoint(line.code, line.at, line.command())


def healthcheck(line: Line) -> ins.Healthcheck:
    kind, _, rest = BLANKS.sub(" ", line.rest, count=1).partition(" ")
    rest = rest.lstrip(SPACE)
    if kind.upper() == "NONE":
        if rest:
            raise line.error("HEALTHCHECK NONE takes no arguments")
        return ins.Healthcheck(line.code, line.at, ("NONE",))
    if kind.upper() != "CMD":
        raise line.error(
            f"HEALTHCHECK `{kind}` is neither CMD nor NONE" if kind else "HEALTHCHECK needs CMD or NONE",
            "write `HEALTHCHECK [--interval=30s] CMD <command>` or `HEALTHCHECK NONE`",
        )
    return _health_command(line, rest)


def _health_command(line: Line, rest: str) -> ins.Healthcheck:
    times = ("interval", "timeout", "start-period", "start-interval")
    options = line.options({**dict.fromkeys(times, str), "retries": str})
    listed = json_words(rest)
    words = ([rest] if rest else []) if listed is None else listed
    if not words:
        raise line.error("HEALTHCHECK CMD needs a command")
    interval, timeout, period, start_interval = (_duration(line, name, options.get(name)) for name in times)
    return ins.Healthcheck(
        line.code,
        line.at,
        ("CMD-SHELL" if listed is None else "CMD", *words),
        interval,
        timeout,
        period,
        start_interval,
        _retries(line, str(options.get("retries", "0"))),
    )


def _duration(line: Line, name: str, text: object) -> int:
    if not text:
        return 0
    value = durations.parse(str(text))
    if value is None:
        raise line.error(f"--{name}={text} is no duration", "write it like 30s, 1m30s or 500ms")
    if value and value < durations.MILLISECOND:
        raise line.error(f"--{name}={text} is shorter than 1ms")
    return value


def _retries(line: Line, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise line.error(f"--retries={text} is no count", "write a number, like --retries=3")
    return int(text)


def onbuild(line: Line) -> ins.Onbuild:
    line.no_flags()
    keyword = line.words()[0].upper() if line.rest else ""
    if not keyword:
        raise line.error("ONBUILD needs an instruction", "for example `ONBUILD COPY . /app`")
    if keyword in ("ONBUILD", "FROM", "MAINTAINER"):
        raise line.error(f"{keyword} cannot be an ONBUILD trigger")
    documents = "".join(f"\n{each.content}{each.name}" for each in line.heredocs)
    return ins.Onbuild(line.code, line.at, line.rest + documents)
