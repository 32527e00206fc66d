"""Run pybuild with one of its checks taken out: `without.py PIECE ARG...`; an empty PIECE takes out none.

PIECE is source text of a `raise` statement, wherever in the program that stands. There the error is made and
dropped, and the program goes on. It is changed as it is imported, not on disk. Exit code 97 when no statement
has it: the check was reworded then, and the case has to learn how.
"""

from __future__ import annotations

import ast
import glob
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType


def places(piece: str) -> set[str]:
    """The files that have such a statement."""
    found = set()
    for package in ("builder", "oci"):
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        for path in glob.glob(f"{spec.submodule_search_locations[0]}/**/*.py", recursive=True):
            with open(path, encoding="utf-8") as file:
                source = file.read()
            if piece in source and any(has(node, source, piece) for node in ast.walk(ast.parse(source))):
                found.add(path)
    return found


def has(node: ast.AST, source: str, piece: str) -> bool:
    """Whether this is a `raise` with the piece in it."""
    return isinstance(node, ast.Raise) and piece in (ast.get_source_segment(source, node) or "")


class Dropped(ast.NodeTransformer):
    """Makes an expression of every such `raise`."""

    def __init__(self, source: str) -> None:
        self.source = source

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        if node.exc is None or not has(node, self.source, PIECE):
            return node
        return ast.copy_location(ast.Expr(node.exc), node)


class Changed(SourceFileLoader):
    """Loads a module without its check."""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_source(fullname) or ""
        return compile(Dropped(source).visit(ast.parse(source)), self.path, "exec")


class Finder(MetaPathFinder):
    """Finds the modules that are to be changed."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path)  # type: ignore[arg-type]
        if spec is None or spec.origin not in PLACES:
            return None
        spec.loader = Changed(fullname, spec.origin)
        return spec


PIECE = sys.argv.pop(1)
PLACES = places(PIECE) if PIECE else set()
if PIECE and not PLACES:
    print(f"no raise statement has {PIECE!r}", file=sys.stderr)
    sys.exit(97)
sys.meta_path.insert(0, Finder())

from builder.cli.main import main  # noqa: E402

sys.exit(main())
