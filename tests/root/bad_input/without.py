"""Run pybuild with one of its checks taken out: `without.py PIECE ARG...`; an empty PIECE takes out none.

PIECE is source text that exactly one `raise` statement of the program has, wherever it stands. There the
error is made and dropped, and the program goes on. It is changed as it is imported, not on disk. Exit code 97
when no statement or several have it: the check was reworded then, and the case has to learn how.
"""

from __future__ import annotations

import ast
import glob
import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType


def found(piece: str) -> list[tuple[str, int]]:
    """File and line of every `raise` that has the piece."""
    places = []
    for package in ("builder", "oci"):
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        for path in glob.glob(f"{spec.submodule_search_locations[0]}/**/*.py", recursive=True):
            with open(path, encoding="utf-8") as file:
                source = file.read()
            if piece in source:
                places += [(path, node.lineno) for node in raises(ast.parse(source), source, piece)]
    return places


def raises(tree: ast.AST, source: str, piece: str) -> list[ast.Raise]:
    """The statements of a module that have the piece."""
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    return [node for node in statements if piece in (ast.get_source_segment(source, node) or "")]


class Dropped(ast.NodeTransformer):
    """Makes an expression of the `raise` in one line."""

    def visit_Raise(self, node: ast.Raise) -> ast.stmt:
        if node.lineno != LINE or node.exc is None:
            return node
        return ast.copy_location(ast.Expr(node.exc), node)


class Changed(SourceFileLoader):
    """Loads a module without its check."""

    def get_code(self, fullname: str) -> CodeType:
        tree = Dropped().visit(ast.parse(self.get_source(fullname) or ""))
        return compile(tree, self.path, "exec")


class Finder(MetaPathFinder):
    """Finds the one module that is to be changed."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in ("builder", "oci"):
            return None
        spec = PathFinder.find_spec(fullname, path)  # type: ignore[arg-type]
        if spec is None or spec.origin != PATH:
            return None
        spec.loader = Changed(fullname, PATH)
        return spec


PIECE = sys.argv.pop(1)
if PIECE:
    places = found(PIECE)
    if len(places) != 1:
        print(f"{PIECE!r} stands in {len(places)} raise statements: {places}", file=sys.stderr)
        sys.exit(97)
    PATH, LINE = places[0]
    PATH = os.path.realpath(PATH) if os.path.exists(PATH) else PATH
    sys.meta_path.insert(0, Finder())

from builder.cli.main import main  # noqa: E402

sys.exit(main())
