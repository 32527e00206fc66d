"""Quotes, escapes and `${}`."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.frontend.globs import Glob
from builder.frontend.words import MAX_DEPTH, MAX_GROWTH, SPACE, Lexer, WordError

ENV = {
    "A": "a",
    "E": "",
    "S": "x y",
    "P": "/usr/lib/a.tar.gz",
    "D": "$A",
    "é": "accent",
    "1": "one",
    "Q": "it's",
    "L": "one\ntwo",
}

WORDS = [
    ("plain", "plain"),
    ("$A", "a"),
    ("${A}", "a"),
    ("$A$A-$E.", "aa-."),
    ("$NO", ""),
    ("$", "$"),
    ("a$", "a$"),
    ("$ A", "$ A"),
    ("$/x", "$/x"),
    ("$Ab", ""),
    ("${A}b", "ab"),
    ("$é", "accent"),
    ("$12", ""),
    ("$1x", "onex"),
    ("$@$?", ""),
    ("$D", "$A"),
    (r"\$A", "$A"),
    (r"\\$A", r"\a"),
    (r"a\b", "ab"),
    ("a\\", "a"),
    ("'$A'", "$A"),
    (r"'a\'", r"a\\"[:2]),
    ('"$A"', "a"),
    ('"a b"', "a b"),
    (r'"\$A \" \\ \n"', r"$A " + '" \\ \\n'),
    ("\"'$A'\"", "'a'"),
    ("'\"'", '"'),
    ("a'b'\"c\"d", "abcd"),
    ("${A:-x}", "a"),
    ("${E:-x}", "x"),
    ("${E-x}", ""),
    ("${NO:-x}", "x"),
    ("${NO-x}", "x"),
    ("${NO:-$A}", "a"),
    ("${NO:-${E:-${A}}}", "a"),
    ('${NO:-"a b"}', "a b"),
    ("${NO:-'}'}", "}"),
    (r"${NO:-\}}", "}"),
    ("${A:+x}", "x"),
    ("${E:+x}", ""),
    ("${E+x}", "x"),
    ("${NO+x}", ""),
    ("${A:?bad}", "a"),
    ("${E?bad}", ""),
    ("${P#*/}", "usr/lib/a.tar.gz"),
    ("${P##*/}", "a.tar.gz"),
    ("${P%.*}", "/usr/lib/a.tar"),
    ("${P%%.*}", "/usr/lib/a"),
    ("${P#/???}", "/lib/a.tar.gz"),
    ("${P#nope}", "/usr/lib/a.tar.gz"),
    ("${P%$A}", "/usr/lib/a.tar.gz"),
    ("${P%.g$NO*}", "/usr/lib/a.tar"),
    ("${NO#x}", ""),
    ("${A#*}", "a"),
    ("${A##*}", ""),
    ("${P/a/b}", "/usr/lib/b.tar.gz"),
    ("${P//a/b}", "/usr/lib/b.tbr.gz"),
    (r"${P//\//_}", "_usr_lib_a.tar.gz"),
    ("${P/l*b/x}", "/usr/x/a.tar.gz"),
    ("${P//r*/x}", "/usx"),
    ("${P/a/}", "/usr/lib/.tar.gz"),
    ("${NO/a/b}", ""),
    ("${A//*/x}", "x"),
    ("${L#*e}", "\ntwo"),
    ("${L##*o}", "ne\ntwo"),
]


@pytest.mark.parametrize(("word", "expected"), WORDS)
def test_a_word_expands(word: str, expected: str) -> None:
    assert Lexer().process(word, ENV).text == expected
    assert Lexer().expand(word, ENV) == expected


BROKEN = [
    ("${", "never closed"),
    ("${A", "never closed"),
    ("${A:-x", "never closed"),
    ("${A/x", "never closed"),
    ("${A/x/y", "never closed"),
    ("${}", "bad substitution"),
    ("${:A}", "bad substitution"),
    ("${{A}}", "bad substitution"),
    ("${A!x}", "no operator"),
    ("${A:#x}", "no operator"),
    ("${A:%x}", "no operator"),
    ("${A:=x}", "no operator"),
    ("${A^x}", "no operator"),
    ("${NO:?must be set}", "NO: must be set"),
    ("${NO?}", "NO: is not allowed to be unset"),
    ("${E:?}", "E: is not allowed to be empty"),
    (r"${A#\x}", "invalid pattern"),
    ("'a", "single quote"),
    ('"a', "double quote"),
    ('"a\\', "double quote"),
    ("${NO:-'a}", "quote"),
]


@pytest.mark.parametrize(("word", "text"), BROKEN)
def test_a_word_that_cannot_be_read_says_why(word: str, text: str) -> None:
    with pytest.raises(WordError, match=re.escape(text)):
        Lexer().process(word, ENV)


HINTS = [
    ("${A", "}"),
    ("${A:-x", "}"),
    ("${A/x", "${NAME/PATTERN/TEXT}"),
    ("${}", "${NAME}"),
    ("${A:#x}", "`${A#PATTERN}` removes a prefix"),
    ("${A:%x}", "`${A%PATTERN}` removes a suffix"),
    ("${A:=x}", "`ARG A=word` sets a default"),
    ("${A^x}", "operators are"),
    ("'a", r"\'"),
    ('"a', r"\""),
]


@pytest.mark.parametrize(("word", "hint"), HINTS)
def test_a_word_that_cannot_be_read_says_what_to_write(word: str, hint: str) -> None:
    with pytest.raises(WordError) as caught:
        Lexer().process(word, ENV)
    assert hint in caught.value.hint


SPLIT = [
    ("a b", ("a", "b")),
    ("  a \t b  ", ("a", "b")),
    ("$S", ("x", "y")),
    ('"$S"', ("x y",)),
    ("a$S", ("ax", "y")),
    (r"a\ b", ("a b",)),
    ("'a b' c", ("a b", "c")),
    ("$NO a", ("a",)),
    ('"" a', ("a",)),
    ("", ()),
    ("a\u00a0b", ("a", "b")),
    ("a\x1fb", ("a\x1fb",)),
]


@pytest.mark.parametrize(("word", "expected"), SPLIT)
def test_unquoted_white_space_splits(word: str, expected: tuple[str, ...]) -> None:
    assert Lexer().split(word, ENV) == expected


def test_the_backtick_escapes_where_the_directive_says_so() -> None:
    assert Lexer("`").expand(r"`$A c:\x", ENV) == r"$A c:\x"
    assert Lexer("`").expand('"`""', ENV) == '"'


def test_ways_to_read() -> None:
    lexer = Lexer("`")
    shown = lexer.variant(raw_quotes=True, keep_unset=True)
    assert shown.expand("\"$A\" '$A' $NO ${NO} ${NO:-x} ${NO#x} ${NO/a/b}", ENV) == (
        "\"a\" '$A' $NO ${NO} ${NO:-x} ${NO#x} ${NO/a/b}"
    )
    body = lexer.variant(escape="\\", plain_quotes=True)
    assert body.process(r"""it's "$A" \$A \\""", ENV).text == 'it\'s "a" $A \\'
    assert lexer.variant(escape="\\", raw_escapes=True).process(r"a\ b", ENV).words == (r"a\ b",)


def test_the_names_asked_for_are_known() -> None:
    expansion = Lexer().process("$A ${NO:-$E} '$Q'", ENV)
    assert expansion.used == {"A", "E"}
    assert expansion.missing == {"NO"}


def test_nesting_has_an_end() -> None:
    deep = "${NO:-" * MAX_DEPTH + "x" + "}" * MAX_DEPTH
    assert Lexer().expand(deep, {}) == "x"
    with pytest.raises(WordError, match="deep"):
        Lexer().expand("${NO:-" * 100_000, {})


def test_growth_has_an_end() -> None:
    lexer, value = Lexer(), "x" * 1000
    with pytest.raises(WordError, match="MiB"):
        for _ in range(40):
            value = lexer.expand("$A$A", {"A": value})
    assert len(value) <= MAX_GROWTH
    with pytest.raises(WordError, match="MiB"):
        Lexer().expand("${A//x/" + "y" * 20_000 + "}", {"A": "x" * 1000})


_TEXT = st.text("abA$ES{}:-+?#%/*'\"\\ é", max_size=30)


@given(_TEXT)
def test_any_text_expands_or_says_why(word: str) -> None:
    try:
        Lexer().process(word, ENV)
    except WordError as error:
        assert str(error)


@given(st.text(st.characters(exclude_characters="$'\"\\" + SPACE, codec="utf-8"), min_size=1))
def test_a_word_without_anything_special_is_itself(word: str) -> None:
    assert Lexer().split(word, ENV) == (word,)


_PATTERN = st.text("ab*?", max_size=6)
_VALUE = st.text("ab\n", max_size=10)


def _regex(pattern: str, lazy: str = "") -> str:
    return "".join({"*": f".*{lazy}", "?": "."}.get(each, each) for each in pattern)


@given(_PATTERN, _VALUE)
def test_prefixes_and_suffixes_are_the_shortest_and_longest(pattern: str, value: str) -> None:
    glob = Glob(pattern)
    starts = [end for end in range(len(value) + 1) if re.fullmatch(_regex(pattern), value[:end])]
    ends = [at for at in range(len(value) + 1) if re.fullmatch(_regex(pattern), value[at:])]
    assert glob.without_prefix(value, longest=False) == value[min(starts, default=0) :]
    assert glob.without_prefix(value, longest=True) == value[max(starts, default=0) :]
    assert glob.without_suffix(value, longest=False) == value[: max(ends, default=len(value))]
    assert glob.without_suffix(value, longest=True) == value[: min(ends, default=len(value))]


@given(_PATTERN.filter(lambda text: text.strip("*")), _VALUE)
def test_replacing_is_leftmost_and_longest(pattern: str, value: str) -> None:
    expression = re.compile(_regex(pattern))
    assert Glob(pattern).replace(value, "X", every=False, limit=1000) == expression.sub("X", value, count=1)
    assert Glob(pattern).replace(value, "X", every=True, limit=1000) == expression.sub("X", value)


def test_an_empty_match_next_to_a_match_does_not_count() -> None:
    assert Glob("*").replace("ab", "X", every=True, limit=9) == "X"
    assert Glob("").replace("ab", "-", every=True, limit=9) == "-a-b-"


def test_no_pattern_takes_long() -> None:
    start = time.thread_time()
    Lexer().expand("${A//" + "*a" * 1000 + "b/x}${A##" + "*a" * 1000 + "b}", {"A": "a" * 20_000})
    assert time.thread_time() - start < 20
