"""Ignore files and COPY globs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from builder.patterns import MAX_PATTERN, IgnoreFile, PatternError, glob_match

LEFT_OUT = [
    ("a", "a", True),
    ("a", "a/b", True),
    ("a", "b/a", False),
    ("a", "ab", False),
    ("/a/b", "a/b", True),
    ("a/", "a", True),
    ("./a", "a", True),
    ("a//b/../c", "a/c", True),
    ("  a  ", "a", True),
    ("*.md", "x.md", True),
    ("*.md", "d/x.md", False),
    ("*/*.md", "d/x.md", True),
    ("**/*.md", "x.md", True),
    ("**/*.md", "d/e/x.md", True),
    ("**.md", "d/e/x.md", True),
    ("**c/x", "abc/x", True),
    ("**c/x", "q/abc/x", True),
    ("**", "anything/at/all", True),
    ("d/**", "d", False),
    ("d/**", "d/x", True),
    ("d/**", "d/e/x", True),
    ("d/**/x", "d/x", True),
    ("d/**/x", "d/e/f/x", True),
    ("d/**/x", "d/ex", False),
    ("**/d/**", "a/d/x", True),
    ("**/d/**", "a/d", False),
    ("a**b", "ab", True),
    ("a**b", "axb", False),
    ("a**b", "ax/yb", False),
    ("a**b", "ax/b", True),
    ("a**b", "ax/y/b", True),
    ("a**", "abc/d", True),
    ("a?c", "abc", True),
    ("a?c", "a/c", False),
    ("a?c", "aéc", True),
    ("[a-c]x", "bx", True),
    ("[^a-c]x", "bx", False),
    ("[^a-c]x", "zx", True),
    (r"a\*", "a*", True),
    (r"a\*", "ab", False),
    (r"\!a", "!a", True),
    (r"\#a", "#a", True),
    (" #a", "#a", True),
    ("a.b+(c)|{d}$^", "a.b+(c)|{d}$^", True),
    ("a.b", "axb", False),
    ("a\n!a/b", "a/b", False),
    ("a\n!a/b", "a/c", True),
    ("a\n!a/b\na/b/c", "a/b/c", True),
    ("!a\na", "a", True),
    ("*\n!src", "src/x", False),
    ("*\n!src", "lib", True),
    ("*\n!src\nsrc/x", "src/x/y", True),
    ("a\n!**/keep", "a/b/keep", False),
    ("a\n! b", "b", False),
    ("..", "a", False),
    (".", "a", False),
    ("/", "a", False),
    ("", "a", False),
    ("# a", "a", False),
    ("\ufeffa", "a", True),
    ("a\r\nb\r\n", "b", True),
]


@pytest.mark.parametrize(("lines", "path", "left_out"), LEFT_OUT)
def test_a_path_is_left_out_as_docker_does(lines: str, path: str, left_out: bool) -> None:
    assert IgnoreFile.parse(lines).ignored(path) is left_out


def test_the_root_is_never_left_out() -> None:
    ignore = IgnoreFile.parse("**\n.")
    assert not ignore.ignored("")
    assert not ignore.ignored(".")


def test_bytes_that_are_no_utf8_are_names_like_others() -> None:
    ignore = IgnoreFile.parse(b"\xff\nb?d\n")
    assert ignore.ignored(b"\xff")
    assert ignore.ignored(b"b\xfed")


@pytest.mark.parametrize(
    ("pattern", "line"), [("a\n[", 2), ("[]", 1), ("[a", 1), ("[-a]", 1), ("a\\", 1), ("!", 1), ("[a-", 1)]
)
def test_a_pattern_that_cannot_be_read_is_named_with_its_line(pattern: str, line: int) -> None:
    with pytest.raises(PatternError) as caught:
        IgnoreFile.parse(pattern, "x.dockerignore")
    assert str(caught.value.at) == f"x.dockerignore:{line}"


def test_a_directory_is_looked_into_only_where_something_may_be_taken_back() -> None:
    ignore = IgnoreFile.parse("node_modules\ndist\n!dist/index.html\ncache\n!**/keep\n")
    root = ignore.enter()
    assert ignore.step(root, b"src", True)[0] is False
    assert ignore.step(root, b"node_modules", True)[1] is not None  # `!**/keep` may be anywhere
    plain = IgnoreFile.parse("node_modules\ndist\n!dist/index.html\n")
    assert plain.step(plain.enter(), b"node_modules", True) == (True, None)
    left_out, inside = plain.step(plain.enter(), b"dist", True)
    assert left_out and inside is not None
    assert plain.step(inside, b"index.html", False) == (False, None)
    assert plain.step(inside, b"other", False) == (True, None)
    assert plain.step(inside, b"deeper", True) == (True, None)


def test_a_taken_back_directory_stays_so_below() -> None:
    ignore = IgnoreFile.parse("*\n!src\n")
    _, src = ignore.step(ignore.enter(), b"src", True)
    assert src is not None
    assert ignore.step(src, b"x", False) == (False, None)


def _as_documented(lines: list[str], path: str) -> bool:
    """Another reading of the rules: every prefix of the path against every pattern, last match wins."""
    parts = path.split("/")
    prefixes = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    left_out = False
    for line in lines:
        pattern = line.removeprefix("!")
        if any(re.fullmatch(_slow(pattern), each, re.DOTALL) for each in prefixes):
            left_out = not line.startswith("!")
    return left_out


def _slow(pattern: str) -> str:
    if re.fullmatch(r"\*\*[^*?/][^*?]*", pattern):
        return ".*" + re.escape(pattern[2:])
    pattern = re.sub(r"\*\*/?$", "\0", pattern)
    pieces = {"\0": ".*", "**/": "(.*/)?", "**": "(.*/)?", "*": "[^/]*", "?": "[^/]"}
    return "".join(pieces.get(each, re.escape(each)) for each in re.findall(r"\*\*/?|.", pattern, re.DOTALL))


_PATTERNS = (
    st.lists(st.sampled_from(["a", "b", "/", "*", "**", "?", "**/"]), min_size=1, max_size=6)
    .map("".join)
    .filter(lambda text: re.fullmatch(r"(?!/)(?!.*//)(?!.*/$)(?!.*\*\*\*).*[^/]", text) is not None)
)
_LINES = st.lists(st.tuples(st.sampled_from(["", "!"]), _PATTERNS).map("".join), min_size=1, max_size=4)
_PATHS = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)


@given(_LINES, _PATHS)
@example(["a**b**a"], "ab/b/a")
@example(["*a*b", "!**/b"], "ab/b")
def test_the_automaton_agrees_with_the_rules_read_literally(lines: list[str], path: str) -> None:
    assert IgnoreFile(lines).ignored(path) is _as_documented(lines, path)


GLOBS = [
    ("*", "abc", True),
    ("*", "a/b", False),
    ("a*/b", "ac/b", True),
    ("*.[ch]", "x.c", True),
    ("*.[^ch]", "x.c", False),
    ("a?c", "a/c", False),
    ("**", "a/b", False),
    (r"\[a\]", "[a]", True),
    ("[[]a", "[a", True),
    ("[a-]", "a", None),
    ("a*b*c*d", "axbxcxd", True),
    ("a*b*c*d", "axbxcx", False),
    ("*b", "abb", True),
    ("", "", True),
    ("[z-a]", "b", False),
    ("[", "a", None),
]


@pytest.mark.parametrize(("pattern", "name", "matches"), GLOBS)
def test_a_glob_matches_as_filepath_match_does(pattern: str, name: str, matches: bool | None) -> None:
    if matches is None:
        with pytest.raises(PatternError):
            glob_match(pattern, name)
    else:
        assert glob_match(pattern, name) is matches


@given(st.text("ab/*?[]^-\\!#é", max_size=20), st.text("ab/*[]", max_size=8))
def test_any_text_is_a_pattern_or_a_pattern_error(pattern: str, path: str) -> None:
    try:
        IgnoreFile.parse(pattern).ignored(path)
        glob_match(pattern, path)
    except PatternError as error:
        assert str(error)


def test_no_pattern_takes_long() -> None:
    start = time.thread_time()
    ignore = IgnoreFile.parse("*a" * 60 + "b\n" + "**/a*/" * 20 + "c\n" + "a**b**a**b**a\n")
    ignore.ignored("/".join(["a" * 250] * 16))
    assert not glob_match("*a" * 60 + "b", "a" * 4000)
    assert time.thread_time() - start < 20


def test_a_file_costs_little_more_than_one_match() -> None:
    ignore = IgnoreFile.parse(".git\n**/*.pyc\nnode_modules\n*.md\n!README.md\n**/__pycache__\nbuild*/\n")
    _, state = ignore.step(ignore.enter(), b"src", True)
    names = [b"file%d.txt" % number for number in range(20_000)]
    one = re.compile(rb"[^/]*\.pyc").fullmatch

    def seconds(look: Callable[[bytes], object]) -> float:
        start = time.thread_time()
        for name in names:
            look(name)
        return time.thread_time() - start

    rounds = [
        (seconds(lambda name: ignore.step(state, name, False)), seconds(lambda name: one(name)))
        for _ in range(7)
    ]
    assert min(ours for ours, _ in rounds) < 12 * min(match for _, match in rounds), rounds


@pytest.mark.parametrize("pattern", ["a" * (MAX_PATTERN + 1), "?" * (MAX_PATTERN + 1), "[a]" * MAX_PATTERN])
def test_a_pattern_longer_than_any_path(pattern: str) -> None:
    with pytest.raises(PatternError, match="more than any path") as caught:
        glob_match(pattern, "a")
    assert len(str(caught.value)) < 200
    with pytest.raises(PatternError, match="more than any path") as caught:
        IgnoreFile.parse("x\n" + pattern)
    assert caught.value.at is not None and caught.value.at.first == 2


def test_more_wildcards_than_anybody_needs() -> None:
    IgnoreFile.parse("?" * 8000 + "\n" + "a/b\n" * 5000)
    with pytest.raises(PatternError, match="patterns with wildcards"):
        IgnoreFile.parse(("?" * 8000 + "\n") * 9)
