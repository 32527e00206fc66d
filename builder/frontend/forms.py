"""What each instruction's value must look like, one function per instruction.

Each takes a `Line` (keyword and flags already split off) and returns the typed instruction, or raises
DockerfileError that names what was expected. Flags and options are allow-lists: anything unknown is an error
(SECURITY.md S38).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from builder.errors import DockerfileError
from builder.frontend import durations
from builder.frontend import instructions as ins
from builder.frontend.broken import broken
from builder.frontend.flags import json_words
from builder.frontend.reader import Heredoc, heredoc_of
from builder.frontend.suggest import hint
from builder.frontend.words import SPACE, WordError
from builder.source import SourceRange

_BLANKS = re.compile(r"[\t\v\f\r ]+")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_SPACES = frozenset(SPACE)

NETWORKS = ("default", "none", "host")
MOUNT_TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
MOUNT_OPTIONS = (
    *("type", "from", "source", "src", "target", "dst", "destination", "readonly", "ro", "readwrite", "rw"),
    *("id", "sharing", "required", "size", "mode", "uid", "gid", "env"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction, taken apart: `rest` is the value without its flags, `code` the whole text."""

    keyword: str
    flags: tuple[str, ...]
    rest: str
    code: str
    at: SourceRange
    escape: str = "\\"
    heredocs: tuple[Heredoc, ...] = ()

    def error(self, message: str, advice: str = "") -> DockerfileError:
        return broken(message, at=self.at, hint=advice)

    def words(self) -> list[str]:
        """The value split at blanks; quotes mean nothing."""
        return _BLANKS.split(self.rest) if self.rest else []

    def json_or_words(self) -> list[str]:
        """The strings of the JSON form, or the words."""
        listed = json_words(self.rest)
        return self.words() if listed is None else listed

    def command(self) -> ins.Command:
        """The command of the JSON form, or the whole value for the shell."""
        listed = json_words(self.rest)
        if listed is None:
            return ins.Command((self.rest,), shell=True)
        return ins.Command(tuple(listed), shell=False)

    def one(self, what: str) -> str:
        """The value, which must not be empty."""
        self.no_flags()
        if not self.rest:
            raise self.error(f"{self.keyword} needs {what}", f"write `{self.keyword} <{what.split()[-1]}>`")
        return self.rest

    def no_flags(self) -> None:
        self.options({})

    def options(self, known: Mapping[str, type]) -> dict[str, str | bool | list[str]]:
        """The flags by name. `known` gives each one's kind: str, bool, or list for those that may repeat."""
        found: dict[str, str | bool | list[str]] = {}
        for flag in self.flags:
            name, equals, value = flag[2:].partition("=")
            kind = known.get(name)
            if kind is None:
                raise self._unknown_flag(name, known)
            if name in found and kind is not list:
                raise self.error(f"--{name} is given twice", "keep one of them")
            if kind is bool:
                found[name] = self._boolean(name, equals, value)
            elif not equals:
                raise self.error(f"--{name} needs a value", f"write --{name}=VALUE")
            elif kind is list:
                found.setdefault(name, []).append(value)  # type: ignore[union-attr]
            else:
                found[name] = value
        return found

    def _unknown_flag(self, name: str, known: Mapping[str, type]) -> DockerfileError:
        choices = ", ".join(f"--{each}" for each in known)
        otherwise = f"{self.keyword} knows {choices}" if known else f"{self.keyword} has no flags"
        return self.error(
            f"{self.keyword} has no flag --{name}",
            hint(f"--{name}", [f"--{each}" for each in known], otherwise),
        )

    def _boolean(self, name: str, equals: str, value: str) -> bool:
        if not equals:
            return True
        if value.lower() not in ("true", "false"):
            raise self.error(f"--{name} is true or false, not `{value}`")
        return value.lower() == "true"


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
        parts = _BLANKS.split(line.rest, maxsplit=1)
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
    kind, _, rest = _BLANKS.sub(" ", line.rest, count=1).partition(" ")
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


def run(line: Line) -> ins.Run:
    options = line.options({"mount": list, "network": str, "security": str, "device": list})
    command = line.command()
    if not any(command.argv):
        raise line.error("RUN needs a command")
    network = str(options.get("network", ""))
    if network and network not in NETWORKS:
        raise line.error(
            f"RUN --network={network} is no network", hint(network, NETWORKS, "it is default, none or host")
        )
    security = str(options.get("security", ""))
    if security not in ("", "sandbox", "insecure"):
        raise line.error(
            f"RUN --security={security} is no security mode",
            hint(security, ("sandbox", "insecure"), "it is sandbox or insecure"),
        )
    mounts = tuple(_mount(line, text) for text in _many(options, "mount"))
    return ins.Run(
        line.code, line.at, command, line.heredocs, mounts, network, security, _many(options, "device")
    )


def _many(options: Mapping[str, str | bool | list[str]], name: str) -> tuple[str, ...]:
    value = options.get(name)
    return tuple(value) if isinstance(value, list) else ()


def _mount(line: Line, text: str) -> ins.Mount:
    """The options of one `--mount`, names checked. Their meaning comes with RUN --mount itself."""
    import csv

    try:
        fields = next(iter(csv.reader([text])), [])
    except csv.Error as error:
        raise line.error(f"--mount={text} cannot be read: {error}") from None
    pairs = []
    for option in fields:
        name, _, value = option.partition("=")
        name = name.lower()
        if name not in MOUNT_OPTIONS:
            raise line.error(
                f"--mount has no option `{name}`",
                hint(name, MOUNT_OPTIONS, f"it knows {', '.join(MOUNT_OPTIONS)}"),
            )
        if name == "type" and value not in MOUNT_TYPES:
            raise line.error(
                f"--mount has no type `{value}`", hint(value, MOUNT_TYPES, f"it is {', '.join(MOUNT_TYPES)}")
            )
        pairs.append((name, value))
    return ins.Mount(tuple(pairs))


_TRANSFER = {"chown": str, "chmod": str, "link": bool, "exclude": list}


def copy(line: Line) -> ins.Copy:
    options = line.options({"from": str, **_TRANSFER, "parents": bool})
    sources, documents, dest = _sources(line)
    return ins.Copy(
        line.code,
        line.at,
        sources,
        dest,
        documents,
        str(options.get("chown", "")),
        str(options.get("chmod", "")),
        bool(options.get("link")),
        _many(options, "exclude"),
        str(options.get("from", "")),
        bool(options.get("parents")),
    )


def add(line: Line) -> ins.Add:
    options = line.options({**_TRANSFER, "checksum": str, "keep-git-dir": bool, "unpack": bool})
    sources, documents, dest = _sources(line)
    keep, unpack = options.get("keep-git-dir"), options.get("unpack")
    return ins.Add(
        line.code,
        line.at,
        sources,
        dest,
        documents,
        str(options.get("chown", "")),
        str(options.get("chmod", "")),
        bool(options.get("link")),
        _many(options, "exclude"),
        str(options.get("checksum", "")),
        None if keep is None else bool(keep),
        None if unpack is None else bool(unpack),
    )


def _sources(line: Line) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    """The paths, the documents and the destination of COPY or ADD."""
    words = line.json_or_words()
    if len(words) < 2:
        missing = "a source and a destination" if not words else f"a destination after `{words[0]}`"
        raise line.error(
            f"{line.keyword} needs {missing}", f"write `{line.keyword} <source>... <destination>`"
        )
    *sources, dest = words
    if "<<" in sources and line.heredocs == ():
        raise line.error("`<<` is no path", "a heredoc has no space after `<<`: write `<<EOF`")
    if _announced(line, dest) is not None:
        raise line.error(f"the destination `{dest}` is a heredoc", "only sources may be heredocs")
    # A name that is used twice gives both files the last body, as in Docker.
    bodies = {each.name: each for each in line.heredocs}
    paths = []
    documents = []
    for word in sources:
        announced = _announced(line, word)
        if announced is None:
            paths.append(word)
        else:
            documents.append(_document(line, announced, bodies))
    return tuple(paths), tuple(documents), dest


def _announced(line: Line, word: str) -> Heredoc | None:
    """The heredoc that `word` stands for, when this line has any."""
    if not line.heredocs or "<<" not in word:
        return None
    try:
        return heredoc_of(word)
    except WordError:
        return None


def _document(line: Line, announced: Heredoc, bodies: Mapping[str, Heredoc]) -> Heredoc:
    body = bodies.get(announced.name)
    if body is None:
        raise line.error(f"the heredoc `{announced.name}` has no body")
    if "/" in announced.name or announced.name in (".", ".."):
        raise line.error(f"the heredoc's name `{announced.name}` cannot be a file's name")
    return Heredoc(announced.name, body.content, announced.expand, announced.strip_tabs)


def quoted_words(text: str, escape: str) -> list[str]:
    """`text` split at white space that is neither quoted nor escaped; quotes and escapes stay."""
    words: list[str] = []
    parts: list[str] = []
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char in _SPACES and not quote:
            if parts:
                words.append("".join(parts))
                parts.clear()
            continue
        if char == escape and quote != "'":
            if at == len(text):
                break
            char += text[at]
            at += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        parts.append(char)
    if parts:
        words.append("".join(parts))
    return words
