"""The two shapes an instruction's arguments begin with: `--flag=value` words, and the JSON form (P09)."""

from __future__ import annotations

import re

from builder.frontend.words import SPACE

_SURROGATES = re.compile("[\ud800-\udfff]")
_SPACES = frozenset(SPACE)


class NotStrings(ValueError):
    """A JSON array that holds something other than strings."""


def split_flags(text: str) -> tuple[list[str], str]:
    """The leading `--name[=value]` words of `text`, quotes resolved, and what follows them.

    `--` alone ends the flags and belongs to neither.
    """
    flags: list[str] = []
    at = 0
    while True:
        while at < len(text) and text[at] in _SPACES:
            at += 1
        if not text.startswith("--", at):
            return flags, text[at:].strip(SPACE)
        word, at = _word(text, at)
        if word == "--":
            return flags, text[at:].strip(SPACE)
        flags.append(word)


def _word(text: str, at: int) -> tuple[str, int]:
    """The word at `at` and the position after it. `\\` escapes whatever the escape directive says, as in
    Docker.
    """
    out: list[str] = []
    quote = ""
    while at < len(text):
        char = text[at]
        if not quote and char in _SPACES:
            break
        at += 1
        if char == "\\":
            out.append(text[at : at + 1])
            at += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            out.append(char)
    return "".join(out), at


def json_words(text: str) -> list[str] | None:
    """The strings of a JSON array, or None when `text` is no JSON array (then it is the shell form).

    Raises NotStrings for an array of anything but strings.
    """
    text = text.lstrip(SPACE)
    if not text.startswith("["):
        return None
    import json

    try:
        value = json.loads(text, parse_constant=_refuse, parse_int=_zero, parse_float=_zero)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(each, str) for each in value):
        raise NotStrings("a JSON array here holds strings only")
    return [_SURROGATES.sub("\ufffd", each) for each in value]


def _refuse(name: str) -> None:
    raise ValueError(name)


def _zero(_text: str) -> int:
    return 0
