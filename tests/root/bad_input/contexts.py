"""Contexts that a build cannot use."""

from __future__ import annotations

import os

from bad_input.case import Case
from bad_input.laying import files


def _links_in_a_circle() -> None:
    files({"Dockerfile": "FROM busybox\nCOPY round/file /a\n"})()
    os.symlink("round", "round")


def _copy(
    name: str, source: str, more: dict[str, str], says: tuple[str, ...], check: str, code: int = 2
) -> Case:
    laid = {"Dockerfile": f"FROM busybox\nCOPY {source} /there\n", "a/file.txt": "content\n", **more}
    return Case(name, files(laid), ("build", "."), ("Dockerfile:2", *says), check, code)


CASES = (
    Case(
        "no-such-directory",
        files({}),
        ("build", "nowhere"),
        ("the context 'nowhere' is no directory", "hint: "),
        "the context {context!r} is no directory",
    ),
    Case(
        "no-dockerfile",
        files({"a": "content\n"}),
        ("build", "."),
        ("./Dockerfile cannot be read", "hint: name it with --file"),
        "{shown} cannot be read",
    ),
    _copy("no-such-file", "b.txt", {}, ("b.txt", ">>> COPY b.txt /there"), "_not_found(tree"),
    _copy(
        "left-out-by-ignore-file",
        "a/file.txt",
        {".dockerignore": "*.md\n**/*.txt\n"},
        ("a/file.txt is left out of the context by its ignore file", "hint: add the line !a/file.txt"),
        "_not_found(tree",
    ),
    Case(
        "bad-ignore-pattern",
        files(
            {"Dockerfile": "FROM busybox\nCOPY a /there\n", "a": "content\n", ".dockerignore": "good\n[a-\n"}
        ),
        ("build", "."),
        (".dockerignore:2", ">>> [a-", "write [a-z]"),
        "ContextError(str(error), at=error.at)",
    ),
    _copy(
        "bad-glob",
        "a[ a/*",
        {},
        ("`a[`", "write [[]"),
        "has no proper end",
        1,
    ),
    _copy(
        "whiteout-name",
        "a",
        {"a/.wh.gone": "not a whiteout\n"},
        ("a name with .wh. in front marks a removed file", "name it in .dockerignore"),
        "cannot be in an image",
        1,
    ),
    Case(
        "links-in-a-circle",
        _links_in_a_circle,
        ("build", "."),
        ("Dockerfile:2", "round/file cannot be followed", "symbolic links"),
        "{written} cannot be followed",
    ),
    Case(
        "named-context-missing",
        files({"Dockerfile": "FROM busybox\n"}),
        ("build", "--build-context", "more=nowhere", "."),
        ("--build-context more=nowhere", "there is no such directory"),
        "{value}: there is no such directory",
    ),
)
