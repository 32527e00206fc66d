"""Ignore files, and where the Dockerfile lies."""

# ruff: noqa: E501  (Dockerfiles and what history says of them are not wrapped)
from __future__ import annotations

from equality.case import Case
from judges.files import Dir, File, Files, Link

_ALL = "FROM busybox-test\nCOPY . /all\n"
_TREE: Files = {
    "a.txt": "a",
    "b.log": "b",
    "keep.log": "k",
    "d/a.txt": "da",
    "d/b.log": "db",
    "d/e/c.log": "dec",
    "d/e/f/deep.tmp": "deep",
    "node/x/node/y": "y",
    "build/out": "o",
    "build/keep/me": "m",
    "build/keep/not": "n",
    ".git/config": "g",
    "empty": Dir(),
    "name with blank": "nb",
    "!bang": "!",
    "#hash": "#",
    "link": Link("build/out"),
}

CASES = (
    Case("ignore-simple", _ALL, files={**_TREE, ".dockerignore": "a.txt\n*.log\n.git\nbuild\n"}),
    Case(
        "ignore-exceptions-last-wins",
        _ALL,
        files={**_TREE, ".dockerignore": "*\n!d\n!build/keep/me\nd/e\n!d/e/f\n!keep.log\nkeep.log\n!*.txt\n"},
    ),
    Case(
        "ignore-double-star",
        _ALL,
        files={
            **_TREE,
            ".dockerignore": "**/*.log\n!**/keep.log\nnode/**/node\n**/f/**\nbuild/**\n!build/keep/**\n",
        },
    ),
    Case(
        "ignore-comments-blanks-and-cleaning",
        _ALL,
        files={
            **_TREE,
            ".dockerignore": "\ufeff# a comment\n\n  a.txt  \n/b.log\n./keep.log\nd//e/\n ! name with blank\n\\#hash\n\\!bang\nbuild/../.git\n",
        },
    ),
    Case(
        "ignore-question-marks-and-classes",
        _ALL,
        files={
            **_TREE,
            ".dockerignore": "?.txt\nd/[a-b].*\nbuild/*/[!m]*\nd/e/[^x].log\n".replace("[!m]", "[^m]"),
        },
    ),
    Case(
        "ignore-file-beside-the-dockerfile-wins",
        _ALL,
        files={
            **_TREE,
            ".dockerignore": "a.txt\n",
            "special.Dockerfile.dockerignore": "b.log\n*.dockerignore\n",
        },
        dockerfile_name="special.Dockerfile",
    ),
    Case(
        "ignore-dockerfile-itself",
        _ALL,
        files={"a": "a", ".dockerignore": "Dockerfile\n.dockerignore\n"},
    ),
    Case(
        "ignore-applies-to-globs-and-directories",
        "FROM busybox-test\nCOPY *.txt *.log d /x/\nCOPY build /b/\n",
        files={**_TREE, ".dockerignore": "d/e\nb.log\nbuild/keep\n"},
    ),
    Case(
        "fails-copy-of-an-ignored-file",
        "FROM busybox-test\nCOPY a.txt /\n",
        files={**_TREE, ".dockerignore": "*.txt\n"},
        fails=r"Dockerfile:2[\s\S]*a\.txt",
    ),
    Case(
        "dockerfile-outside-the-context",
        "FROM busybox-test\nCOPY a /a\n",
        files={"a": "a"},
        dockerfile_name="../elsewhere.Dockerfile",
    ),
    Case(
        "dockerfile-in-a-subdirectory",
        _ALL,
        files={"docker": Dir(0o700), "a": File("a", 0o600), "docker/web.df.dockerignore": "docker\n"},
        dockerfile_name="docker/web.df",
    ),
    Case(
        "context-named-has-its-own-ignore-file",
        "FROM busybox-test\nCOPY --from=lib / /lib/\n",
        files={".dockerignore": "yes.txt\n"},
        beside={"more": {".dockerignore": "no.txt\n", "no.txt": "n", "yes.txt": "y"}},
        args=("--build-context", "lib={more}"),
        reference="golden",
        why="named contexts are Dockerfile 1.4",
        tree={"/lib": Dir(), "/lib/.dockerignore": "no.txt\n", "/lib/yes.txt": "y"},
        config={},
    ),
)
