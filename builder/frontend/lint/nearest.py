"""The name somebody meant: within two edits of the one that was written, as BuildKit has it.

Of a short name at most half may differ: that `$c3` might mean `$A1` helps nobody.
"""

from __future__ import annotations

from collections.abc import Iterable

_MAX_EDITS = 2
_MAX_CHOICES = 200
_MAX_LENGTH = 60


def nearest(word: str, choices: Iterable[str]) -> str:
    """The choice with the fewest edits, the first of several; empty when none is near. Case counts."""
    found, fewest = "", min(_MAX_EDITS, len(word) // 2) + 1
    if len(word) > _MAX_LENGTH:
        return found
    for choice, _ in zip(choices, range(_MAX_CHOICES), strict=False):
        if abs(len(choice) - len(word)) < fewest and (edits := _edits(word, choice, fewest)) < fewest:
            found, fewest = choice, edits
    return found


def _edits(one: str, other: str, enough: int) -> int:
    """The Levenshtein distance, or some number from `enough` on."""
    row = list(range(len(other) + 1))
    for number, char in enumerate(one, 1):
        above, row[0] = row[0], number
        for at, opposite in enumerate(other, 1):
            above, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, above + (char != opposite))
        if min(row) >= enough:
            return enough
    return row[-1]
