"""`pybuild context ls`: what a build can copy, how large it is, and which line leaves something out (D18)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from builder.cli import reading
from builder.cli.session import Session
from builder.cli.text import safe, size, table
from builder.errors import NotFound

if TYPE_CHECKING:
    from builder.inputs import Inputs
    from builder.tree import Item


@click.group("context", help="What a build can copy.", no_args_is_help=True)
def command() -> None:
    """Set by the decorator."""


@command.command("ls", help="List the files of a context that are not left out by its ignore file.")
@click.argument("context", metavar="[PATH | URL | -]", default=".")
@click.option(
    "-f", "--file", "dockerfile", default="", metavar="FILE", help="The Dockerfile, for its own ignore file."
)
@reading.IGNOREFILE
@click.option("--size", "sizes", is_flag=True, help="Show sizes, the largest first.")
@click.option("--tree", is_flag=True, help="Show directories with all that is in them, as a tree.")
@click.option("--why", metavar="FILE", help="Say why FILE is in the context, or is not.")
@click.pass_obj  # fmt: skip
def ls(
    session: Session, context: str, dockerfile: str, ignorefile: str, sizes: bool, tree: bool, why: str | None
) -> None:
    """Set by the decorator."""
    from builder.building import BuildRequest
    from builder.events import discard
    from builder.inputs import Inputs

    stdin = sys.stdin.buffer if context == "-" else None
    request = BuildRequest(context=context, dockerfile=dockerfile, ignorefile=ignorefile, stdin=stdin)
    with Inputs(request, None, discard) as inputs:
        if why is not None:
            sys.stdout.write(_reason(inputs, why) + "\n")
            return
        items = inputs.tree("").walk()
        show = _tree if tree else _sizes if sizes else _names
        sys.stdout.write(show(items))


def _names(items: list[Item]) -> str:
    return "".join(
        f"{_shown(path)}\n" for path, node in items if path and not _is_directory(items, path, node)
    )


def _sizes(items: list[Item]) -> str:
    files = sorted(
        ((node.size, path) for path, node in items if node.size), key=lambda row: (-row[0], row[1])
    )
    total = sum(each for each, _ in files)
    rows = [(size(each), _shown(path)) for each, path in files]
    return table([*rows, (size(total), f"in {len(items) - 1} files and directories")])


def _tree(items: list[Item]) -> str:
    totals: dict[bytes, int] = {}
    for path, node in items:
        above = path
        while above:
            totals[above] = totals.get(above, 0) + node.size
            above = above.rpartition(b"/")[0]
    lines = []
    for path, node in items[1:]:
        name = _shown(path.rpartition(b"/")[2]) + "/" * _is_directory(items, path, node)
        lines.append(f"{size(totals[path]):>7}  {'  ' * path.count(b'/')}{name}\n")
    return "".join(lines)


def _is_directory(items: list[Item], path: bytes, node: object) -> bool:
    from oci.tar.entry import Kind

    return getattr(node, "kind", None) is Kind.DIRECTORY


def _shown(path: bytes) -> str:
    return safe(os.fsdecode(path)).replace("\n", "\\n")


def _reason(inputs: Inputs, wanted: str) -> str:
    """One sentence about one path. Raises NotFound when nothing there has that name."""
    from builder.tree import clean

    path = clean(wanted)
    ignore = inputs.ignore()
    tree = inputs.tree("")
    there = tree.lstat(path) is not None
    line = ignore.reason(path) if ignore is not None else None
    shown = _shown(path) or "."
    if line is None:
        if not there:
            raise NotFound(f"{wanted} is not in the context", hint="no line of an ignore file leaves it out")
        return f"{shown} is in the context: no line of an ignore file matches it"
    text = line.file.line(line.first).strip()
    where = f"{line}: {safe(text)}"
    if ignore is not None and not ignore.ignored(path):
        return f"{shown} is in the context: taken back by {where}" + (
            "" if there else " (but there is no such file)"
        )
    if there:
        return f"{shown} is left out by {where}; the directory is there for what is taken back below it"
    return f"{shown} is left out by {where}"
