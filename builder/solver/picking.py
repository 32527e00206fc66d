"""Parts of a tree: what `--exclude` leaves behind, and what the patterns of `--parents` pick.

Both speak the language of ignore files (I26, I27): `**` is any number of directories, and what matches a
directory holds for all below it. Directories above what is taken come along, with their own metadata.
"""

from __future__ import annotations

from collections.abc import Iterable

from builder.errors import DockerfileError
from builder.patterns import IgnoreFile, PatternError, State
from builder.tree import Item, Tree, join
from oci.tar.entry import Kind


def patterns(flag: str, texts: Iterable[str]) -> IgnoreFile:
    """The patterns as an ignore file that knows no comments. Raises DockerfileError."""
    lines = [f"/{text}" if text.startswith("#") else text for text in texts]
    try:
        return IgnoreFile(lines)
    except PatternError as error:
        raise DockerfileError(f"{flag}: {error}") from None


def without(items: list[Item], base: bytes, left_out: IgnoreFile) -> list[Item]:
    """`items` of a walk, `base` first, without what `left_out` matches, seen from `base`."""
    kept: list[Item] = items[:1]
    waiting: list[Item] = []
    states: dict[bytes, State | None] = {base: left_out.enter()}
    for path, node in items[1:]:
        parent, _, name = path.rpartition(b"/")
        state = states.get(parent)
        if state is None:
            continue
        directory = node.kind is Kind.DIRECTORY
        gone, inner = left_out.step(state, name, directory)
        if directory:
            states[path] = inner
        if gone:
            if inner is not None:
                waiting.append((path, node))
            continue
        # A directory that is left out comes along all the same when something below it is taken back.
        kept += [each for each in waiting if path.startswith(each[0] + b"/")]
        waiting.clear()
        kept.append((path, node))
    return kept


def picked(tree: Tree, base: bytes, wanted: IgnoreFile) -> list[Item]:
    """What `wanted` matches below the directory `base`, with the directories above it; `base` comes first.

    Directories in which nothing can match are not read.
    """
    found: list[Item] = []
    node = tree.lstat(base)
    if node is not None:
        found.append((base, node))
        _pick(tree, base, wanted, wanted.enter(), found)
    return found


def _pick(tree: Tree, path: bytes, wanted: IgnoreFile, state: State, into: list[Item]) -> None:
    for name in tree.listdir(path):
        child = join(path, name)
        node = tree.lstat(child)
        if node is None:
            continue
        directory = node.kind is Kind.DIRECTORY
        matched, inner = wanted.step(state, name, directory)
        if matched:
            into += tree.walk(child) if directory else [(child, node)]
        elif directory and inner is not None and not inner.settled:
            at = len(into)
            into.append((child, node))
            _pick(tree, child, wanted, inner, into)
            if len(into) == at + 1:
                into.pop()
