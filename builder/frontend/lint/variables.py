"""Variables: L11, L16."""

from __future__ import annotations

from collections.abc import Iterator

from builder.frontend import instructions as ins
from builder.frontend.lint.nearest import nearest
from builder.frontend.lint.rules import Found
from builder.frontend.lint.scene import Moment
from builder.frontend.quoting import quote

_SECRET = frozenset(
    ("apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token")
)
_HARMLESS = frozenset(("public", "file", "version"))
_NEVER_SET = frozenset(("BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"))
"""ARGs that no instruction sees."""


def undefined_var(moment: Moment) -> Iterator[Found]:
    """A variable that neither ENV, ARG nor the base sets. Silent where the base is not known."""
    if not moment.env_known:
        return
    if isinstance(moment.line, ins.Arg):
        yield from _in_defaults(moment, moment.line)
    defined = moment.variables.args.keys() | _NEVER_SET
    for word in _words(moment.line):
        yield from _undefined(moment, moment.process(word).missing - defined)
    raw = moment.lexer.variant(escape="\\", plain_quotes=True)
    for document in moment.line.documents if isinstance(moment.line, ins.Transfer) else ():
        if document.expand:
            yield from _undefined(moment, moment.process(document.text, raw).missing - defined)


def _in_defaults(moment: Moment, line: ins.Arg) -> Iterator[Found]:
    """ARG: a later default on the line sees the earlier names, that of a given argument is not looked at."""
    defined = set(moment.variables.args) | _NEVER_SET
    for name, default in line.args:
        if default is not None and name not in moment.shared.given:
            yield from _undefined(moment, moment.process(default).missing - defined)
        defined.add(name)


def _undefined(moment: Moment, names: frozenset[str]) -> Iterator[Found]:
    for name in sorted(names):
        near = nearest(name, moment.variables.env)
        advice = f" (did you mean ${near}?)" if near else ""
        yield Found(f"Usage of undefined variable '${name}'{advice}", moment.line.at)


def _words(line: ins.Written) -> Iterator[str]:
    """The words of an instruction in which variables are replaced."""
    match line:
        case ins.Env() | ins.Label():
            for pair in line.pairs:
                yield from pair
        case ins.Transfer():
            yield from (*line.sources, line.dest, line.chown, line.chmod, *line.exclude)
            if isinstance(line, ins.Add):
                yield line.checksum
        case ins.Run():
            for mount in line.mounts:
                yield from (value for name, value in mount.options if name != "type")
        case ins.Volume():
            yield from line.paths
        case ins.Workdir():
            yield line.path
        case ins.User():
            yield line.user
        case ins.StopSignal():
            yield line.signal


def secrets_used_in_arg_or_env(moment: Moment) -> Iterator[Found]:
    """A name whose words (between `_`) tell of a secret. History and config keep every ARG and ENV."""
    line = moment.line
    match line:
        case ins.Arg():
            names = [name for name, _ in line.args]
        case ins.Env():
            names = [moment.expand(name) for name, _ in line.pairs]
        case _:
            return
    instruction = "ARG" if isinstance(line, ins.Arg) else "ENV"
    for name in names:
        words = set(name.lower().split("_"))
        if words & _SECRET and not words & _HARMLESS:
            shown = f"{instruction} {quote(name)}"
            yield Found(f"Do not use ARG or ENV instructions for sensitive data ({shown})", line.at)
