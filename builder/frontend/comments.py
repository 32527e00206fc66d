"""Comments that describe: those right above an instruction (FEATURES.md U02).

# GO_VERSION the toolchain to build with
ARG GO_VERSION=1.24
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.frontend.words import SPACE

if TYPE_CHECKING:
    from builder.frontend.reader import Document
    from builder.source import SourceRange

_MOST = 100


def above(document: Document, at: SourceRange) -> list[str]:
    """The comments that end on the line before `at`, without `#`; parser directives are none."""
    directives = {each.at.first for each in document.directives if each.at.file is at.file}
    found: list[str] = []
    for number in range(at.first - 1, max(0, at.first - 1 - _MOST), -1):
        text = at.file.line(number).strip(SPACE)
        if not text.startswith("#") or number in directives:
            break
        found.append(text[1:].strip(SPACE))
    return found[::-1]


def description(document: Document, at: SourceRange, name: str) -> str:
    """What the comments above `at` say of `name`; empty when they say nothing."""
    if name:
        for text in above(document, at):
            if text.startswith(f"{name} "):
                return text[len(name) + 1 :]
    return ""
