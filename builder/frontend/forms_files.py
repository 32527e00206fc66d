"""What RUN, COPY and ADD must look like: the instructions that make layers, with their flags and heredocs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from builder.frontend import instructions as ins
from builder.frontend.forms_device import device
from builder.frontend.forms_mount import mount
from builder.frontend.line import Line
from builder.frontend.reader import Heredoc, heredoc_of
from builder.frontend.suggest import hint
from builder.frontend.words import WordError

if TYPE_CHECKING:
    from builder.source import SourceRange

Options: TypeAlias = Mapping[str, str | bool | list[str]]
NETWORKS = ("default", "none", "host")


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
    mounts = tuple(mount(line.at, text) for text in _many(options, "mount"))
    devices = tuple(device(line.at, text) for text in _many(options, "device"))
    return ins.Run(line.code, line.at, command, line.heredocs, mounts, network, security, devices)


def _many(options: Options, name: str) -> tuple[str, ...]:
    value = options.get(name)
    return tuple(value) if isinstance(value, list) else ()


_Shared: TypeAlias = (
    "tuple[str, SourceRange, tuple[str, ...], str, tuple[Heredoc, ...], str, str, bool, tuple[str, ...]]"
)
_TRANSFER = {"chown": str, "chmod": str, "link": bool, "exclude": list}


def copy(line: Line) -> ins.Copy:
    options = line.options({"from": str, **_TRANSFER, "parents": bool, "if-exists": bool})
    return ins.Copy(
        *_shared(line, options),
        str(options.get("from", "")),
        bool(options.get("parents")),
        bool(options.get("if-exists")),
    )


def add(line: Line) -> ins.Add:
    options = line.options({**_TRANSFER, "checksum": str, "keep-git-dir": bool, "unpack": bool})
    keep, unpack = options.get("keep-git-dir"), options.get("unpack")
    return ins.Add(
        *_shared(line, options),
        str(options.get("checksum", "")),
        None if keep is None else bool(keep),
        None if unpack is None else bool(unpack),
    )


def _shared(line: Line, options: Options) -> _Shared:
    """What COPY and ADD have in common: the fields of `ins.Transfer`."""
    sources, documents, dest = _sources(line)
    chown, chmod = str(options.get("chown", "")), str(options.get("chmod", ""))
    link, exclude = bool(options.get("link")), _many(options, "exclude")
    return line.code, line.at, sources, dest, documents, chown, chmod, link, exclude


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
