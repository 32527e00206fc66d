"""Runs the rules that are wanted, tells each finding once, and fails the build where it was told to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from builder.frontend.broken import broken
from builder.frontend.lint.registry import RULES
from builder.frontend.lint.rules import Finding, Found, Rule
from builder.frontend.lint.scene import File, Moment
from builder.frontend.lint.settings import Settings

if TYPE_CHECKING:
    from builder.frontend.bases import Resolved
    from builder.frontend.instructions import Written
    from builder.source import SourceRange

MAX_FINDINGS = 100
"""Of one rule; who has more of them has seen what is meant, and a Dockerfile may come from anywhere."""


class Linter:
    """The checks of one build, in the order in which things become known: the file, its stages, their bases.

    `tell` gets each finding once, at the moment it is found.
    """

    def __init__(
        self, file: File, settings: Settings, tell: Callable[[Finding], None], *, checking: bool = False
    ) -> None:
        self._file = file
        self._settings = settings
        self._tell = tell
        self._rules = [rule for rule in RULES if settings.wants(rule, checking=checking)]
        self._told: dict[str, set[tuple[str, str]]] = {}
        self._findings: list[Finding] = []

    def check_file(self) -> None:
        """What the text alone shows."""
        for rule in self._rules:
            if rule.of_file is not None:
                self._add(rule, rule.of_file(self._file))

    def check_stages(self, moments: Iterable[Moment]) -> None:
        """What the instructions of stages show, in order."""
        table: dict[type[Written], list[Rule]] = {}
        for rule in self._rules:
            for kind in rule.on:
                table.setdefault(kind, []).append(rule)
        for moment in moments if table else ():
            for rule in table.get(type(moment.line), ()):
                assert rule.of_line is not None
                self._add(rule, rule.of_line(moment))

    def check_bases(self, bases: Iterable[Resolved]) -> None:
        """What the images show on which stages are built."""
        rules = [rule for rule in self._rules if rule.of_base is not None]
        for base in bases if rules else ():
            for rule in rules:
                assert rule.of_base is not None
                self._add(rule, rule.of_base(base))

    def finish(self) -> None:
        """Raises DockerfileError when anything was found and findings are errors."""
        if not self._findings or not self._settings.error:
            return
        shown = ", ".join(f"{each.rule.name} ({_place(each.at)})" for each in self._findings)
        raise broken(
            f"lint violation found for rules: {shown}",
            at=self._findings[0].at,
            hint="`error=true` makes findings errors; to skip one: `# check=skip=RuleName;error=true`",
        )

    def _add(self, rule: Rule, found: Iterable[Found]) -> None:
        told = self._told.setdefault(rule.name, set())
        if len(told) >= MAX_FINDINGS:
            return  # before the rule has begun to look: it is a generator
        for message, at in found:
            if len(told) >= MAX_FINDINGS:
                return
            key = (message, str(at))
            if key not in told:
                told.add(key)
                finding = Finding(rule, message, at)
                self._findings.append(finding)
                self._tell(finding)


def _place(at: SourceRange) -> str:
    return str(at) if at.file.included else f"line {at.first}"
