"""Dockerfile text to logical lines: directives, comments, continuations and heredocs resolved (P01-P08, P10).

What comes out is one line per instruction with the place where it was written and the heredoc bodies that
belong to it. No instruction is understood here, but for the question whether it may hold a heredoc.

A heredoc word is written without a space after `<<`: `RUN cat << EOF` is none, as with BuildKit.
"""

from __future__ import annotations

import re

from builder.frontend.broken import broken
from builder.frontend.flags import NotStrings, json_words, split_flags
from builder.frontend.words import SPACE, Lexer, WordError
from builder.source import SourceFile, SourceRange
from oci.data import dataclass

MAX_INSTRUCTIONS = 20_000
"""More instructions than any image can have layers; a bound for the time one file may take."""

MAX_EMPTY = 20
"""How many empty continuations are remembered: enough to see what is meant."""

_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)[ \t\f\v]*=[ \t\f\v]*(.+?)[ \t\f\v\r]*$", re.DOTALL)
_DIRECTIVES = frozenset({"syntax", "escape", "check", "pybuild"})
_KEYWORD = re.compile(r"[^\t\v\f\r ]+")
_BLANKS = re.compile(r"[\t\v\f\r ]+")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]*)")
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)
_HOLDERS = frozenset({"ADD", "COPY", "RUN"})


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A document written below its instruction. `content` has its line ends; `strip_tabs` says it was written
    `<<-`.
    """

    name: str
    content: str = ""
    expand: bool = True
    strip_tabs: bool = False
    fd: int = 0

    @property
    def text(self) -> str:
        """The content as the program gets it: without leading tabs when written `<<-`."""
        return _LEADING_TABS.sub("", self.content) if self.strip_tabs else self.content


@dataclass(frozen=True, slots=True)
class Directive:
    """A parser directive (`# escape=...`): its name in lower case."""

    name: str
    value: str
    at: SourceRange


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """One instruction's text, continuations joined, and the heredocs that follow it."""

    text: str
    at: SourceRange
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A Dockerfile, read but not understood. `empty_continuations` are the last lines of instructions that
    hold an empty line.
    """

    source: SourceFile
    escape: str
    directives: tuple[Directive, ...]
    lines: tuple[LogicalLine, ...]
    empty_continuations: tuple[SourceRange, ...] = ()


def decode(content: bytes, name: str) -> SourceFile:
    """The text of a Dockerfile called `name` from its bytes. A byte-order mark goes; bytes that are no UTF-8
    survive (as surrogates), so a heredoc gives back what was written.
    """
    if content.startswith(b"\xef\xbb\xbf"):
        content = content[3:]
    return SourceFile(name, content.decode("utf-8", "surrogateescape"))


def read(source: SourceFile, part_of: Document | None = None) -> Document:
    """The directives and logical lines of a Dockerfile, or of a file that is included in `part_of`: that may
    be without instructions and has its escape character. Raises DockerfileError.
    """
    return _Reader(source, part_of).read()


def heredoc_of(word: str) -> Heredoc | None:
    """The heredoc that `word` (`<<EOF`, `3<<-"EOF"`) announces, without content; None for an ordinary word.

    Raises WordError for a word that opens a quote and never closes it.
    """
    match = _HEREDOC.fullmatch(word)
    if match is None or not match[3]:
        return None
    plain = Lexer(keep_unset=True).split(match[3], {})
    if len(plain) != 1:
        return None
    quoted = Lexer(keep_unset=True, raw_quotes=True).split(match[3], {})
    expand = _quotes(plain[0]) == _quotes("".join(quoted))
    return Heredoc(plain[0], expand=expand, strip_tabs=bool(match[2]), fd=int(match[1][:6] or 0))


def _quotes(text: str) -> int:
    return text.count("'") + text.count('"')


class _Reader:
    """Walks the physical lines once."""

    def __init__(self, source: SourceFile, part_of: Document | None = None) -> None:
        self.source = source
        self.part_of = part_of
        self.rows = source.text.removeprefix("\ufeff").split("\n")
        if not self.rows[-1]:
            self.rows.pop()
        self.at = 0
        self.escape = part_of.escape if part_of else "\\"
        self.empty: list[SourceRange] = []

    def read(self) -> Document:
        self._check_text()
        directives = self._directives()
        lines: list[LogicalLine] = []
        while self.at < len(self.rows):
            line = self._logical_line()
            if line is None:
                continue
            lines.append(line)
            if len(lines) > MAX_INSTRUCTIONS:
                raise broken(f"more than {MAX_INSTRUCTIONS} instructions", at=line.at)
        if not lines and self.part_of is None:
            raise broken(
                f"{self.source.name} has no instructions",
                hint="a Dockerfile begins with FROM, for example `FROM debian:stable-slim`",
            )
        return Document(self.source, self.escape, directives, tuple(lines), tuple(self.empty))

    def _check_text(self) -> None:
        nul = self.source.text.find("\0")
        if nul >= 0:
            line = self.source.text.count("\n", 0, nul) + 1
            raise broken(
                "a NUL byte: this is no text file",
                at=SourceRange(self.source, line, line),
                hint="is this the Dockerfile, and is it saved as UTF-8 (not UTF-16)?",
            )

    def _range(self, first: int, last: int) -> SourceRange:
        return SourceRange(self.source, first + 1, last + 1)

    def _directives(self) -> tuple[Directive, ...]:
        found: dict[str, Directive] = {}
        for number, row in enumerate(self.rows):
            text = row.strip(SPACE)
            match = _DIRECTIVE.match(text[1:].lstrip(SPACE)) if text.startswith("#") else None
            if match is None or (name := match[1].lower()) not in _DIRECTIVES:
                break
            at = self._range(number, number)
            if name in found:
                raise broken(
                    f"the directive `{name}` is given twice",
                    at=at,
                    hint=f"keep one `# {name}=` line; the first is on line {found[name].at.first}",
                )
            found[name] = Directive(name, match[2], at)
            self.at = number + 1
        self._set_escape(found.get("escape"))
        return tuple(found.values())

    def _set_escape(self, directive: Directive | None) -> None:
        if directive is None:
            return
        if directive.value not in ("\\", "`"):
            raise broken(
                f"`{directive.value}` cannot be the escape character",
                at=directive.at,
                hint="write `# escape=\\` or `# escape=``",
            )
        if self.part_of is not None and directive.value != self.escape:
            raise broken(
                f"an included file cannot change the escape character, which is `{self.escape}`",
                at=directive.at,
                hint=f"it is {self.part_of.source.name} that says `# escape={self.escape}`, for all of it",
            )
        self.escape = directive.value

    def _logical_line(self) -> LogicalLine | None:
        """The instruction that begins at the current row, or None for a comment or blank line."""
        start = self.at
        row = self.rows[start].rstrip("\r").lstrip(SPACE)
        self.at += 1
        if row.startswith("#"):
            return None
        text, continues = self._without_continuation(row)
        if not text and not continues:
            return None
        parts = [text]
        if continues:
            self._continuation(parts)
        line = "".join(parts)
        heredocs = self._heredocs(line, start)
        return LogicalLine(line, self._range(start, self.at - 1), heredocs)

    def _continuation(self, parts: list[str]) -> None:
        continues = True
        empty = False
        while continues and self.at < len(self.rows):
            row = self.rows[self.at].rstrip("\r")
            self.at += 1
            content = row.lstrip(SPACE)
            if content.startswith("#"):
                continue
            if not content:
                empty = True
                continue
            text, continues = self._without_continuation(row)
            parts.append(text)
        if continues and self.part_of is not None:
            raise broken(
                "an included file ends in the middle of an instruction",
                at=self._range(self.at - 1, self.at - 1),
                hint=f"leave out the last `{self.escape}`: what follows is not part of the line",
            )
        if empty and len(self.empty) < MAX_EMPTY:
            self.empty.append(self._range(self.at - 1, self.at - 1))

    def _without_continuation(self, row: str) -> tuple[str, bool]:
        """`row` without the escape character that continues it. One that is escaped itself does not."""
        text = row.rstrip(" \t")
        if not text.endswith(self.escape) or text[-2:-1] == self.escape:
            return row, False
        return text[:-1], True

    def _heredocs(self, line: str, start: int) -> tuple[Heredoc, ...]:
        if "<<" not in line:
            return ()
        keyword = _holder(line)
        if not keyword:
            return ()
        at = self._range(start, self.at - 1)
        try:
            announced = self._announced(line)
        except WordError as error:
            raise broken(f"a heredoc's name cannot be read: {error}", at=at, hint=error.hint) from None
        return tuple(self._body(each, at) for each in announced)

    def _announced(self, line: str) -> list[Heredoc]:
        try:
            words = Lexer(raw_quotes=True, raw_escapes=True, keep_unset=True).split(line, {})
        except WordError:
            return []
        found = []
        for word in words:
            if "<<" in word and (heredoc := heredoc_of(word)) is not None:
                found.append(heredoc)
        return found

    def _body(self, heredoc: Heredoc, at: SourceRange) -> Heredoc:
        start = self.at
        while self.at < len(self.rows):
            row = self.rows[self.at].rstrip("\r")
            self.at += 1
            if (row.lstrip("\t") if heredoc.strip_tabs else row) == heredoc.name:
                content = "".join(f"{each}\n" for each in self.rows[start : self.at - 1])
                return Heredoc(heredoc.name, content, heredoc.expand, heredoc.strip_tabs, heredoc.fd)
        raise broken(
            f"the heredoc `<<{heredoc.name}` is never closed",
            at=at,
            hint=f"a line that holds only `{heredoc.name}` ends it",
        )


def _holder(line: str) -> str:
    """RUN, COPY or ADD when this line may hold heredocs (below ONBUILD too), else nothing: the JSON form may
    not.
    """
    keyword, rest = _first_word(line)
    if keyword == "ONBUILD":
        keyword, rest = _first_word(split_flags(rest)[1])
    return keyword if keyword in _HOLDERS and not _is_json(split_flags(rest)[1]) else ""


def _is_json(text: str) -> bool:
    try:
        return json_words(text) is not None
    except NotStrings:
        return True


def _first_word(text: str) -> tuple[str, str]:
    parts = _BLANKS.split(text.strip(SPACE), maxsplit=1)
    return parts[0].upper(), parts[1] if len(parts) > 1 else ""
