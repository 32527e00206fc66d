"""`pybuild context ls`: names, sizes, trees and reasons, without a store."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

Pybuild = Any


@pytest.fixture
def context(tmp_path: Path) -> str:
    top = tmp_path / "context"
    for name, content in {
        "Dockerfile": "FROM scratch\n",
        ".dockerignore": "# what stays out\n*.log\nsecret\n!important.log\nd/**\n!d/deep/kept\n",
        "a.log": "x",
        "important.log": "x" * 2000,
        "secret/key": "x",
        "src/main.c": "x" * 10,
        "src/lib/l.c": "x" * 5,
        "d/deep/kept": "k",
        "d/gone": "g",
    }.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(content)
    return str(top)


def test_names(pybuild: Pybuild, context: str) -> None:
    assert pybuild.ok("context", "ls", context).split() == [
        ".dockerignore", "Dockerfile", "d/deep/kept", "important.log", "src/lib/l.c", "src/main.c",
    ]  # fmt: skip
    assert not os.path.exists(pybuild.root)


def test_sizes_the_largest_first(pybuild: Pybuild, context: str) -> None:
    rows = [line.split(maxsplit=1) for line in pybuild.ok("context", "ls", "--size", context).splitlines()]
    assert rows[0] == ["2kB", "important.log"]
    assert rows[-1][1] == "in 10 files and directories"


def test_a_tree_has_the_sizes_of_what_is_in_directories(pybuild: Pybuild, context: str) -> None:
    lines = pybuild.ok("context", "ls", "--tree", context).splitlines()
    assert "    15B  src/" in lines
    assert "     5B      l.c" in lines


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("a.log", "a.log is left out by {0}:2: *.log"),
        ("secret/key", "secret/key is left out by {0}:3: secret"),
        ("./important.log", "important.log is in the context: taken back by {0}:4: !important.log"),
        ("src/main.c", "src/main.c is in the context: no line of an ignore file matches it"),
        (
            "d/deep",
            "d/deep is left out by {0}:5: d/**; the directory is there for what is taken back below it",
        ),
        ("d/gone", "d/gone is left out by {0}:5: d/**"),
    ],
)
def test_reasons(pybuild: Pybuild, context: str, path: str, said: str) -> None:
    assert (
        pybuild.ok("context", "ls", "--why", path, context) == said.format(f"{context}/.dockerignore") + "\n"
    )


def test_a_reason_for_what_is_not_there(pybuild: Pybuild, context: str) -> None:
    ran = pybuild("context", "ls", "--why", "nothing", context)
    assert (ran.code, "nothing is not in the context" in ran.err) == (1, True)


def test_another_ignore_file_and_a_dockerfiles_own(pybuild: Pybuild, context: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("*\n!a.log\n")
    assert pybuild.ok("context", "ls", "--ignorefile", str(tmp_path / "mine"), context) == "a.log\n"
    Path(context, "x.Dockerfile").write_text("FROM scratch\n")
    Path(context, "x.Dockerfile.dockerignore").write_text("*\n!src/main.c\n")
    assert pybuild.ok("context", "ls", "-f", f"{context}/x.Dockerfile", context) == "src/main.c\n"


def test_an_archive_on_standard_input(pybuild: Pybuild, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("in/side"), io.BytesIO())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(out.getvalue())))
    assert pybuild.ok("context", "ls", "-") == "in/side\n"


def test_names_that_steer_terminals_are_shown(pybuild: Pybuild, context: str) -> None:
    Path(context, "a\x1b[31m\nb").write_text("")
    assert "a\\x1b[31m\\nb\n" in pybuild.ok("context", "ls", context)
