"""The name somebody meant: within two edits of the one that was written, as BuildKit has it."""

from __future__ import annotations

from collections.abc import Iterable

_MAX_EDITS = 2
_MAX_CHOICES = 500
_MAX_LENGTH = 80


def nearest(word: str, choices: Iterable[str]) -> str:
    """The choice with the fewest edits, the first of several; empty when none is near. Case counts."""
    found, fewest = "", _MAX_EDITS + 1
    if len(word) > _MAX_LENGTH:
        return found
    for choice, _ in zip(choices, range(_MAX_CHOICES), strict=False):
        if abs(len(choice) - len(word)) < fewest and (edits := _edits(word, choice)) < fewest:
            found, fewest = choice, edits
    return found


def _edits(one: str, other: str) -> int:
    """The Levenshtein distance."""
    row = list(range(len(other) + 1))
    for number, char in enumerate(one, 1):
        above, row[0] = row[0], number
        for at, opposite in enumerate(other, 1):
            above, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, above + (char != opposite))
    return row[-1]
