"""Names of stages: L05, L06."""

from __future__ import annotations

from collections.abc import Iterator

from builder.frontend import instructions as ins
from builder.frontend.lint.rules import Found
from builder.frontend.lint.scene import File
from builder.frontend.quoting import quote

_RESERVED = frozenset({"scratch", "context"})


def duplicate_stage_name(file: File) -> Iterator[Found]:
    seen: set[str] = set()
    for head in file.lines(ins.From):
        if head.name and head.name in seen:
            yield Found(f"Duplicate stage name {quote(head.name)}, stage names should be unique", head.at)
        seen.add(head.name)


def reserved_stage_name(file: File) -> Iterator[Found]:
    for head in file.lines(ins.From):
        if head.name in _RESERVED:
            name = quote(head.name)
            yield Found(f"Stage name should not use the same name as reserved stage {name}", head.at)
