"""docs/security-requirements.md names for each requirement the tests that carry its number, and no others.

`python tests/test_requirements.py --write` brings its last column up to date.
"""

from __future__ import annotations

import ast
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE = os.path.join(HERE, "..", "docs", "security-requirements.md")
_SECURITY = [*range(10, 56), *range(60, 69), *range(70, 74), *range(80, 99), *range(100, 107)]
NUMBERS = [*(f"S{number}" for number in _SECURITY), *(f"R{number:02}" for number in range(1, 29))]
STATES = {"tested", "partly", "missing"}
_ROW = re.compile(r"\| ([RS]\d+) \| (.+?) \| (\w+)(.*?) \| (.*?) \|$", re.MULTILINE)


def carried() -> dict[str, set[str]]:
    """Tests (`file::name`) by the requirements in their names and docstrings."""
    found: dict[str, set[str]] = {}
    for folder, _, names in os.walk(HERE):
        for name in (each for each in names if each.startswith("test_") and each.endswith(".py")):
            path = os.path.join(folder, name)
            with open(path, encoding="utf-8") as file:
                tree = ast.parse(file.read())
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.lower().startswith("test"):
                    for number in _numbers(node.name + " " + (ast.get_docstring(node) or "")):
                        where = f"{os.path.relpath(path, HERE)}::{node.name}"
                        found.setdefault(number, set()).add(where)
    return found


def _numbers(text: str) -> set[str]:
    single = {each.upper() for each in re.findall(r"(?<![a-zA-Z0-9])[sSrR]\d{2,3}(?![a-zA-Z0-9])", text)}
    for first, last in re.findall(r"_s(\d\d)_to_s(\d\d)_", text):
        single |= {f"S{each}" for each in range(int(first), int(last) + 1)}
    return single


def rows() -> dict[str, tuple[str, set[str]]]:
    """State and tests by requirement, as the page has them."""
    with open(PAGE, encoding="utf-8") as file:
        matches = _ROW.findall(file.read())
    return {number: (state, set(re.findall(r"`(.+?)`", tests))) for number, _, state, _, tests in matches}


def test_every_requirement_has_its_row() -> None:
    assert list(rows()) == NUMBERS
    assert {state for state, _ in rows().values()} <= STATES


def test_every_test_of_the_page_is_there_and_says_what_it_is_for() -> None:
    there = carried()
    gone = {number: tests - there.get(number, set()) for number, (_, tests) in rows().items()}
    assert {number: tests for number, tests in gone.items() if tests} == {}


def test_what_is_told_to_be_tested_is() -> None:
    without = {number for number, (_, tests) in rows().items() if not tests}
    assert without == {number for number, (state, _) in rows().items() if state == "missing"}


def write() -> None:
    """Write what `carried` finds into the page."""
    there = carried()

    def row(match: re.Match[str]) -> str:
        number, what, state, remark, _ = match.groups()
        tests = ", ".join(f"`{each}`" for each in sorted(there.get(number, ())))
        return f"| {number} | {what} | {state}{remark} | {tests or '-'} |"

    with open(PAGE, encoding="utf-8") as file:
        text = file.read()
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(_ROW.sub(row, text))


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    write()
