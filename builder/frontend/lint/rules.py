"""What a rule is, and what it finds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from builder.events import Warning_
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.frontend.bases import Resolved
    from builder.frontend.instructions import Written
    from builder.frontend.lint.scene import File, Moment
    from builder.source import SourceRange

_DOCKER_PAGE = "https://docs.docker.com/go/dockerfile/rule/"
_OUR_PAGE = "docs/checks/"
_WORD_BEGINS = r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"


class Found(NamedTuple):
    """What a rule's function says about one place."""

    message: str
    at: SourceRange


@dataclass(frozen=True, slots=True)
class Rule:
    """A check. Exactly one of the functions is given: `of_file` sees the whole file once, `of_line` each
    instruction of the types `on` in every stage that counts, `of_base` each image that was looked for.

    An `experimental` rule is silent unless it is asked for. `ours` tells a rule that BuildKit has not.
    """

    name: str
    description: str
    of_file: Callable[[File], Iterable[Found]] | None = None
    of_line: Callable[[Moment], Iterable[Found]] | None = None
    of_base: Callable[[Resolved], Iterable[Found]] | None = None
    on: tuple[type[Written], ...] = ()
    experimental: bool = False
    ours: bool = False

    @property
    def url(self) -> str:
        """Where the rule is explained: Docker's page, or our own for a rule of ours."""
        if self.ours:
            return f"{_OUR_PAGE}{self.name}.md"
        return f"{_DOCKER_PAGE}{re.sub(_WORD_BEGINS, '-', self.name).lower()}/"


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule and a place where it is broken."""

    rule: Rule
    message: str
    at: SourceRange

    def warning(self) -> Warning_:
        """The event that tells people."""
        return Warning_(self.rule.name, self.message, str(self.at), self.at.excerpt())
