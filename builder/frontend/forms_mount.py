"""What `RUN --mount` must look like: an allow-list of types and of the options each type has (S38).

BuildKit takes some options where they mean nothing (`id` of a bind mount, `from` of a tmpfs); here they are
errors, because whoever writes one expects something of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from builder.frontend import instructions as ins
from builder.frontend.broken import broken
from builder.frontend.suggest import hint

if TYPE_CHECKING:
    from builder.source import SourceRange

ALIASES = {
    "src": "source",
    "dst": "target",
    "destination": "target",
    "ro": "readonly",
    "rw": "readwrite",
}
FLAGS = ("readonly", "readwrite", "required")
"""Options that may stand without a value."""

_LOOKS = ("mode", "uid", "gid")
OPTIONS = {
    "bind": ("target", "source", "from", "readonly", "readwrite"),
    "cache": ("target", "id", "source", "from", "readonly", "readwrite", "sharing", *_LOOKS),
    "tmpfs": ("target", "size", "readonly", "readwrite"),
    "secret": ("id", "target", "source", "env", "required", "readonly", *_LOOKS),
    "ssh": ("id", "target", "required", "readonly", *_LOOKS),
}
"""The options of each type of mount."""

NAMES = ("type", *dict.fromkeys(name for names in OPTIONS.values() for name in names), *ALIASES)
_VARIABLE = re.compile(r"\$.")


def mount(at: SourceRange, text: str) -> ins.Mount:
    """The options of one `--mount`, under their full names, checked as far as they hold no variables.

    Raises DockerfileError.
    """
    pairs = tuple(_option(at, field) for field in _fields(at, text))
    kind = dict(pairs).get("type", "bind").lower()
    if "$" not in kind:
        check(at, kind, pairs)
    for name, value in pairs:
        if name == "from" and _VARIABLE.search(value):
            raise broken(
                f"--mount: from={value}: variables are not replaced here",
                at=at,
                hint="give the image a stage of its own: `FROM $NAME AS source` above, then from=source",
            )
    return ins.Mount(pairs)


def _fields(at: SourceRange, text: str) -> list[str]:
    import csv

    try:
        return next(iter(csv.reader([text], strict=True)), [])
    except csv.Error as error:
        raise broken(f"--mount={text} cannot be read: {error}", at=at) from None


def _option(at: SourceRange, field: str) -> tuple[str, str]:
    name, equals, value = field.partition("=")
    name = name.lower()
    if name not in NAMES:
        otherwise = f"it knows {', '.join(each for each in NAMES if each not in ALIASES)}"
        raise broken(f"--mount has no option `{name}`", at=at, hint=hint(name, NAMES, otherwise))
    full = ALIASES.get(name, name)
    if not equals:
        if full not in FLAGS:
            raise broken(f"--mount: `{name}` needs a value", at=at, hint=f"write {name}=VALUE")
        value = "true"
    return full, value


def check(at: SourceRange, kind: str, pairs: ins.Pairs) -> None:
    """Raise DockerfileError unless `kind` is a type of mount and all options are such a mount's."""
    if kind not in OPTIONS:
        kinds = ", ".join(OPTIONS)
        raise broken(f"--mount has no type `{kind}`", at=at, hint=hint(kind, OPTIONS, f"it is {kinds}"))
    for name, _ in pairs:
        if name != "type" and name not in OPTIONS[kind]:
            owners = [each for each, names in OPTIONS.items() if name in names]
            raise broken(
                f"--mount=type={kind} has no option `{name}`",
                at=at,
                hint=f"`{name}` belongs to {', '.join(owners)}; {kind} has {', '.join(OPTIONS[kind])}",
            )
