"""Variables in a file, as `docker run --env-file` has them: NAME=VALUE lines, nothing quoted or expanded."""

from __future__ import annotations

import re

from builder.frontend.broken import broken
from builder.source import SourceFile, SourceRange

_NAME = re.compile(r"""[^\s=$"'\\`]+""")


def variables(file: SourceFile) -> list[tuple[str, str]]:
    """The variables of `file`, in order. Blank lines and lines that begin with `#` say nothing.

    Raises DockerfileError for a line that is neither. Its text is in no message: it may be a password.
    """
    found = []
    for number, line in enumerate(file.text.removeprefix("\ufeff").split("\n"), 1):
        text = line.removesuffix("\r").lstrip(" \t")
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not _NAME.fullmatch(name) or "\0" in value:
            raise broken(
                f"line {number} of {file.name} is no NAME=VALUE",
                at=_where(file, number),
                hint="a name holds no quotes or blanks, and there is no environment to take a value from",
            )
        found.append((name, value))
    return found


def _where(file: SourceFile, number: int) -> SourceRange:
    return file.included or SourceRange(file, number, number)


def written(pairs: list[tuple[str, str]], escape: str) -> str:
    """`pairs` as an ENV instruction whose values are taken as they are."""
    return "ENV " + " ".join(f'{name}="{_escaped(value, escape)}"' for name, value in pairs)


def _escaped(value: str, escape: str) -> str:
    return "".join(f"{escape}{char}" if char in ('"', "$", escape) else char for char in value)
