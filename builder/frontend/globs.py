"""The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` and `\\` before one of them, nothing else.

Matching is a bit-parallel automaton (one integer holds every position the pattern may be at), so it is linear
in the text whatever the pattern: a Dockerfile cannot make it backtrack.
"""

from __future__ import annotations

from collections.abc import Iterator

_ANY = ""


class Glob:
    """A compiled pattern. Neither `*` nor `?` matches a line end. Raises ValueError for a bad escape."""

    __slots__ = ("_backward", "_forward")

    def __init__(self, pattern: str) -> None:
        tokens, stars = _parse(pattern)
        self._forward = _Automaton(tokens, stars)
        self._backward = _Automaton(tokens[::-1], {len(tokens) - each for each in stars})

    def without_prefix(self, text: str, *, longest: bool) -> str:
        """`text` without what matches at its start."""
        length = self._forward.match(text, 0, longest=longest)
        return text if length is None else text[length:]

    def without_suffix(self, text: str, *, longest: bool) -> str:
        """`text` without what matches at its end."""
        length = self._backward.match(text[::-1], 0, longest=longest)
        return text if length is None else text[: len(text) - length]

    def replace(self, text: str, by: str, *, every: bool, limit: int) -> str | None:
        """`text` with the first (or every) longest match replaced; None when that is longer than `limit`."""
        out: list[str] = []
        done = size = 0
        previous = -1
        for start in self._starts(text):
            if start < done:
                continue
            length = self._forward.match(text, start, longest=True)
            if length is None or (length == 0 and start == previous):
                continue
            size += start - done + len(by)
            if size > limit:
                return None
            out += (text[done:start], by)
            done = previous = start + length
            if not every:
                break
        out.append(text[done:])
        return "".join(out)

    def _starts(self, text: str) -> Iterator[int]:
        """Every position at which a match begins, ascending: one pass backwards over the text."""
        size = len(text)
        reverse = self._backward.ends(text[::-1])
        return (size - each for each in reversed(reverse))


class _Automaton:
    """Bit i of the state: the first i tokens have matched."""

    __slots__ = ("_accept", "_any", "_loops", "_masks")

    def __init__(self, tokens: list[str], stars: set[int]) -> None:
        self._accept = 1 << len(tokens)
        self._loops = sum(1 << each for each in stars)
        self._any = sum(1 << i for i, token in enumerate(tokens) if token == _ANY)
        self._masks: dict[str, int] = {}
        for i, token in enumerate(tokens):
            if token != _ANY:
                self._masks[token] = self._masks.get(token, 0) | 1 << i

    def _step(self, state: int, char: str) -> int:
        moving = self._masks.get(char, 0)
        if char == "\n":
            return (state & moving) << 1
        return (state & (moving | self._any)) << 1 | (state & self._loops)

    def match(self, text: str, start: int, *, longest: bool) -> int | None:
        """The length of the shortest or longest match that begins at `start`."""
        state = 1
        found = 0 if state & self._accept else None
        for at in range(start, len(text)):
            if found is not None and not longest:
                return found
            state = self._step(state, text[at])
            if not state:
                break
            if state & self._accept:
                found = at + 1 - start
        return found

    def ends(self, text: str) -> list[int]:
        """Every position at which some match ends, wherever it began."""
        state = 1
        found = [0] if state & self._accept else []
        for at, char in enumerate(text):
            state = self._step(state, char) | 1
            if state & self._accept:
                found.append(at + 1)
        return found


def _parse(pattern: str) -> tuple[list[str], set[int]]:
    """The characters of the pattern (`_ANY` for `?`) and the places where a `*` stands before them."""
    tokens: list[str] = []
    stars: set[int] = set()
    chars = iter(pattern)
    for char in chars:
        if char == "*":
            stars.add(len(tokens))
        elif char == "?":
            tokens.append(_ANY)
        elif char == "\\":
            following = next(chars, "")
            if not following or following not in "*?\\/}":
                raise ValueError(f"`\\{following}` is no escape; `\\` may stand before * ? \\ / and }}")
            tokens.append(following)
        else:
            tokens.append(char)
    return tokens, stars
