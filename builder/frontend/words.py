"""Words as Dockerfile instructions read them: quotes, escapes and `${}` (FEATURES.md P13, P14).

One `Lexer` belongs to one Dockerfile: it knows the escape character and how much text expansion may still
make. It reads a word once, left to right, and gives it both whole (`text`) and split at unquoted white space
(`words`).

    $v ${v}                      the value, nothing when unset
    ${v:-w} ${v-w}               w when unset (with `:` also when empty)
    ${v:+w} ${v+w}               w when set (with `:` and not empty)
    ${v:?w} ${v?w}               the value, or an error that says w
    ${v#p} ${v##p} ${v%p} ${v%%p}    without the shortest or longest prefix or suffix that matches p
    ${v/p/r} ${v//p/r}           the first match, or every match, of p replaced by r
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from builder.frontend.globs import Glob
from oci.data import dataclass

SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
)
"""White space as the reference implementation sees it: Unicode's White_Space, so without U+001C to U+001F."""

MAX_DEPTH = 64
"""How deep `${a:-${b:-...}}` may nest."""

MAX_GROWTH = 8 << 20
"""How many characters expansion may add in one Dockerfile: `ENV B=$A$A` forty times over is 10 TB."""

_SPACES = frozenset(SPACE)
_OPERATORS = frozenset("-+?#%")
_SPECIAL_PARAMETERS = frozenset("@*#?-$!0")


class WordError(ValueError):
    """A word that cannot be read; the text is for people and names what is wrong, `hint` what to write."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


_LITERAL = "characters that mean nothing stand in single quotes or behind the escape character"
_CLOSE = f"write ${{NAME}} or ${{NAME:-word}}, with the `}}` in the same word; {_LITERAL}"
_OPERATORS_ARE = (
    "operators are `-` `+` `?` (with `:` in front: empty counts as unset), `#` `##` `%` `%%`, `/` and `//`"
)


@dataclass(frozen=True, slots=True)
class Expansion:
    """What became of a word: whole, split, and the names of the variables it asked for."""

    text: str
    words: tuple[str, ...]
    used: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()


@dataclass(slots=True)
class Lexer:
    """Reads words. `raw_quotes` and `raw_escapes` keep those characters, `keep_unset` keeps `$name` of unset
    names, `plain_quotes` sees nothing special in quotes (the body of a heredoc).
    """

    escape: str = "\\"
    raw_quotes: bool = False
    raw_escapes: bool = False
    keep_unset: bool = False
    plain_quotes: bool = False
    growth: list[int] = field(default_factory=lambda: [0])

    def variant(
        self,
        *,
        escape: str | None = None,
        raw_quotes: bool = False,
        raw_escapes: bool = False,
        keep_unset: bool = False,
        plain_quotes: bool = False,
    ) -> Lexer:
        """Another way to read, drawing on the same allowance."""
        return Lexer(
            self.escape if escape is None else escape,
            raw_quotes,
            raw_escapes,
            keep_unset,
            plain_quotes,
            self.growth,
        )

    def expand(self, word: str, env: Mapping[str, str]) -> str:
        """`word` with its quotes resolved and its variables replaced. Raises WordError."""
        if self._is_plain(word):
            return word
        return self.process(word, env).text

    def split(self, word: str, env: Mapping[str, str]) -> tuple[str, ...]:
        """The same, split at white space that is neither quoted nor escaped. Raises WordError."""
        return self.process(word, env).words

    def process(self, word: str, env: Mapping[str, str]) -> Expansion:
        """Everything there is to know about `word`. Raises WordError."""
        reading = _Reading(self, word, env)
        text, words = reading.run()
        if len(text) > len(word):
            self.growth[0] += len(text) - len(word)
            if self.growth[0] > MAX_GROWTH:
                raise WordError(f"variables expand to more than {MAX_GROWTH >> 20} MiB in this Dockerfile")
        return Expansion(text, words, frozenset(reading.used), frozenset(reading.missing))

    def _is_plain(self, word: str) -> bool:
        return not ("$" in word or "'" in word or '"' in word or self.escape in word)


class _Words:
    """Collects words: characters that were quoted or escaped never split."""

    __slots__ = ("_open", "_parts", "done")

    def __init__(self) -> None:
        self.done: list[str] = []
        self._parts: list[str] = []
        self._open = False

    def add(self, text: str) -> None:
        """Unquoted text: white space in it ends the word."""
        for char in text:
            if char not in _SPACES:
                self._parts.append(char)
            elif self._parts:
                self.close()

    def add_raw(self, text: str) -> None:
        if text:
            self._parts.append(text)

    def close(self) -> None:
        if self._parts:
            self.done.append("".join(self._parts))
            self._parts.clear()


class _Reading:
    """One pass over one word."""

    __slots__ = ("at", "depth", "end", "env", "lexer", "missing", "text", "used")

    def __init__(self, lexer: Lexer, text: str, env: Mapping[str, str]) -> None:
        self.lexer = lexer
        self.text = text
        self.end = len(text)
        self.env = env
        self.at = 0
        self.depth = 0
        self.used: set[str] = set()
        self.missing: set[str] = set()

    def run(self) -> tuple[str, tuple[str, ...]]:
        words = _Words()
        text = self._until("", self.lexer.raw_escapes, words)
        words.close()
        return text, tuple(words.done)

    def peek(self) -> str:
        return self.text[self.at] if self.at < self.end else ""

    def next(self) -> str:
        char = self.peek()
        self.at += 1
        return char

    def _until(self, stop: str, raw_escapes: bool, words: _Words | None) -> str:
        """Text up to `stop`, which is consumed; an empty `stop` is the end of the word."""
        out: list[str] = []
        escape = self.lexer.escape
        quotes = "" if self.lexer.plain_quotes else "'\""
        while self.at < self.end:
            char = self.text[self.at]
            if char == stop:
                self.at += 1
                return "".join(out)
            if char == "$":
                self._emit(self._dollar(), out, words, splits=True)
            elif char in quotes:
                quoted = self._single() if char == "'" else self._double(raw_escapes)
                self._emit(quoted, out, words, splits=False)
            elif char == escape:
                self.at += 1
                kept = escape if raw_escapes else ""
                self._emit(kept + self.next(), out, words, splits=False)
            else:
                self.at += 1
                self._emit(char, out, words, splits=True)
        if stop:
            raise WordError(f"the text ends where a `{stop}` is expected")
        return "".join(out)

    @staticmethod
    def _emit(text: str, out: list[str], words: _Words | None, *, splits: bool) -> None:
        out.append(text)
        if words is None:
            return
        if splits:
            words.add(text)
        else:
            words.add_raw(text)

    def _single(self) -> str:
        close = self.text.find("'", self.at + 1)
        if close < 0:
            raise WordError("a single quote is opened and never closed", _quote("'", self.lexer.escape))
        start, stop = (self.at, close + 1) if self.lexer.raw_quotes else (self.at + 1, close)
        self.at = close + 1
        return self.text[start:stop]

    def _double(self, raw_escapes: bool) -> str:
        quote = '"' if self.lexer.raw_quotes else ""
        escape = self.lexer.escape
        out = [quote]
        self.at += 1
        while self.at < self.end:
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                out.append(quote)
                return "".join(out)
            if char == "$":
                out.append(self._dollar())
                continue
            self.at += 1
            if char == escape:
                if raw_escapes:
                    out.append(escape)
                following = self.peek()
                if not following:
                    break
                if following in ('"', "$", escape):
                    self.at += 1
                    char = following
            out.append(char)
        raise WordError("a double quote is opened and never closed", _quote('"', self.lexer.escape))

    def _dollar(self) -> str:
        self.at += 1
        if self.peek() != "{":
            name = self._name()
            if not name:
                return "$"
            value = self._value(name)
            if value is None:
                return f"${name}" if self.lexer.keep_unset else ""
            return value
        self.at += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise WordError(f"${{}} nests more than {MAX_DEPTH} deep")
        text = self._braces()
        self.depth -= 1
        return text

    def _braces(self) -> str:
        start = self.at
        if self.peek() == "":
            raise WordError("`${` is opened and never closed", _CLOSE)
        if self.peek() in "{}:":
            raise WordError(
                f"bad substitution `${{{self.text[start : start + 12]}`: a name must follow `${{`", _CLOSE
            )
        name = self._name()
        operator = self.next()
        if operator == "}":
            value = self._value(name)
            if value is None:
                return f"${{{name}}}" if self.lexer.keep_unset else ""
            return value
        if operator == "/":
            return self._replace(name)
        colon = operator == ":"
        if colon:
            operator = self.next()
        if operator in _OPERATORS:
            return self._operate(name, operator, colon)
        if not operator:
            raise WordError("`${` is opened and never closed", _CLOSE)
        raise _no_operator(name, ":" * colon + operator)

    def _argument(self, stop: str, raw_escapes: bool) -> str:
        try:
            return self._until(stop, raw_escapes, None)
        except WordError as error:
            if self.at >= self.end and "quote" not in str(error):
                hint = "write ${NAME/PATTERN/TEXT}" if stop == "/" else _CLOSE
                raise WordError(f"`${{` is opened and never closed with `{stop}`", hint) from None
            raise

    def _operate(self, name: str, operator: str, colon: bool) -> str:
        word = self._argument("}", operator in "#%")
        if operator in "#%" and colon:
            raise _no_operator(name, f":{operator}")
        value = self._value(name)
        if value is None and self.lexer.keep_unset:
            return f"${{{name}{':' * colon}{operator}{word}}}"
        absent = value is None or (colon and not value)
        if operator == "-":
            return word if absent or value is None else value
        if operator == "+":
            return "" if absent else word
        if operator == "?":
            if value is None or absent:
                state = "unset" if value is None else "empty"
                raise WordError(f"{name}: {word or f'is not allowed to be {state}'}")
            return value
        return _trimmed(value or "", operator, word)

    def _replace(self, name: str) -> str:
        every = self.peek() == "/"
        if every:
            self.at += 1
        pattern = self._argument("/", True)
        replacement = self._argument("}", True)
        value = self._value(name)
        if value is None:
            return f"${{{name}/{pattern}/{replacement}}}" if self.lexer.keep_unset else ""
        result = _glob(pattern).replace(value, replacement, every=every, limit=MAX_GROWTH)
        if result is None:
            raise WordError(f"variables expand to more than {MAX_GROWTH >> 20} MiB in this Dockerfile")
        return result

    def _name(self) -> str:
        start = self.at
        first = self.peek()
        if first.isdecimal():
            while self.peek().isdecimal():
                self.at += 1
        elif first and first in _SPECIAL_PARAMETERS:
            self.at += 1
        else:
            while (char := self.peek()) and (char.isalpha() or char.isdecimal() or char == "_"):
                self.at += 1
        return self.text[start : self.at]

    def _value(self, name: str) -> str | None:
        value = self.env.get(name)
        (self.missing if value is None else self.used).add(name)
        return value


def _quote(quote: str, escape: str) -> str:
    return f"close it in the same instruction, or write `{escape}{quote}` for the character itself"


def _no_operator(name: str, operator: str) -> WordError:
    hint = _OPERATORS_ARE
    if operator in (":#", ":%"):
        hint = f"without the colon, `${{{name}{operator[1]}PATTERN}}` removes a {_REMOVES[operator[1]]}"
    elif operator in ("=", ":="):
        hint = f"nothing is assigned here: `${{{name}:-word}}` is the word, `ARG {name}=word` sets a default"
    return WordError(f"`{operator}` is no operator of `${{{name}...}}`", hint)


_REMOVES = {"#": "prefix", "%": "suffix"}


def _trimmed(value: str, operator: str, word: str) -> str:
    longest = word[:1] == operator
    glob = _glob(word[1:] if longest else word)
    return (
        glob.without_prefix(value, longest=longest)
        if operator == "#"
        else glob.without_suffix(value, longest=longest)
    )


def _glob(pattern: str) -> Glob:
    try:
        return Glob(pattern)
    except ValueError as error:
        raise WordError(f"invalid pattern `{pattern}` in `${{}}`: {error}") from None
