"""`did you mean ...?` for words that are nothing here."""

from __future__ import annotations

from collections.abc import Iterable

_MAX_CHOICES = 500
_MAX_LENGTH = 80


def closest(word: str, choices: Iterable[str]) -> str:
    """The choice that `word` most likely stands for, or nothing. Case does not matter."""
    import difflib

    known = {
        choice.lower(): choice for choice, _ in zip(choices, range(_MAX_CHOICES), strict=False) if choice
    }
    if len(word) > _MAX_LENGTH:
        return ""
    found = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    return known[found[0]] if found else ""


def hint(word: str, choices: Iterable[str], otherwise: str = "") -> str:
    """A hint for the reader: the closest choice, or `otherwise`."""
    found = closest(word, choices)
    return f"did you mean {found}?" if found else otherwise
