"""Which rules count: `# check=skip=A,B;error=true;experimental=C`, or the same in a build argument (P07)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from builder.errors import DockerfileError
from builder.frontend.broken import broken
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.frontend.lint.rules import Rule
    from builder.frontend.reader import Document

BUILD_ARG = "BUILDKIT_DOCKERFILE_CHECK"
"""Takes the place of the directive when it is given."""

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))
_ALL = frozenset({"all"})
_FORM = (
    "write it like `# check=skip=RuleName,OtherRule;error=true`; the options are skip, error, experimental"
)


@dataclass(frozen=True, slots=True)
class Settings:
    """`skip` and `experimental` hold names of rules, or `all`. With `error` a finding fails the build."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    @classmethod
    def parse(cls, text: str) -> Settings:
        """Raises ValueError that says what is wrong. Names that are no rules are accepted: they may be newer
        ones.
        """
        found: dict[str, str] = {}
        for part in text.split(";") if text.strip() else ():
            name, equals, value = part.partition("=")
            name, value = name.strip(), value.strip()
            if name not in ("skip", "error", "experimental") or not equals:
                raise ValueError(f"`{part.strip()}` is no option")
            if name == "error" and value not in _TRUE | _FALSE:
                raise ValueError(f"error is true or false, not `{value}`")
            found[name] = value
        return cls(
            _names(found.get("skip", "")), _names(found.get("experimental", "")), found.get("error") in _TRUE
        )

    @classmethod
    def of(cls, document: Document, build_args: Mapping[str, str]) -> Settings:
        """Those of a build: the build argument's, else the directive's. Raises DockerfileError."""
        if BUILD_ARG in build_args:
            return cls._read(f"{BUILD_ARG}={build_args[BUILD_ARG]}", build_args[BUILD_ARG], None)
        for each in document.directives:
            if each.name == "check":
                return cls._read(f"check={each.value}", each.value, each)
        return cls()

    @classmethod
    def _read(cls, written: str, value: str, directive: object) -> Settings:
        try:
            return cls.parse(value)
        except ValueError as error:
            raise _unreadable(written, error, directive) from None

    def wants(self, rule: Rule, *, checking: bool) -> bool:
        """Whether `rule` counts. `checking` is `--check`: only there does `experimental=all` mean our own
        rules too, so that a build fails here with `error=true` only where it fails with BuildKit.
        """
        if rule.name in self.skip:
            return False
        if not rule.experimental:
            return not self.skip >= _ALL
        every = self.experimental >= _ALL and (checking or not rule.ours)
        return every or rule.name in self.experimental


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",")) - {""}


def _unreadable(written: str, error: ValueError, directive: object) -> DockerfileError:
    at = getattr(directive, "at", None)
    return broken(f"`{written}` cannot be read: {error}", at=at, hint=_FORM)
