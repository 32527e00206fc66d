"""What a COPY or ADD reads: its source paths and globs, looked up in the trees they name.

As BuildKit does it: a path is cleaned, never leaves its tree, and is followed through symlinks to its end;
a pattern is matched name by name and never goes through a symlinked directory; a pattern that matches
nothing is no error (people write `COPY package.json yarn.lock* ./`), a plain path that is not there is one,
but for `--if-exists`. The paths of `--parents` are patterns of ignore files below the pivot, and `--exclude`
is seen from each source: from the directory whose contents are copied, or by a file's own name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

from builder.contexts.content import Selected
from builder.errors import BuildError, ContextError
from builder.graph import (
    ContextSource,
    Copy,
    GitSource,
    HttpSource,
    InlineFile,
    InlineSource,
    StepSource,
)
from builder.patterns import IgnoreFile, PatternError, glob_match
from builder.solver import picking
from builder.tree import Tree, clean, join
from oci.data import dataclass
from oci.tar import Kind

_WILD = re.compile(rb"(?:\\.|[^\\*?\[])*[*?\[]", re.DOTALL)

Source = Selected | InlineFile
TreeSource: TypeAlias = ContextSource | StepSource | HttpSource | GitSource


@dataclass(frozen=True, slots=True)
class Selection:
    """The sources of one Copy in the order written, and what people should know about them."""

    sources: tuple[Source, ...]
    warnings: tuple[str, ...] = ()

    @property
    def selected(self) -> tuple[Selected, ...]:
        """Those that lie in a tree: what a checksum is made of (inline files are part of the op)."""
        return tuple(source for source in self.sources if isinstance(source, Selected))


def select(op: Copy, tree_of: Callable[[TreeSource], Tree]) -> Selection:
    """Everything `op` reads, listed but not opened.

    Raises ContextError for a path that is not there, with what may have been meant.
    """
    sources: list[Source] = []
    warnings: list[str] = []
    left_out = picking.patterns("--exclude", op.exclude) if op.exclude else None
    for source in op.sources:
        if isinstance(source, InlineSource):
            sources += source.files
            continue
        found, unmatched = _of_tree(op, source, tree_of(source))
        warnings += unmatched
        sources += _kept(found, left_out) if left_out else found
    return Selection(tuple(sources), tuple(warnings))


def _of_tree(op: Copy, source: TreeSource, tree: Tree) -> tuple[list[Selected], list[str]]:
    """What one source gives, and what to say of its patterns that match nothing."""
    if isinstance(source, HttpSource):
        (name,) = tree.listdir(b"")
        return [Selected(tree, name, name, unpack=source.unpack)], []
    if isinstance(source, GitSource):
        return [Selected(tree, b"", b"")], []
    found: list[Selected] = []
    unmatched: list[str] = []
    fixed = isinstance(source, ContextSource)
    for path in source.paths:
        matches = _with_parents(op, tree, path) if op.parents else _matches(tree, path, op.optional)
        if isinstance(source, ContextSource) and source.exact:
            matches = iter((replace(selected(tree, path), itself=True),))
        before = len(found)
        found += [replace(each, fixed=fixed, unpack=op.unpack) for each in matches]
        if len(found) == before and not op.optional:
            unmatched.append(f"{path} matches nothing" + _near(tree, clean(path)))
    return found, unmatched


def _kept(found: list[Selected], left_out: IgnoreFile) -> Iterator[Selected]:
    """`found` without what `--exclude` names."""
    for each in found:
        if each.node.kind is Kind.DIRECTORY:
            yield replace(each, picked=picking.without(each.items, each.base, left_out))
        elif not left_out.ignored(each.name):
            yield each


def _matches(tree: Tree, written: str, optional: bool) -> Iterator[Selected]:
    for path in _paths(tree, written):
        yield from _at(tree, path, written, optional)


def selected(tree: Tree, written: str) -> Selected:
    """What the plain path `written` leads to, and all below it. Raises ContextError when nothing is there."""
    (found,) = _at(tree, clean(written), written, optional=False)
    return found


def _at(tree: Tree, path: bytes, written: str, optional: bool) -> Iterator[Selected]:
    real = _resolve(tree, path, written)
    if tree.lstat(real) is not None:
        yield Selected(tree, path.rpartition(b"/")[2], real)
    elif not optional:
        raise _not_found(tree, path, written)


def _paths(tree: Tree, written: str) -> Iterator[bytes]:
    """The path that was written, whether or not it is there, or those that the pattern matches."""
    path = clean(written)
    parts = path.split(b"/")
    wild = next((index for index, part in enumerate(parts) if _WILD.match(part)), None)
    if wild is None:
        yield path
        return
    base = _resolve(tree, b"/".join(parts[:wild]), written)
    yield from _glob(tree, base, [os.fsdecode(part) for part in parts[wild:]])


def _with_parents(op: Copy, tree: Tree, written: str) -> Iterator[Selected]:
    """The directories before the pivot, each with what the pattern after it picks."""
    root, pivot, pattern = written.partition("/./")
    if not pivot:
        root, pattern = ".", written
    wanted = picking.patterns("--parents", ("**" if pattern == "." else f"/{pattern}",))
    for path in _paths(tree, root):
        base = _resolve(tree, path, written)
        node = tree.lstat(base)
        plain = not any(_WILD.match(os.fsencode(each)) for each in (root, pattern))
        if node is not None and node.kind is not Kind.DIRECTORY:
            if not plain:
                continue
            raise ContextError(f"{root} is a file; the pivot /./ of --parents stands after a directory")
        items = picking.picked(tree, base, wanted)
        if len(items) > 1 or (items and pattern == "."):
            yield Selected(tree, b"", base, items)
        elif plain and not op.optional:
            raise _not_below(tree, join(base, clean(pattern)), written.replace("/./", "/"))


def _not_below(tree: Tree, path: bytes, written: str) -> ContextError:
    """The error for a path that --parents does not find, be it that a link leads to it."""
    real = _resolve(tree, path, written)
    if real == path or tree.lstat(real) is None:
        return _not_found(tree, path, written)
    return ContextError(
        f"{written} leads through a symbolic link, and --parents follows none after its pivot",
        hint=f"write {os.fsdecode(real)}, where the link leads to",
    )


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
    link = tree.lstat(path)
    hint = _near(tree, path).removeprefix("; ")
    if link is not None and link.kind is Kind.SYMLINK:
        hint = f"it is a symbolic link to {os.fsdecode(link.link)}, which is not there"
    return ContextError(f"{written} is not in the {where}", hint=hint)


def _near(tree: Tree, path: bytes) -> str:
    """`; did you mean ...?` with names that look like the missing one, or what there is; may be empty."""
    from difflib import get_close_matches

    parent, _, name = path.rpartition(b"/")
    names = [os.fsdecode(each) for each in tree.listdir(tree.resolve(parent))]
    near = get_close_matches(os.fsdecode(name), names, 3, 0.6)
    if near:
        return f"; did you mean {' or '.join(os.path.join(os.fsdecode(parent), each) for each in near)}?"
    return f"; it has {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" if names else ""
