"""A Dockerfile without pybuild's extensions, as text that every builder reads (`pybuild expand`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from builder.events import Warning_
from builder.frontend import extensions
from builder.frontend import instructions as ins
from builder.frontend.lower import parts_of
from builder.frontend.lower_run import is_alone
from builder.frontend.parser import instruction_of
from builder.frontend.strict import strict

if TYPE_CHECKING:
    from builder.frontend.include import Part
    from builder.frontend.reader import Document, LogicalLine
    from builder.frontend.stage import PlanOptions
    from builder.source import SourceFile


def plain(source: SourceFile, options: PlanOptions) -> str:
    """`source` with its files put in and its scripts made strict. All of it must be readable.

    The SHELL that a base image brings is not known here: it is taken for /bin/sh. `options.warn` hears of
    what stays and is read by pybuild alone. Raises DockerfileError.
    """
    part, enabled = parts_of(source, options)
    part.whole()
    return "".join(f"{row}\n" for row in _Writing(enabled, part.document, options.warn).rows(part))


class _Writing:
    """Goes through the lines in order. `shells` are those of the stages above, by name."""

    def __init__(self, enabled: frozenset[str], document: Document, warn: Callable[[Warning_], None]) -> None:
        self._warn = warn
        self._strict = extensions.SHELL_STRICT in enabled
        self._main = document
        self._shell: tuple[str, ...] = ()
        self._shells: dict[str, tuple[str, ...]] = {}
        self._stage = ""

    def rows(self, part: Part) -> Iterator[str]:
        """The rows of a document; what stands between its instructions stays."""
        document = part.document
        rows = document.source.lines()
        if rows and not rows[-1]:
            rows.pop()
        dropped = {
            each.at.first
            for each in document.directives
            if each.name == extensions.DIRECTIVE or document is not self._main
        }
        done = 0
        for number, line in enumerate(document.lines):
            yield from (rows[at] for at in range(done, line.at.first - 1) if at + 1 not in dropped)
            done = line.at.last
            if number in part.includes:
                yield from self.rows(part.includes[number])
            elif number in part.others:
                other = part.others[number]
                yield from [other.text] if other else ()
            else:
                yield from self._line(line, document, rows[line.at.first - 1 : done])
        yield from (rows[at] for at in range(done, len(rows)) if at + 1 not in dropped)

    def _line(self, line: LogicalLine, document: Document, rows: list[str]) -> Iterator[str]:
        instruction = instruction_of(line, document.escape)
        if isinstance(instruction, ins.From):
            self._shell = self._shells.get(instruction.base.lower(), ())
            self._stage = instruction.name
        elif isinstance(instruction, ins.Shell):
            self._shell = instruction.argv
        elif isinstance(instruction, ins.Run) and self._strict:
            rows = self._script(instruction, rows)
        elif isinstance(instruction, ins.Copy) and instruction.if_exists:
            text = "COPY --if-exists stays as it is: which files there are is known in a build, and no other"
            self._warn(Warning_("NotPlain", f"{text} builder has this flag", str(line.at), line.at.excerpt()))
        if self._stage:
            self._shells[self._stage] = self._shell
        yield from rows

    def _script(self, line: ins.Run, rows: list[str]) -> list[str]:
        """The rows of a RUN; a heredoc that is all of it gets its line."""
        if not line.heredocs or not is_alone(line.command.argv[0]):
            return rows
        script = line.heredocs[0]
        was, now = script.text.split("\n"), strict(script.text, self._shell).split("\n")
        if len(now) == len(was):
            return rows
        after = 1 if was[0].startswith("#!") else 0
        start = len(rows) - sum(each.content.count("\n") + 1 for each in line.heredocs) + after
        return [*rows[:start], now[after], *rows[start:]]
