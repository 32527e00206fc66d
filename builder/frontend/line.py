"""One instruction's line, taken apart: the tools with which the forms read it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from builder.errors import DockerfileError
from builder.frontend import instructions as ins
from builder.frontend.broken import broken
from builder.frontend.flags import json_words
from builder.frontend.reader import Heredoc
from builder.frontend.suggest import hint
from builder.frontend.words import SPACE
from builder.source import SourceRange
from oci.data import dataclass

BLANKS = re.compile(r"[\t\v\f\r ]+")
_SPACES = frozenset(SPACE)


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction, taken apart: `rest` is the value without its flags, `code` the whole text."""

    keyword: str
    flags: tuple[str, ...]
    rest: str
    code: str
    at: SourceRange
    escape: str = "\\"
    heredocs: tuple[Heredoc, ...] = ()

    def error(self, message: str, advice: str = "") -> DockerfileError:
        return broken(message, at=self.at, hint=advice)

    def words(self) -> list[str]:
        """The value split at blanks; quotes mean nothing."""
        return BLANKS.split(self.rest) if self.rest else []

    def json_or_words(self) -> list[str]:
        """The strings of the JSON form, or the words."""
        listed = json_words(self.rest)
        return self.words() if listed is None else listed

    def command(self) -> ins.Command:
        """The command of the JSON form, or the whole value for the shell."""
        listed = json_words(self.rest)
        if listed is None:
            return ins.Command((self.rest,), shell=True)
        return ins.Command(tuple(listed), shell=False)

    def one(self, what: str) -> str:
        """The value, which must not be empty."""
        self.no_flags()
        if not self.rest:
            raise self.error(f"{self.keyword} needs {what}", f"write `{self.keyword} <{what.split()[-1]}>`")
        return self.rest

    def no_flags(self) -> None:
        self.options({})

    def options(self, known: Mapping[str, type]) -> dict[str, str | bool | list[str]]:
        """The flags by name. `known` gives each one's kind: str, bool, or list for those that may repeat."""
        found: dict[str, str | bool | list[str]] = {}
        for flag in self.flags:
            name, equals, value = flag[2:].partition("=")
            kind = known.get(name)
            if kind is None:
                raise self._unknown_flag(name, known)
            if name in found and kind is not list:
                raise self.error(f"--{name} is given twice", "keep one of them")
            if kind is bool:
                found[name] = self._boolean(name, equals, value)
            elif not equals:
                raise self.error(f"--{name} needs a value", f"write --{name}=VALUE")
            elif kind is list:
                found.setdefault(name, []).append(value)  # type: ignore[union-attr]
            else:
                found[name] = value
        return found

    def _unknown_flag(self, name: str, known: Mapping[str, type]) -> DockerfileError:
        choices = ", ".join(f"--{each}" for each in known)
        otherwise = f"{self.keyword} knows {choices}" if known else f"{self.keyword} has no flags"
        return self.error(
            f"{self.keyword} has no flag --{name}",
            hint(f"--{name}", [f"--{each}" for each in known], otherwise),
        )

    def _boolean(self, name: str, equals: str, value: str) -> bool:
        if not equals:
            return True
        if value.lower() not in ("true", "false"):
            raise self.error(f"--{name} is true or false, not `{value}`")
        return value.lower() == "true"


def quoted_words(text: str, escape: str) -> list[str]:
    """`text` split at white space that is neither quoted nor escaped; quotes and escapes stay."""
    words: list[str] = []
    parts: list[str] = []
    quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char in _SPACES and not quote:
            if parts:
                words.append("".join(parts))
                parts.clear()
            continue
        if char == escape and quote != "'":
            if at == len(text):
                break
            char += text[at]
            at += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        parts.append(char)
    if parts:
        words.append("".join(parts))
    return words
