"""What a COPY or ADD reads: its source paths and globs, looked up in the trees they name.

As BuildKit does it: a path is cleaned, never leaves its tree, and is followed through symlinks to its end;
a pattern is matched name by name and never goes through a symlinked directory; a pattern that matches
nothing is no error (people write `COPY package.json yarn.lock* ./`), a plain path that is not there is one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from builder.contexts.content import Selected
from builder.errors import BuildError, ContextError
from builder.graph import ContextSource, Copy, InlineFile, InlineSource, StepSource
from builder.patterns import PatternError, glob_match
from builder.tree import Tree, clean, join
from oci.tar import Kind

_WILD = re.compile(rb"(?:\\.|[^\\*?\[])*[*?\[]", re.DOTALL)

Source = Selected | InlineFile


@dataclass(frozen=True, slots=True)
class Selection:
    """The sources of one Copy in the order written, and what people should know about them."""

    sources: tuple[Source, ...]
    warnings: tuple[str, ...] = ()

    @property
    def selected(self) -> tuple[Selected, ...]:
        """Those that lie in a tree: what a checksum is made of (inline files are part of the op)."""
        return tuple(source for source in self.sources if isinstance(source, Selected))


def select(op: Copy, tree_of: Callable[[ContextSource | StepSource], Tree]) -> Selection:
    """Everything `op` reads, listed but not opened.

    Raises ContextError for a path that is not there, with what may have been meant.
    """
    sources: list[Source] = []
    warnings: list[str] = []
    for source in op.sources:
        if isinstance(source, InlineSource):
            sources += source.files
            continue
        tree = tree_of(source)
        for path in source.paths:
            found = list(_matches(tree, path, isinstance(source, ContextSource)))
            if not found:
                warnings.append(f"{path} matches nothing" + _near(tree, clean(path)))
            sources += found
    return Selection(tuple(sources), tuple(warnings))


def _matches(tree: Tree, written: str, fixed: bool) -> Iterator[Selected]:
    path = clean(written)
    parts = path.split(b"/")
    wild = next((index for index, part in enumerate(parts) if _WILD.match(part)), None)
    if wild is None:
        yield _selected(tree, path, written, fixed)
        return
    base = _resolve(tree, b"/".join(parts[:wild]), written)
    for match in _glob(tree, base, [os.fsdecode(part) for part in parts[wild:]]):
        yield _selected(tree, match, written, fixed)


def _selected(tree: Tree, path: bytes, written: str, fixed: bool) -> Selected:
    real = _resolve(tree, path, written)
    items = tree.walk(real)
    if not items:
        raise _not_found(tree, path, written)
    return Selected(tree, path.rpartition(b"/")[2], real, items, fixed)


def _resolve(tree: Tree, path: bytes, written: str) -> bytes:
    try:
        return tree.resolve(path)
    except OSError as error:
        raise ContextError(f"{written} cannot be followed: {error.strerror}") from None


def _glob(tree: Tree, base: bytes, patterns: list[str]) -> Iterator[bytes]:
    for name in tree.listdir(base):
        if not _fits(patterns[0], os.fsdecode(name)):
            continue
        path = join(base, name)
        if len(patterns) == 1:
            yield path
        elif (node := tree.lstat(path)) is not None and node.kind is Kind.DIRECTORY:
            yield from _glob(tree, path, patterns[1:])


def _fits(pattern: str, name: str) -> bool:
    try:
        return glob_match(pattern, name)
    except PatternError as error:
        raise BuildError(str(error), hint="to copy a file with [ in its name, write [[]") from None


def _not_found(tree: Tree, path: bytes, written: str) -> ContextError:
    ignored = getattr(tree, "ignored", None)
    where = getattr(tree, "name", "image")
    if ignored is not None and ignored(path):
        return ContextError(
            f"{written} is left out of the {where} by its ignore file",
            hint=f"add the line !{os.fsdecode(path)} to it, or copy another file",
        )
    return ContextError(f"{written} is not in the {where}", hint=_near(tree, path).removeprefix("; "))


def _near(tree: Tree, path: bytes) -> str:
    """`; did you mean ...?` with names that look like the missing one, or what there is; may be empty."""
    from difflib import get_close_matches

    parent, _, name = path.rpartition(b"/")
    names = [os.fsdecode(each) for each in tree.listdir(tree.resolve(parent))]
    near = get_close_matches(os.fsdecode(name), names, 3, 0.6)
    if near:
        return f"; did you mean {' or '.join(os.path.join(os.fsdecode(parent), each) for each in near)}?"
    return f"; it has {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" if names else ""
