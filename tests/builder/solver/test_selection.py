"""What the flags of COPY pick: --parents with its pivot, --exclude, --if-exists (I26, I27, D19)."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.contexts.local import LocalContext
from builder.errors import ContextError, DockerfileError
from builder.graph import ContextSource, Copy
from builder.solver.placing import NOTHING, place
from builder.solver.selection import select
from oci.tar import Kind

FILES = [
    "x/a.txt", "x/b.md", "y/a.txt", "y/deep/c.txt", "y/deep/d.md", "y/deep/er/e.txt", "z.txt", "-odd", "#odd",
    "node_modules/m/i.js", "p/node_modules/n/i.js", "p/keep/k.js",
]  # fmt: skip


@pytest.fixture
def context(tmp_path: Path) -> LocalContext:
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "link").symlink_to("y/deep")
    (tmp_path / "empty").mkdir()
    (tmp_path / "x").chmod(0o711)
    return LocalContext(str(tmp_path))


def copied(context: LocalContext, *paths: str, dest: str = "/d/", **flags: object) -> list[str]:
    """The files that come to lie below `dest`, directories with a slash when nothing is in them."""
    op = Copy((ContextSource(paths),), dest, into_directory=dest.endswith("/"), **flags)  # type: ignore[arg-type]
    with context:
        placed = place(op, select(op, lambda _: context), NOTHING).placed
    names = [
        path.decode() + "/" * (each.node.kind is Kind.DIRECTORY)
        for path, each in placed.items()
        if each.node.kind is not Kind.DIRECTORY or not any(other.startswith(path + b"/") for other in placed)
    ]
    return sorted(name.removeprefix(dest.strip("/") + "/") for name in names)


PARENTS = [
    (("x/a.txt", "y/a.txt"), ["x/a.txt", "y/a.txt"]),
    (("x",), ["x/a.txt", "x/b.md"]),
    (("y/*.txt",), ["y/a.txt"]),
    (("y/./deep/c.txt",), ["deep/c.txt"]),
    (("y/./deep/",), ["deep/c.txt", "deep/d.md", "deep/er/e.txt"]),
    (("y/./**/*.txt",), ["a.txt", "deep/c.txt", "deep/er/e.txt"]),
    (("**/*.md",), ["x/b.md", "y/deep/d.md"]),
    (("y/./.",), ["a.txt", "deep/c.txt", "deep/d.md", "deep/er/e.txt"]),
    (("link/./c.txt",), ["c.txt"]),  # what is before the pivot is followed
    (("*/./a.txt",), ["a.txt"]),
    (("nothing*",), []),
    (("#odd", "-odd"), ["#odd", "-odd"]),
    (("empty",), ["empty/"]),
]


@pytest.mark.parametrize(("paths", "expected"), PARENTS)
def test_parents(context: LocalContext, paths: tuple[str, ...], expected: list[str]) -> None:
    assert copied(context, *paths, parents=True) == expected


def test_parents_brings_the_directories_metadata(context: LocalContext) -> None:
    op = Copy((ContextSource(("x/a.txt",)),), "/d/", into_directory=True, parents=True)
    with context:
        placed = place(op, select(op, lambda _: context), NOTHING).placed
    assert placed[b"d/x"].node.mode == 0o711
    assert b"d/y" not in placed


def test_parents_reads_only_what_can_match(context: LocalContext) -> None:
    op = Copy((ContextSource(("x/a.txt",)),), "/d/", into_directory=True, parents=True)
    with context:
        select(op, lambda _: context)
        assert set(context._lister.listings) == {b"", b"x"}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("x/c.txt", "x/c.txt is not in the context"),
        ("y/./c", "y/c is not"),
        ("z.txt/./a", "stands after a directory"),
        ("[", "proper end"),
        ("link/gone.txt", "link/gone.txt is not in the context"),
        ("link/c.txt", "link/c.txt leads through a symbolic link"),
    ],
)
def test_parents_of_nothing(context: LocalContext, path: str, message: str) -> None:
    with pytest.raises((ContextError, DockerfileError), match=message):
        copied(context, path, parents=True)


def test_a_link_that_leads_nowhere_is_told_as_one(context: LocalContext, tmp_path: Path) -> None:
    (tmp_path / "host").symlink_to("/etc/nobody-has-this")
    with pytest.raises(ContextError, match=r"^host is not in the context$") as caught:
        copied(context, "host")
    assert caught.value.hint == "it is a symbolic link to /etc/nobody-has-this, which is not there"


EXCLUDE = [
    (("y",), ("*.txt",), ["deep/c.txt", "deep/d.md", "deep/er/e.txt"]),
    (("y",), ("**/*.txt",), ["deep/d.md", "deep/er/"]),
    (("y",), ("deep",), ["a.txt"]),
    (("y",), ("deep/*", "!deep/d.md"), ["a.txt", "deep/d.md"]),
    (("y",), ("deep", "!deep/er/e.txt"), ["a.txt", "deep/er/e.txt"]),
    (("x/*",), ("*.md",), ["a.txt"]),
    (("z.txt", "x/a.txt"), ("z.*",), ["a.txt"]),
    ((".",), ("**/node_modules", "x", "y", "*odd", "z.txt", "empty", "link"), ["p/keep/k.js"]),
    ((".",), ("*", "!#odd"), ["#odd"]),
]


@pytest.mark.parametrize(("paths", "left_out", "expected"), EXCLUDE)
def test_exclude(
    context: LocalContext, paths: tuple[str, ...], left_out: tuple[str, ...], expected: list[str]
) -> None:
    assert copied(context, *paths, exclude=left_out) == expected


def test_exclude_with_parents_is_seen_from_the_pivot(context: LocalContext) -> None:
    assert copied(context, "y/./deep", parents=True, exclude=("deep/*.md",)) == [
        "deep/c.txt",
        "deep/er/e.txt",
    ]


def test_a_bad_pattern_says_which_flag(context: LocalContext) -> None:
    with pytest.raises(DockerfileError, match=r"--exclude: .*proper end"):
        copied(context, "x", exclude=("[",))


def test_if_exists_passes_over_what_is_missing(context: LocalContext) -> None:
    assert copied(context, "x/a.txt", "gone", "gone/*", optional=True) == ["a.txt"]
    assert copied(context, "gone", optional=True) == []
    assert copied(context, "gone/./a", "x/./a.txt", optional=True, parents=True) == ["a.txt"]


def test_link_makes_its_own_directories(context: LocalContext) -> None:
    op = Copy((ContextSource(("z.txt",)),), "/a/b/c", link=True)
    with context:
        placed = place(op, select(op, lambda _: context), NOTHING).placed
    assert [(path, each.node.mode) for path, each in placed.items()] == [
        (b"a", 0o755), (b"a/b", 0o755), (b"a/b/c", 0o644),
    ]  # fmt: skip
