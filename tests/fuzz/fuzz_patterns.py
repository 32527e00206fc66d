"""Ignore files and the globs of COPY."""

from __future__ import annotations

from builder.patterns import IgnoreFile, PatternError, glob_match

SEEDS = (
    b"a/b/c\0# x\n**/*.c\n!a/b\n/x/[a-z]?\\*\n",
    b"d.go\0*.go\n!d*\n**\n",
    b"a\0[!-a\n[^]]\n\\\n",
)
WORDS = (b"**", b"**/", b"/**", b"[a-", b"[^", b"]", b"\\", b"!", b"../", b"./", b"{a,b}", b"*?")


def target(data: bytes) -> None:
    """A path, a zero, and the ignore file."""
    path, _, lines = data.partition(b"\0")
    name = path.decode("utf-8", "surrogateescape")
    try:
        ignore = IgnoreFile.parse(lines)
    except PatternError as error:
        assert str(error)
    else:
        ignored = ignore.ignored(path)
        state, answer = ignore.enter(), False
        for number, part in enumerate(parts := [each for each in path.split(b"/") if each]):
            answer, below = ignore.step(state, part, number < len(parts) - 1)
            if below is None:
                break
            state = below
        if path and path == b"/".join(parts) and not {b".", b".."} & set(parts):
            ignore.reason(path)
            assert ignored or not answer or number < len(parts) - 1
    pattern = lines.decode("utf-8", "surrogateescape")
    try:
        glob_match(pattern, name)
    except PatternError as error:
        assert str(error)
