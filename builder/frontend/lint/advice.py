"""Checks of our own, for habits that cost time, size or safety. Silent unless asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from builder.frontend import instructions as ins
from builder.frontend.bases import Resolved
from builder.frontend.extensions import SHELL_STRICT
from builder.frontend.lint.rules import Found
from builder.frontend.lint.scene import Moment
from builder.frontend.lower_run import is_alone
from oci.errors import InvalidReference
from oci.reference import Reference

# Patterns are text, compiled when first used: most builds never ask for these checks.
_SET_E = r"(?m)^[ \t]*set[ \t]+(?:-\w*e|.*\s-\w*e|.*-o\s+errexit)"
_CONTINUED = r"(?:\\|&&|\|\||\|)[ \t]*\n"
_APT_INSTALL = r"\bapt(?:-get)?\s+(?:-\S+\s+)*install\b"
_APT_LISTS = "/var/lib/apt"
_INSTALL = (
    r"(?m)\b(?:npm (?:ci|install|i)\b|pnpm (?:install|i)\b|yarn(?: install)?(?: --|\s*$|\s*&&)"
    r"|pip3? install (?:\S+ ){0,8}-r\b|poetry install\b|uv sync\b|go mod download\b|cargo fetch\b"
    r"|bundle install\b|composer install\b|mvn \S*dependency:|dotnet restore\b|mix deps\.get\b)"
)
_WEB = r"https?://"
_GIT = r"https?://[^#?]+\.git(?:[#?/]|$)"
_MOST_SCRIPT = 65_536
"""What is read of a script, in characters: no person writes more."""


def heredoc_ignores_errors(moment: Moment) -> Iterator[Found]:
    """`RUN <<EOF` with several commands and nothing that ends it at the first failure."""
    line = moment.line
    if not isinstance(line, ins.Run) or not line.heredocs or not is_alone(line.command.argv[0]):
        return
    if SHELL_STRICT in moment.shared.options.enable:
        return
    script = line.heredocs[0].text[:_MOST_SCRIPT]
    first = script.partition("\n")[0]
    exits = re.search(_SET_E, script) or _has_e(moment.shell)
    if first.startswith("#!"):
        words = first[2:].split()
        exits = exits or not words or not words[0].endswith("sh") or _has_e(tuple(words))
    if not exits and _commands(script) > 1:
        message = "Only the last command's failure fails this RUN: begin the heredoc with `set -e`"
        yield Found(message, line.at)


def _has_e(words: tuple[str, ...]) -> bool:
    """Whether a shell's options hold -e."""
    return any(re.fullmatch(r"-\w*e\w*", word) for word in words[1:])


def _commands(script: str) -> int:
    lines = re.sub(_CONTINUED, " ", script).split("\n")
    return sum(bool(text := each.strip()) and not text.startswith("#") for each in lines)


def apt_lists_kept(moment: Moment) -> Iterator[Found]:
    line = moment.line
    if not isinstance(line, ins.Run) or _mounted(line, _APT_LISTS):
        return
    script = _script(line)
    if re.search(_APT_INSTALL, script) and _APT_LISTS not in script:
        advice = "end with `rm -rf /var/lib/apt/lists/*`, or mount a cache there"
        yield Found(f"apt's package lists stay in the layer: {advice}", line.at)


def _script(line: ins.Run) -> str:
    return "\n".join((" ".join(line.command.argv), *(each.text for each in line.heredocs)))[:_MOST_SCRIPT]


def _mounted(line: ins.Run, path: str) -> bool:
    """Whether something is mounted over or below `path`, so that it is not part of the layer."""
    targets = (value for mount in line.mounts for name, value in mount.options if name == "target")
    return any(target.startswith(path) for target in targets)


def copy_all_before_install(moment: Moment) -> Iterator[Found]:
    line = moment.line
    if not isinstance(line, ins.Run) or not moment.copies:
        return
    match = re.search(_INSTALL, _script(line))
    if match:
        command = match[0].strip().removesuffix("&&").removesuffix("--").strip()
        advice = "copy the files that name the dependencies first"
        message = f"Any change in the context makes `{command}` run again: {advice}"
        yield Found(message, moment.copies[-1].at)


def add_without_checksum(moment: Moment) -> Iterator[Found]:
    line = moment.line
    if not isinstance(line, ins.Add) or line.checksum:
        return
    for source in line.sources:
        url = moment.expand(source)
        if re.match(_WEB, url) and not re.match(_GIT, url):
            yield Found(f"ADD {url} has no --checksum: what it brings may change unseen", line.at)


def unpinned_base(base: Resolved) -> Iterator[Found]:
    try:
        reference = Reference.parse(base.name)
    except InvalidReference:
        return
    if reference.digest is None and reference.tag in ("", None, "latest"):
        message = f"Base image {base.name} is whatever `latest` means that day: name a version or a digest"
        yield Found(message, base.at)
