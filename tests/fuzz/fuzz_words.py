"""Words of a Dockerfile: quotes, escapes, variables and their operators."""

from __future__ import annotations

from builder.frontend.words import Lexer, WordError

ENV = {"a": "b", "long": "x/y.z" * 20, "empty": "", "é": "ü"}
SEEDS = (
    b"\x00${a:-${b:+c}} '$a' \"$a\" \\$a $a",
    b"\x01${long##*/} ${long%/*} ${long//x/y} ${long/#x/y}",
    "\x1f${a?x}${é}$1$@".encode(),
)
WORDS = tuple(b"${ } :- :+ :? ## %% // /# /% * [a-z] long empty".split())


def target(data: bytes) -> None:
    """The first byte chooses the way to read, the rest is the word."""
    flags = data[0] if data else 0
    text = data[1:].decode("utf-8", "surrogateescape")
    lexer = Lexer(
        "`" if flags & 1 else "\\",
        raw_quotes=bool(flags & 2),
        raw_escapes=bool(flags & 4),
        keep_unset=bool(flags & 8),
        plain_quotes=bool(flags & 16),
    )
    try:
        found = lexer.process(text, ENV)
        assert lexer.expand(text, ENV) == found.text
    except WordError as error:
        assert str(error)
