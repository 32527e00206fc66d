"""INCLUDE and ENV --from-file: files of the context that are part of a Dockerfile (docs/extensions.md).

A document becomes a tree of documents before any instruction is understood, and the tree one list of lines
again, so that nothing else knows of it; `plain.py` writes the tree as text. A path may hold ARGs, as far as
the file shows what they are, those before the first FROM as well: what a base brings is not known here, so
ENV is not among them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING

from builder.errors import ContextError, DockerfileError
from builder.frontend import envfile, extensions
from builder.frontend import instructions as ins
from builder.frontend.broken import broken
from builder.frontend.flags import split_flags
from builder.frontend.line import BLANKS
from builder.frontend.parser import instruction_of
from builder.frontend.reader import MAX_INSTRUCTIONS, Document, LogicalLine, decode, read
from builder.frontend.suggest import hint
from builder.frontend.words import SPACE, Lexer, WordError
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.frontend.stage import ReadFile
    from builder.source import SourceRange

DEEPEST = 16
MOST_FILES = 1_000
MOST_TEXT = 16 << 20
"""In characters, all included files together: files that include each other several times multiply."""

FROM_FILE = "--from-file="


@dataclass(frozen=True, slots=True)
class Part:
    """A document, what its INCLUDE lines bring, and what other lines become, by the number of the line."""

    document: Document
    includes: dict[int, Part] = field(default_factory=dict)
    others: dict[int, LogicalLine | None] = field(default_factory=dict)

    def lines(self) -> Iterator[LogicalLine]:
        """All lines, where they count."""
        for number, line in enumerate(self.document.lines):
            if number in self.includes:
                yield from self.includes[number].lines()
            elif (found := self.others.get(number, line)) is not None:
                yield found

    def documents(self) -> Iterator[Document]:
        """This document and those below it."""
        yield self.document
        for each in self.includes.values():
            yield from each.documents()

    def whole(self) -> Document:
        """One document, as if all were written in one file. Raises DockerfileError."""
        if not self.includes and not self.others:
            return self.document
        lines = tuple(self.lines())
        if len(lines) > MAX_INSTRUCTIONS:
            raise broken(f"more than {MAX_INSTRUCTIONS} instructions", at=lines[MAX_INSTRUCTIONS].at)
        if not lines:
            raise broken(f"{self.document.source.name} and what it includes have no instructions")
        empty = tuple(at for each in self.documents() for at in each.empty_continuations)
        return replace(self.document, lines=lines, empty_continuations=empty)


def parts(
    document: Document,
    enabled: Iterable[str],
    read_file: ReadFile,
    given: Mapping[str, str],
    start: Mapping[str, str],
) -> Part:
    """`document` with all that it takes from files. `given` are the build's arguments, `start` the ARGs that
    need no declaration.

    Raises DockerfileError.
    """
    wanted = frozenset(enabled)
    if wanted.isdisjoint((extensions.INCLUDE, extensions.ENV_FILE)):
        return Part(document)
    return _Including(document.escape, wanted, read_file, _Arguments(document.escape, given, start)).part(
        document
    )


class _Including:
    """Goes through the lines in order, and into the files they name."""

    def __init__(self, escape: str, enabled: frozenset[str], read_file: ReadFile, known: _Arguments) -> None:
        self._escape = escape
        self._enabled = enabled
        self._read_file = read_file
        self._known = known
        self._files = 0
        self._left = MOST_TEXT

    def part(self, document: Document, chain: tuple[tuple[str, SourceRange], ...] = ()) -> Part:
        """`chain` holds the files that are being included, and where."""
        found = Part(document)
        for number, line in enumerate(document.lines):
            keyword, rest = _keyword(line)
            if keyword == "INCLUDE" and extensions.INCLUDE in self._enabled:
                found.includes[number] = self._include(line, rest, document, chain)
            elif keyword == "ENV" and rest.startswith(FROM_FILE) and extensions.ENV_FILE in self._enabled:
                found.others[number] = self._variables(line, rest)
            elif keyword in ("ARG", "ENV", "FROM"):
                self._known.see(line)
        return found

    def _include(
        self, line: LogicalLine, rest: str, document: Document, chain: tuple[tuple[str, SourceRange], ...]
    ) -> Part:
        path = self._path(line, rest, "INCLUDE")
        name, content = self._content(line, path, "INCLUDE")
        for above, _ in chain:
            if above == name:
                steps = " -> ".join([*(str(at) for _, at in chain), str(line.at), name])
                raise broken(f"INCLUDE {path}: {name} includes itself: {steps}", at=line.at)
        if len(chain) == DEEPEST:
            raise broken(f"INCLUDE {path}: files include each other more than {DEEPEST} deep", at=line.at)
        source = replace(decode(content, name), included=line.at)
        source = replace(source, text=source.text.replace("\r\n", "\n"))
        return self.part(read(source, document), (*chain, (name, line.at)))

    def _variables(self, line: LogicalLine, rest: str) -> LogicalLine | None:
        flags, more = split_flags(rest)
        if more or not all(each.startswith(FROM_FILE) for each in flags):
            raise broken(
                "ENV --from-file takes nothing else",
                at=line.at,
                hint="give other variables an ENV of their own, below when they are to win",
            )
        pairs = []
        for flag in flags:
            path = self._path(line, flag.removeprefix(FROM_FILE), "ENV --from-file")
            name, content = self._content(line, path, "ENV --from-file")
            pairs += envfile.variables(replace(decode(content, name), included=line.at))
        for name, _ in pairs:
            self._known.forget(name)
        return replace(line, text=envfile.written(pairs, self._escape)) if pairs else None

    def _path(self, line: LogicalLine, word: str, what: str) -> str:
        try:
            found = Lexer(self._escape).process(word, self._known)
        except WordError as error:
            raise broken(f"{what} `{word}`: {error}", at=line.at, hint=error.hint) from None
        for name in sorted(each for each in found.missing if _bare(each, word)):
            declare = (
                "declare it in this stage or before the first FROM: ARG NAME=default; ENV does not count"
            )
            raise broken(
                f"{what} {word}: ${name} is no ARG that is known here",
                at=line.at,
                hint=hint(name, list(self._known), declare),
            )
        words = found.words
        if len(words) != 1 or words[0].startswith("--"):
            raise broken(f"{what} takes one path of the context", at=line.at, hint=_form(what))
        return words[0]

    def _content(self, line: LogicalLine, path: str, what: str) -> tuple[str, bytes]:
        self._files += 1
        if self._files > MOST_FILES:
            raise broken(f"more than {MOST_FILES} files are included", at=line.at)
        try:
            name, content = self._read_file(path)
        except ContextError as error:
            raise broken(f"{what} {path}: {error}", at=line.at, hint=error.hint) from None
        self._left -= len(content)
        if self._left < 0:
            raise broken(f"the included files are larger than {MOST_TEXT >> 20} MiB together", at=line.at)
        return name, content


class _Arguments(Mapping[str, str]):
    """The ARGs that are known where a line stands: those before the first FROM, and those of the stage."""

    def __init__(self, escape: str, given: Mapping[str, str], start: Mapping[str, str]) -> None:
        self._escape = escape
        self._given = given
        self._lexer = Lexer(escape)
        self._global = {name: given.get(name, value) for name, value in start.items()}
        self._here = self._global
        self._stages: dict[str, dict[str, str]] = {}

    def __getitem__(self, name: str) -> str:
        return self._here[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._here)

    def __len__(self) -> int:
        return len(self._here)

    def see(self, line: LogicalLine) -> None:
        """An ARG, ENV or FROM happens. One that cannot be read is for the parser to tell of."""
        try:
            instruction = instruction_of(line, self._escape)
        except DockerfileError:
            return
        match instruction:
            case ins.From():
                self._begin(instruction)
            case ins.Arg():
                for name, default in instruction.args:
                    self._declare(name, default)
            case ins.Env():
                for name, _ in instruction.pairs:
                    self.forget(name)

    def forget(self, name: str) -> None:
        """`name` is an ENV from here on."""
        if self._here is not self._global:
            self._here.pop(name, None)

    def _begin(self, head: ins.From) -> None:
        base = self._expanded(head.base, self._global)
        self._here = dict(self._stages.get((base or "").lower(), self._global))
        if head.name:
            self._stages[head.name] = self._here

    def _declare(self, name: str, default: str | None) -> None:
        value = self._given.get(name)
        if value is None and default is not None:
            value = self._expanded(default, self._here)
        elif value is None:
            value = self._global.get(name)
        if value is not None:
            self._here[name] = value
        elif default is not None:
            self._here.pop(name, None)

    def _expanded(self, word: str, values: Mapping[str, str]) -> str | None:
        """None for what cannot be read, or holds variables that are not known."""
        try:
            found = self._lexer.process(word, values)
        except WordError:
            return None
        return None if found.missing else found.text


def _bare(name: str, word: str) -> bool:
    """Whether `word` needs the variable `name`: `${name:-default}` does not."""
    return re.search(rf"\$(?:{re.escape(name)}(?!\w)|\{{{re.escape(name)}[}}#%/])", word) is not None


def _form(what: str) -> str:
    return f"write `{what}{'=' if '--' in what else ' '}parts/common`"


def _keyword(line: LogicalLine) -> tuple[str, str]:
    """The first word in upper case, and the rest."""
    words = BLANKS.split(line.text.strip(SPACE), maxsplit=1)
    return words[0].upper(), words[1].strip(SPACE) if len(words) > 1 else ""
