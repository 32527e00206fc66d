"""What start-up loads. It is part of the product, and an import is easily added (names, not milliseconds)."""

from __future__ import annotations

import ast
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

HEAVY = {
    "asyncio", "blake3", "concurrent.futures", "ctypes", "dockerfile_parse", "email", "http",
    "importlib.metadata", "isal", "jsonschema", "multiprocessing", "queue", "requests", "rich",
    "secrets", "socket", "sqlite3",
    "ssl", "subprocess", "tarfile", "tempfile", "traceback", "unittest", "urllib", "zipfile",
    "zstandard", "builder.building", "builder.frontend", "builder.solver", "builder.sandbox",
    "builder.snapshot",
    "builder.export", "builder.cli.templates", "oci.compress", "oci.tar", "oci.apply", "oci.archive",
    "oci.schema", "oci.validate",
}  # fmt: skip
"""What neither `--help` nor `images` may load. (click itself loads shutil to measure the terminal.)"""

ALLOWED = {
    "--version": {"builder", "builder.cli", "builder.cli.main", "builder.version", "oci"},
    "--help": {
        "builder", "builder.cli", "builder.cli.group", "builder.cli.main", "builder.cli.output",
        "builder.cli.session", "builder.cli.text", "builder.errors", "builder.interrupts",
        "oci", "oci.errors",
    },
}  # fmt: skip
"""All of our own modules that these may load."""


def loaded(*args: str, root: str = "/nonexistent") -> set[str]:
    """The modules in memory when a command line has been run."""
    line = list(args) if args[0].startswith("-") else ["--root", root, *args]
    code = (
        "import sys\nfrom builder.cli import main\n"
        f"code = main.run({line!r})\n"
        "sys.stderr.write(chr(10).join(sys.modules))\nsys.exit(code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split("\n"))


@pytest.mark.parametrize(
    "args", [("--version",), ("--help",), ("images",), ("ps",), ("images", "--help"), ("build", "--help")]
)
def test_nothing_heavy(args: tuple[str, ...], tmp_path: object) -> None:
    modules = loaded(*args, root=f"{tmp_path}/store")
    assert not HEAVY & modules


@pytest.mark.parametrize("option", sorted(ALLOWED))
def test_our_own_modules_are_counted(option: str) -> None:
    modules = loaded(option)
    assert {name for name in modules if name.split(".")[0] in ("builder", "oci")} <= ALLOWED[option]
    assert "click" not in modules or option == "--help"


def test_help_imports_no_command() -> None:
    from builder.cli import main

    assert not {main.module_of(name) for name in main.COMMANDS} & loaded("--help")


def test_the_sandbox_imports_the_standard_library_only() -> None:
    folder = os.path.join(ROOT, "builder", "sandbox")
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".py"):
            continue
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            tree = ast.parse(file.read())
        for node in ast.walk(tree):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for each in names:
                ours = each == "builder.sandbox" or each.startswith("builder.sandbox.")
                assert ours or each.split(".")[0] in sys.stdlib_module_names, f"{name}: {each}"
