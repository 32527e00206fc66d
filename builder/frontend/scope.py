"""The variables a stage sees and the config it builds up (FEATURES.md I02-I05, I08).

Two lifetimes meet here. ENV belongs to the image: it is in the config. ARG belongs to the build: it is seen
from its line on, by expansion and by RUN, and is nowhere in the result but in history.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from builder.errors import DockerfileError
from builder.frontend import instructions as ins
from builder.frontend.broken import broken
from builder.frontend.words import Lexer, WordError
from oci.model import Platform, RunConfig

if TYPE_CHECKING:
    from builder.source import SourceRange
    from oci.model import Healthcheck

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PROXY_ARGS = frozenset(
    name
    for each in ("http", "https", "ftp", "no", "all")
    for name in (f"{each}_proxy", f"{each}_proxy".upper())
)
"""Seen by RUN when given, declared or not, and part of no key (I04)."""

CLOCK_ARG = "SOURCE_DATE_EPOCH"
CLOCK_SEEN = "315532800"
"""What RUN sees with a clock: 1980-01-01, whatever the clock says, so that no step depends on its value."""

_NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Surrogates that stand for no byte."""

_NOT_FOR_RUN = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})


def platform_args(build: Platform, target: Platform, stage: str) -> dict[str, str]:
    """The global ARGs that need no declaration before FROM (I05)."""
    found = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}OSVERSION"] = platform.os_version
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    found["TARGETSTAGE"] = stage or "default"
    return found


def shown_platform(platform: Platform, env: Mapping[str, str]) -> str:
    """The platform of a stage as the names of its steps show it: `linux/amd64`, and `linux/amd64->arm64` for
    one that knows it builds for another (BuildKit's form)."""
    named = env.get("TARGETPLATFORM", "")
    system, _, rest = named.partition("/")
    architecture, _, variant = rest.partition("/")
    target = Platform(
        env.get("TARGETOS") or system or platform.os,
        env.get("TARGETARCH") or architecture or platform.architecture,
        env.get("TARGETVARIANT") or variant or ("" if architecture else platform.variant),
    )
    if str(target) == str(platform):
        return str(platform)
    shown = str(target)
    return f"{platform}->{shown.removeprefix(f'{platform.os}/')}"


def global_args(
    start: Mapping[str, str], declared: tuple[ins.Arg, ...], given: Mapping[str, str], lexer: Lexer
) -> dict[str, str]:
    """The ARGs before the first FROM, in order: a later one sees the earlier ones. Raises DockerfileError."""
    values = {name: given.get(name, value) for name, value in start.items()}
    for arg in declared:
        for name, default in arg.args:
            if name in given:
                values[name] = given[name]
            elif default is not None:
                values[name] = expand(lexer, default, values, arg.at)
    return values


def expand(lexer: Lexer, word: str, env: Mapping[str, str], at: SourceRange) -> str:
    """`word` expanded. Raises DockerfileError that quotes it."""
    try:
        return lexer.expand(word, env)
    except WordError as error:
        raise unreadable(word, error, at) from None


def unreadable(word: str, error: WordError, at: SourceRange) -> DockerfileError:
    shown = word if len(word) <= 80 else f"{word[:77]}..."
    return broken(f"cannot expand `{shown}`: {error}", at=at, hint=error.hint)


def proxy_env(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The proxy settings among the build arguments, under both spellings; the lower-case one wins."""
    found: dict[str, str] = {}
    for name in sorted(given):
        if name in PROXY_ARGS:
            found[name.upper()] = found[name.lower()] = given[name]
    return tuple(found.items())


class Variables:
    """What `$name` means in a stage, and what RUN gets as its environment."""

    def __init__(self) -> None:
        self.env: dict[str, str] = {}
        self.args: dict[str, str | None] = {}
        self._frozen: tuple[tuple[str, str], ...] | None = None
        self.size = 0

    @classmethod
    def of(cls, env: Mapping[str, str], parent: Variables | None = None) -> Variables:
        """The start of a stage: what the stage it is built on saw, ARGs included, and over it the config's
        `env`.
        """
        made = cls()
        if parent is not None:
            made.env = dict(parent.env)
            made.args = dict(parent.args)
            made.size = parent.size
        for name, value in env.items():
            made.set(name, value)
        return made

    def set(self, name: str, value: str) -> None:
        old = self.env.pop(name, None)
        if old is not None:
            self.size -= len(name) + len(old)
        self.env[name] = value
        self.size += len(name) + len(value)
        self._frozen = None

    def declare(self, name: str, value: str | None) -> None:
        """An ARG. One without a value is known to history only."""
        self.args[name] = value
        if value is not None and name not in _NOT_FOR_RUN:
            self.set(name, value)

    @property
    def weight(self) -> int:
        """What a copy of all this costs, in characters."""
        return self.size + 40 * len(self.env)

    def items(self) -> tuple[tuple[str, str], ...]:
        """The environment; one tuple for as long as nothing changes, so that steps share it."""
        if self._frozen is None:
            self._frozen = tuple(self.env.items())
        return self._frozen

    def for_history(self) -> list[str]:
        """`|2 A=1 B=2`: the ARGs as history shows them before a RUN."""
        if not self.args:
            return []
        shown = [f"{name}={self.env.get(name, value or '')}" for name, value in self.args.items()]
        return [f"|{len(shown)}", *shown]


class Draft:
    """A RunConfig under construction. The fields are RunConfig's."""

    def __init__(self, start: RunConfig) -> None:
        self.user = start.user
        self.ports = set(start.exposed_ports)
        self.env = dict(_pair(each) for each in start.env)
        self.entrypoint = start.entrypoint
        self.cmd = start.cmd
        self.volumes = set(start.volumes)
        self.working_dir = start.working_dir
        self.labels = dict(start.labels)
        self.stop_signal = start.stop_signal
        self.args_escaped = start.args_escaped
        self.healthcheck: Healthcheck | None = start.healthcheck
        self.on_build: list[str] = []
        self.shell = start.shell

    def run_config(self) -> RunConfig:
        """The finished config. Bytes that are no UTF-8 become U+FFFD: the config is JSON."""
        return RunConfig(
            user=clean(self.user),
            exposed_ports=tuple(sorted(self.ports)),
            env=tuple(clean(f"{name}={value}") for name, value in self.env.items()),
            entrypoint=_cleaned(self.entrypoint),
            cmd=_cleaned(self.cmd),
            volumes=tuple(sorted(clean(each) for each in self.volumes)),
            working_dir=clean(self.working_dir),
            labels={clean(name): clean(value) for name, value in self.labels.items()},
            stop_signal=clean(self.stop_signal),
            args_escaped=self.args_escaped,
            healthcheck=self.healthcheck,
            on_build=tuple(clean(each) for each in self.on_build),
            shell=_cleaned(self.shell),
        )


def _pair(entry: str) -> tuple[str, str]:
    name, _, value = entry.partition("=")
    return name, value


def clean(text: str) -> str:
    """`text` for a JSON document: what was no UTF-8 in the Dockerfile becomes U+FFFD."""
    if text.isascii():
        return text
    text = _NO_BYTES.sub("\ufffd", text)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _cleaned(words: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if words is None else tuple(clean(each) for each in words)
