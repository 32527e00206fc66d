"""How the frontend says what is wrong: one sentence, the place, what to do; never a page of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.errors import DockerfileError

if TYPE_CHECKING:
    from builder.source import SourceRange

_LONGEST = 400


def broken(message: str, *, at: SourceRange | None = None, hint: str = "") -> DockerfileError:
    """A DockerfileError whose text stays readable whatever was quoted in it."""
    return DockerfileError(_short(message), at=at, hint=_short(hint))


def _short(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST - 80]} ... {text[-70:]}"
