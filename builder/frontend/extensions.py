"""What pybuild's Dockerfiles have beyond Docker's: only for files that ask for it (docs/extensions.md).

A file asks with the directive `# pybuild=include,env-file`, the builder with `--enable`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from builder.errors import UsageError
from builder.frontend.broken import broken
from builder.frontend.suggest import hint

if TYPE_CHECKING:
    from builder.frontend.reader import Document

INCLUDE, ENV_FILE, SHELL_STRICT = "include", "env-file", "shell-strict"
KNOWN = (INCLUDE, ENV_FILE, SHELL_STRICT)
DIRECTIVE = "pybuild"


def enabled(document: Document, chosen: Iterable[str]) -> frozenset[str]:
    """The extensions that count for a file: its own, and those `chosen` for the build.

    Raises DockerfileError, or UsageError for one of `chosen`, when there is no such extension.
    """
    wanted = frozenset(chosen)
    for name in sorted(wanted - {*KNOWN}):
        raise UsageError(f"--enable {name}: there is no such extension", hint=_hint(name))
    found = set(wanted)
    for directive in document.directives:
        for name in directive.value.split(",") if directive.name == DIRECTIVE else ():
            if name.strip() not in KNOWN:
                raise broken(
                    f"`# {DIRECTIVE}={directive.value}`: there is no extension `{name.strip()}`",
                    at=directive.at,
                    hint=_hint(name.strip()),
                )
            found.add(name.strip())
    return frozenset(found)


def advice(name: str) -> str:
    """How to switch an extension on."""
    return f"it is pybuild's own: begin the file with `# {DIRECTIVE}={name}`, or build with --enable {name}"


def _hint(name: str) -> str:
    return hint(name, KNOWN, f"there are {', '.join(KNOWN)}")
