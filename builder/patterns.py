r"""Path patterns: ignore files as Docker reads them, and Go's filepath.Match.

An ignore file (FEATURES.md C07) is a list of patterns. The last match wins, `!` takes back what earlier lines
left out, and what matches a directory holds for all below it:

    *       any characters but `/`          **      any directories; at the end, everything below
    ?       one character but `/`           [a-z]   one of these; [^a-z] one that is none of these
    \x      x itself                        #       in the first column: a comment

A walk goes down an automaton whose letters are names: a directory's state is the set of places at which the
patterns still stand, so a name is only compared with what can match right there. Directories with the same
places share one table. Within a name, a `*` is atomic up to what follows it: no pattern backtracks.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

from builder.source import SourceFile, SourceRange
from oci.data import dataclass

MAX_PATTERNS = 20_000
MAX_PATTERN = 1 << 13
"""Characters of one pattern: no path is as long, escapes included."""
_MAX_WILD = 1 << 16
"""Characters of all patterns with wildcards in an ignore file: those take long to prepare."""
_MAX_SPLITS = 4
_WILD = frozenset("*?[\\")
_SPACE = (
    " \t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)


class PatternError(ValueError):
    """A pattern that cannot be read. `at` is its line, where it stands in a file."""

    def __init__(self, message: str, at: SourceRange | None = None) -> None:
        super().__init__(message)
        self.at = at


class _Wild(Enum):
    """The wildcards. A token is one of these, one character, or a class as a regular expression."""

    ONE = "?"
    STAR = "*"
    DIRECTORIES = "**"
    ANYTHING = "any characters of a name"


_Token: TypeAlias = _Wild | str
_Component: TypeAlias = "bytes | re.Pattern[str] | None"
"""A name, a pattern for a name, or None for any number of directories."""

_Place: TypeAlias = tuple[int, int]
"""A pattern's number, and how many of its components are behind us."""


@dataclass(frozen=True, slots=True)
class State:
    """Where a walk is: what can match next, and the group that decided so far (0 when none did)."""

    table: _Table
    decided: int

    @property
    def settled(self) -> bool:
        """Whether no pattern can match anything below any more: all there has this directory's answer."""
        return self.table.empty


class IgnoreFile:
    """Which paths of a context are left out.

    `ignored` answers for one path; a walk asks `step` for each name, beginning with the state `enter` gives.
    Lines of one kind (with or without `!`) that follow each other are a group, numbered from 1.
    """

    def __init__(self, lines: Iterable[str], source: SourceFile | None = None) -> None:
        """The lines of an ignore file. Raises PatternError."""
        self.patterns: list[tuple[_Component, ...]] = []
        self._wild = 0
        self.group_of: list[int] = []
        self.left_out = [False]
        for number, line in enumerate(lines, 1):
            try:
                self._add(line)
            except PatternError as error:
                at = SourceRange(source, number, number) if source else None
                raise PatternError(str(error), at) from None
        self.source = source
        self._tables: dict[frozenset[_Place], _Table] = {}
        self._root = State(self._table((number, 0) for number in range(len(self.patterns))), 0)

    @classmethod
    def parse(cls, text: str | bytes, name: str = ".dockerignore") -> IgnoreFile:
        """The ignore file with this text. Raises PatternError that says the line."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "surrogateescape")
        text = text.removeprefix("\ufeff")
        return cls(text.split("\n"), SourceFile(name, text))

    def __bool__(self) -> bool:
        """Whether anything is left out at all."""
        return bool(self.patterns)

    def _add(self, line: str) -> None:
        if line.startswith("#") or not (text := line.strip(_SPACE)):
            return
        left_out = not text.startswith("!")
        if not left_out:
            text = text[1:].strip(_SPACE)
            if not text:
                raise PatternError("`!` without a pattern takes nothing back")
        if self.left_out[-1] is not left_out or len(self.left_out) == 1:
            self.left_out.append(left_out)
        if len(text) > MAX_PATTERN:
            raise _too_long(text)
        if not _WILD.isdisjoint(text):
            self._wild += len(text)
            if self._wild > _MAX_WILD:
                raise PatternError(f"more than {_MAX_WILD} characters of patterns with wildcards")
        for pattern in _compiled(posixpath.normpath(text).lstrip("/")):
            self.patterns.append(pattern)
            self.group_of.append(len(self.left_out) - 1)
        if len(self.patterns) > MAX_PATTERNS:
            raise PatternError(f"more than {MAX_PATTERNS} patterns")

    def enter(self) -> State:
        """The state of the context's root, which is never left out."""
        return self._root

    def step(self, state: object, name: bytes, directory: bool) -> tuple[bool, State | None]:
        """Whether `name` in the directory of `state` is left out, and the state in which to look into it.

        The state is None for what is no directory, and for a directory below which nothing is taken back.
        """
        assert isinstance(state, State)
        decided = state.table.match(name) or state.decided
        left_out = self.left_out[decided]
        if not directory:
            return left_out, None
        table = state.table.below(name, decided)
        if left_out and not table.takes_back:
            return True, None
        return left_out, State(table, decided)

    def ignored(self, path: bytes | str) -> bool:
        """Whether `path` (from the context's root) is left out. The root never is."""
        if isinstance(path, str):
            path = path.encode("utf-8", "surrogateescape")
        left_out = False
        state: State | None = self._root
        for name in path.split(b"/"):
            if name in (b"", b"."):
                continue
            if state is None:
                return True
            left_out, state = self.step(state, name, True)
        return left_out

    def reason(self, path: bytes | str) -> SourceRange | None:
        """The line that decides about `path`: the last one that matches it or a directory above it.

        None when no line does, or when these patterns were read from no file.
        """
        if self.source is None:
            return None
        for number, line in reversed(list(enumerate(self.source.text.split("\n"), 1))):
            text = line.strip(_SPACE).removeprefix("!").strip(_SPACE)
            if text and not line.startswith("#") and IgnoreFile([f"/{text}"]).ignored(path):
                return SourceRange(self.source, number, number)
        return None

    def _table(self, places: Iterable[_Place]) -> _Table:
        """The table for these places and those reached by letting `**` stand for nothing."""
        found = set()
        for number, at in places:
            pattern = self.patterns[number]
            while at < len(pattern) - 1 and pattern[at] is None:
                found.add((number, at))
                at += 1
            found.add((number, at))
        key = frozenset(found)
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = _Table(self, key)
        return table


class _Table:
    """What can match in a directory whose patterns stand at `places`."""

    __slots__ = ("_below", "_names", "_owner", "_places", "_wild", "empty", "takes_back")

    def __init__(self, owner: IgnoreFile, places: frozenset[_Place]) -> None:
        self._owner = owner
        self._places = sorted(places)
        self.empty = not places
        self._names: dict[bytes, int] = {}
        self._below: dict[tuple[bytes, int], _Table] = {}
        self.takes_back = any(not owner.left_out[owner.group_of[number]] for number, _ in places)
        wild: dict[int, list[str]] = {}
        for number, at in self._places:
            pattern, group = owner.patterns[number], owner.group_of[number]
            if at + 1 < len(pattern):
                continue
            last = pattern[at]
            if isinstance(last, bytes):
                self._names[last] = max(group, self._names.get(last, 0))
            else:
                wild.setdefault(group, []).append(last.pattern if last is not None else ".*")
        self._wild = [(group, _joined(wild[group])) for group in sorted(wild, reverse=True)]

    def match(self, name: bytes) -> int:
        """The last group with a pattern that matches exactly here; 0 when there is none."""
        found = self._names.get(name, 0)
        if not self._wild:
            return found
        text = name.decode("utf-8", "surrogateescape")
        for group, matches in self._wild:
            if group <= found:
                break
            if matches(text) is not None:
                return group
        return found

    def below(self, name: bytes, decided: int) -> _Table:
        """The table of the directory `name`. Groups up to the one that decided have nothing more to say."""
        key = (name, decided) if self._places else (b"", 0)
        table = self._below.get(key)
        if table is None:
            table = self._owner._table(self._moved(name, decided))
            if len(self._below) < 4096:
                self._below[key] = table
        return table

    def _moved(self, name: bytes, decided: int) -> Iterator[_Place]:
        owner = self._owner
        text = name.decode("utf-8", "surrogateescape")
        for number, at in self._places:
            if owner.group_of[number] <= decided:
                continue
            component = owner.patterns[number][at]
            if component is None:
                yield number, at
            elif at + 1 < len(owner.patterns[number]) and (
                component == name if isinstance(component, bytes) else component.fullmatch(text)
            ):
                yield number, at + 1


def _joined(expressions: list[str]) -> Callable[[str], object]:
    return re.compile("|".join(f"(?:{each})" for each in expressions), re.DOTALL).fullmatch


def glob_match(pattern: str, name: str) -> bool:
    """Go's filepath.Match: whether all of `name` matches; neither `*` nor `?` matches `/`. Raises
    PatternError.
    """
    return _go_match(pattern).fullmatch(name) is not None


@lru_cache(maxsize=256)
def _go_match(pattern: str) -> re.Pattern[str]:
    if len(pattern) > MAX_PATTERN:
        raise _too_long(pattern)
    return re.compile(_expression(list(_tokens(pattern, doubled=False))), re.DOTALL)


def _too_long(pattern: str) -> PatternError:
    return PatternError(f"`{pattern[:80]}...` has {len(pattern)} characters, more than any path")


def _compiled(text: str) -> list[tuple[_Component, ...]]:
    """The components of a pattern. `a**b` is two patterns: `ab`, and `a*/**/b`."""
    tokens = list(_tokens(text, doubled=True))
    if sum(token is _Wild.DIRECTORIES for token in _inside(tokens)) > _MAX_SPLITS:
        raise PatternError(f"`{text[:80]}`: more than {_MAX_SPLITS} `**` inside names")
    return [tuple(map(_component, _components(each))) for each in _alternatives(tokens)]


def _inside(tokens: list[_Token]) -> Iterator[_Token]:
    """The tokens that follow another token of the same name."""
    return (token for before, token in pairwise(tokens) if before not in ("/", _Wild.DIRECTORIES))


def _alternatives(tokens: list[_Token]) -> Iterator[list[_Token]]:
    for at in range(1, len(tokens)):
        if tokens[at] is _Wild.DIRECTORIES and tokens[at - 1] not in ("/", _Wild.DIRECTORIES):
            yield from _alternatives(tokens[:at] + tokens[at + 1 :])
            yield from _alternatives([*tokens[:at], _Wild.ANYTHING, "/", *tokens[at:]])
            return
    yield tokens


def _components(tokens: list[_Token]) -> Iterator[list[_Token] | None]:
    """The tokens between slashes; None for `**`, which swallowed its slash."""
    current: list[_Token] = []
    for token in tokens:
        if token is _Wild.DIRECTORIES:
            yield None
        elif token == "/":
            yield current
            current = []
        else:
            current.append(token)
    yield current


def _component(tokens: list[_Token] | None) -> _Component:
    if tokens is None:
        return None
    if all(isinstance(token, str) and len(token) == 1 for token in tokens):
        return "".join(map(str, tokens)).encode("utf-8", "surrogateescape")
    return re.compile(_expression(tokens), re.DOTALL)


def _tokens(pattern: str, *, doubled: bool) -> Iterator[_Token]:
    """The pattern's tokens. `doubled` knows `**`."""
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*" and doubled and pattern.startswith("*", at):
            at += 1
            if at == 2 and pattern[at : at + 1] not in ("", "/") and not (_WILD | {"]"}) & set(pattern[at:]):
                yield from (_Wild.DIRECTORIES, _Wild.ANYTHING)
                continue
            at += pattern.startswith("/", at)
            yield _Wild.DIRECTORIES if at < len(pattern) else _Wild.ANYTHING
        elif char == "*":
            yield _Wild.STAR
        elif char == "?":
            yield _Wild.ONE
        elif char == "[":
            expression, at = _class(pattern, at)
            yield expression
        elif char == "\\":
            if at == len(pattern):
                raise PatternError(f"`{pattern}` ends in a backslash; write two for one that is meant")
            yield pattern[at]
            at += 1
        else:
            yield char


def _class(pattern: str, at: int) -> tuple[str, int]:
    """The class whose `[` stands before `at`, as a regular expression, and the position after it."""
    negated = pattern.startswith("^", at)
    at += negated
    body = ""
    first = True
    while first or not pattern.startswith("]", at):
        first = False
        low, at = _class_char(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _class_char(pattern, at + 1)
        if low <= high:
            body += f"{_in_class(low)}-{_in_class(high)}"
    if not body:
        return ("(?:.)" if negated else "(?!)"), at + 1
    return f"[{'^' * negated}{body}]", at + 1


def _class_char(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at : at + 1]
    if char == "\\":
        at += 1
        char = pattern[at : at + 1]
    elif char in ("-", "]"):
        char = ""
    if not char:
        raise PatternError(f"`{pattern}`: the `[` has no proper end; write [a-z], or \\[ for the character")
    return char, at + 1


def _in_class(char: str) -> str:
    return f"\\{char}" if char in "\\]^[-&~|" else char


def _expression(tokens: list[_Token]) -> str:
    """A regular expression for a path without `**`.

    A `*` is atomic up to the first place where what follows it matches. A later place could only help to
    reach the end, and there the last `*` reaches by itself.
    """
    blocks = [""]
    for token in tokens:
        if token is _Wild.STAR:
            blocks.append("")
        elif token is _Wild.ANYTHING:
            blocks[-1] += ".*"
        elif token is _Wild.ONE:
            blocks[-1] += "[^/]"
        else:
            assert isinstance(token, str)
            blocks[-1] += re.escape(token) if len(token) == 1 else token
    if len(blocks) == 1:
        return blocks[0]
    atomic = "".join(f"(?>[^/]*?{block})" for block in blocks[1:-1] if block)
    return f"{blocks[0]}{atomic}[^/]*{blocks[-1]}"
