r"""`${}` gives what bash makes of it, where the two mean the same (P13).

Made-up values and nested words, in double quotes for bash. `make test` tries 500, `make test-differential`
20,000 (PYBUILD_EXAMPLES). Left out, because a Dockerfile differs from a shell there:

- an empty pattern: it matches between all characters (a regular expression does), in bash nowhere;
- `[...]`, `${v/#p/r}` and `&` in a replacement: literal characters here;
- `?` inside of another `${}`: here it is asked even where the word it stands in is not used;
- line ends: `*` and `?` do not match one here;
- `${v/p\*/r}`: bash takes the escaped star at the end for one that matches anything;
- quotes and escapes inside of `${v:-...}`: the double quotes around it change what bash makes of them;
  Docker is the judge of those (tests/interop/test_words_docker.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from builder.frontend.words import Lexer, WordError

EXAMPLES = int(os.environ.get("PYBUILD_EXAMPLES", "500"))
BASH = shutil.which("bash")
SET = ("A", "B", "C")
NAMES = (*SET, "UNSET")

_TEXT = st.text("aab.-_+^|é, ", max_size=4)
_VALUES = st.fixed_dictionaries({name: st.text("aabb*?./-é ", max_size=8) for name in SET})
_NAME = st.sampled_from(NAMES)


@st.composite
def _word(draw: st.DrawFn, depth: int = 0) -> str:
    parts = [_TEXT, _NAME.map("${{{}}}".format)]
    if depth < 3:
        parts += [_absent(depth + 1), _trimmed(depth + 1), _replaced(depth + 1)]
    return "".join(draw(st.lists(st.one_of(parts), min_size=1, max_size=3)))


@st.composite
def _pattern(draw: st.DrawFn, depth: int) -> str:
    parts = [
        st.sampled_from(["*", "?", r"\*", r"\?", "a", "b", ".", "é"]),
        _TEXT,
        _NAME.map("${{{}}}".format),
    ]
    if depth < 3:
        parts.append(_absent(depth + 1))
    first = draw(st.sampled_from(["*", "?", r"\*", "a", "b", "."]))
    return first + "".join(draw(st.lists(st.one_of(parts), max_size=3)))


@st.composite
def _absent(draw: st.DrawFn, depth: int) -> str:
    operators = [":-", "-", ":+", "+"] + [":?", "?"] * (depth == 1)
    operator = draw(st.sampled_from(operators))
    return f"${{{draw(_NAME)}{operator}{draw(_word(depth))}}}"


@st.composite
def _trimmed(draw: st.DrawFn, depth: int) -> str:
    operator = draw(st.sampled_from(["#", "##", "%", "%%"]))
    return f"${{{draw(_NAME)}{operator}{draw(_pattern(depth))}}}"


@st.composite
def _replaced(draw: st.DrawFn, depth: int) -> str:
    operator = draw(st.sampled_from(["/", "//"]))
    pattern = draw(_pattern(depth))
    if pattern.endswith(r"\*"):
        pattern += "a"
    return f"${{{draw(_NAME)}{operator}{pattern}/{draw(_word(depth))}}}"


def _by_bash(word: str, values: Mapping[str, str]) -> str | None:
    """What bash makes of it; None when it refuses, which `?` may ask for."""
    assert BASH
    done = subprocess.run(
        [BASH, "-c", f'printf %s "{word}"'],
        env={**values, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=False,
    )
    return None if done.returncode else done.stdout.decode()


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_word(), _VALUES)
@example("${A##*/}${A%.*}${A//a/bb}", {"A": "/a/a.tar", "B": "", "C": ""})
@example("${UNSET:?no}", {"A": "", "B": "", "C": ""})
def test_words_are_what_bash_makes_of_them(word: str, values: dict[str, str]) -> None:
    try:
        ours: str | None = Lexer().process(word, values).text
    except WordError:
        ours = None
    assert ours == _by_bash(word, values)
