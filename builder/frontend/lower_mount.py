"""`RUN --mount`: options with their variables replaced become the mounts of a step (I34-I39).

A mount of a context reads exactly what it shows: a Copy of that path onto nothing is its input. So the ignore
file, checksums and cache hits are those of COPY, and a file beside the path changes no key.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from builder.frontend import forms_mount
from builder.frontend import instructions as ins
from builder.frontend.broken import broken
from builder.frontend.lower_config import rooted
from builder.frontend.stage import StageBuild
from builder.frontend.suggest import hint
from builder.graph import ContextSource, Copy, Scratch, Step
from builder.mounts import BindMount, CacheMount, Mount, SecretMount, SshMount, TmpfsMount

if TYPE_CHECKING:
    from builder.mounts import Sharing
    from builder.source import SourceRange

SECRETS = "/run/secrets/"
AGENTS = "/run/buildkit/ssh_agent."
NAMESPACE = "BUILDKIT_CACHE_MOUNT_NS"
"""The build argument that keeps projects' caches apart (K14)."""

_SHOWN = "/source"
"""Where a Copy made for a mount puts what is shown."""

_SHARING: tuple[Sharing, ...] = ("shared", "private", "locked")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_ID = 0xFFFFFFFE


def mounts(
    stage: StageBuild, line: ins.Run, origins: Sequence[Step | str]
) -> tuple[tuple[Mount, ...], tuple[Step, ...]]:
    """The mounts of a RUN, and the steps that hold what they show. `origins` has an entry for each mount.

    Raises DockerfileError.
    """
    lowering = _Lowering(stage, line)
    pairs = zip(line.mounts, origins, strict=True)
    return tuple([lowering.mount(_Options(stage, line, each), origin) for each, origin in pairs]), tuple(
        lowering.inputs
    )


class _Options:
    """The options of one mount, variables replaced, and read as what they must be."""

    def __init__(self, stage: StageBuild, line: ins.Run, mount: ins.Mount) -> None:
        self.at = line.at
        pairs = tuple(
            (name, value if name == "from" else stage.expand(value, line.at)) for name, value in mount.options
        )
        self.values = dict(pairs)
        self.kind = self.values.get("type", "bind").lower()
        forms_mount.check(line.at, self.kind, pairs)

    def text(self, name: str, default: str = "") -> str:
        return self.values.get(name) or default

    def flag(self, name: str) -> bool | None:
        """None when it is not given."""
        value = self.values.get(name)
        if value is None:
            return None
        if value not in _TRUE + _FALSE:
            raise self.wrong(name, "true or false")
        return value in _TRUE

    def read_only(self, default: bool) -> bool:
        """What the last of `readonly` and `readwrite` says."""
        found = default
        for name in self.values:
            if name in ("readonly", "readwrite"):
                found = self.flag(name) is (name == "readonly")
        return found

    def number(self, name: str, base: int, most: int) -> int | None:
        value = self.values.get(name)
        if value is None:
            return None
        digits = "01234567" if base == 8 else "0123456789"
        if value and len(value) < 12 and not value.strip(digits) and int(value, base) <= most:
            return int(value, base)
        raise self.wrong(name, f"an octal mode up to {most:o}" if base == 8 else f"a number up to {most}")

    def looks(self) -> tuple[int | None, int | None, int | None]:
        """mode, uid, gid."""
        return (
            self.number("mode", 8, 0o7777),
            self.number("uid", 10, _MOST_ID),
            self.number("gid", 10, _MOST_ID),
        )

    def size(self) -> int:
        value = self.values.get("size", "0")
        match = _SIZE.fullmatch(value.strip())
        if match is None or len(match[1]) > 18:
            raise self.wrong("size", "a size like 64m or 1g")
        return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))

    def wrong(self, name: str, expected: str) -> Exception:
        return broken(f"--mount: {name}={self.values[name]} is not {expected}", at=self.at)

    def error(self, message: str, advice: str = "") -> Exception:
        return broken(f"--mount=type={self.kind}: {message}", at=self.at, hint=advice)


class _Lowering:
    """The mounts of one RUN; `inputs` are the steps they read, each once."""

    def __init__(self, stage: StageBuild, line: ins.Run) -> None:
        self.stage = stage
        self.line = line
        self.inputs: list[Step] = []
        self.agents = 0

    def mount(self, options: _Options, origin: Step | str) -> Mount:
        match options.kind:
            case "bind":
                return self._bind(options, origin)
            case "cache":
                return self._cache(options, origin)
            case "tmpfs":
                return TmpfsMount(self._target(options), options.size(), options.read_only(False))
            case "secret":
                return self._secret(options)
            case _:
                return self._ssh(options)

    def _target(self, options: _Options) -> str:
        """Where it is seen, from WORKDIR on; that itself when nothing is said."""
        target = rooted(self.stage.config.working_dir, options.text("target"))
        if target == "/":
            raise options.error("the root itself cannot be mounted over", "name a place: target=/PATH")
        return target

    def _input(self, step: Step) -> int:
        """The number of `step` among the inputs; 0 when it holds nothing at all."""
        if isinstance(step.op, Scratch):
            return 0
        for number, each in enumerate(self.inputs, 1):
            if each.digest == step.digest:
                return number
        self.inputs.append(step)
        return len(self.inputs)

    def _bind(self, options: _Options, origin: Step | str) -> BindMount:
        target, writable = self._target(options), not options.read_only(True)
        source = _cleaned(options.text("source"))
        if isinstance(origin, Step):
            return BindMount(target, self._input(origin), source, writable)
        step = _of_context(origin, source, self.line.at)
        return BindMount(target, self._input(step), _SHOWN, writable, own=True)

    def _cache(self, options: _Options, origin: Step | str) -> CacheMount:
        sharing = options.text("sharing", "shared").lower()
        if sharing not in _SHARING:
            raise broken(
                f"--mount: sharing={sharing} is no way to share",
                at=self.line.at,
                hint=hint(sharing, _SHARING, f"it is {', '.join(_SHARING)}"),
            )
        mode, uid, gid = options.looks()
        target = self._target(options)
        step = 0
        if isinstance(origin, Step):
            step = self._input(origin)
        elif origin:
            step = self._input(_of_context(origin, "/", self.line.at, dest="/"))
        return CacheMount(
            target,
            options.text("id", posixpath.normpath(options.text("target", target))),
            self.stage.shared.given.get(NAMESPACE, ""),
            next(each for each in _SHARING if each == sharing),
            options.read_only(False),
            step,
            _cleaned(options.text("source")),
            mode,
            uid,
            gid,
        )

    def _secret(self, options: _Options) -> SecretMount:
        _always_read_only(options)
        target, env = options.text("target"), options.text("env")
        source, name = options.text("source"), options.text("id")
        if source and name:
            raise options.error("source and id both name the secret", "keep one of them")
        name = source or name or posixpath.basename(target.rstrip("/"))
        if not name:
            raise options.error("it has no name", "write id=NAME")
        if env and not _VARIABLE_NAME.fullmatch(env):
            raise options.error(f"env={env} is no name of a variable")
        if target or not env:
            target = rooted(self.stage.config.working_dir, target or SECRETS + posixpath.basename(name))
        if target in ("/", SECRETS.rstrip("/")):
            raise options.error(f"the file cannot be {target}", "name a file: target=/PATH")
        mode, uid, gid = options.looks()
        required = bool(options.flag("required"))
        return SecretMount(name, target, env, required, 0o400 if mode is None else mode, uid or 0, gid or 0)

    def _ssh(self, options: _Options) -> SshMount:
        _always_read_only(options)
        target = AGENTS + str(self.agents)
        self.agents += 1
        if options.text("target"):
            target = self._target(options)
        mode, uid, gid = options.looks()
        return SshMount(
            options.text("id", "default"),
            target,
            bool(options.flag("required")),
            0o600 if mode is None else mode,
            uid or 0,
            gid or 0,
        )


def _always_read_only(options: _Options) -> None:
    if options.flag("readonly") is False:
        raise options.error("it is always read-only")


def _of_context(name: str, source: str, at: SourceRange, dest: str = _SHOWN) -> Step:
    """The path `source` of a context, alone on nothing."""
    path = source.lstrip("/") or "."
    copy = Copy((ContextSource((path,), name, exact=True),), dest, into_directory=dest == "/")
    shown = f"{path} of {name}" if name else path
    return Step(copy, (Step(Scratch()),), at, f"[context] {shown}")


def _cleaned(path: str) -> str:
    """A path from the root of where it comes from; `..` stays inside."""
    return rooted("/", path)
