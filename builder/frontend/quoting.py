"""Lists of words as Go's `%q` writes them: the form history has for CMD and ENTRYPOINT."""

from __future__ import annotations

from collections.abc import Iterable

_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def quoted(words: Iterable[str]) -> str:
    """`["echo" "hi"]`."""
    return f"[{' '.join(quote(each) for each in words)}]"


def quote(word: str) -> str:
    """`word` in double quotes; what cannot be printed is escaped."""
    return f'"{"".join(map(_char, word))}"'


def _char(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char == " " or char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
