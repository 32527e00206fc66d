"""HTTP headers as registries use them: challenges, Retry-After, Link, Range. Nothing here raises on bad
input."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field

from oci.data import dataclass

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))\s*(?:,|$)')
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:\s+|$|,)")
_LONGEST = 8192
"""No honest header is longer, and no pattern here shall meet one that is."""
_LINK = re.compile(r'<([^<>]*)>((?:\s*;\s*[^,;"]+(?:"[^"]*")?)*)')
_NEXT = re.compile(r';\s*rel\s*=\s*(?:"[^"]*\bnext\b[^"]*"|next\b)', re.I)
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One entry of WWW-Authenticate (RFC 7235). The scheme is in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)

    def get(self, key: str) -> str:
        """A parameter, "" when absent."""
        return self.parameters.get(key, "")


def challenges(header: str) -> tuple[Challenge, ...]:
    """All entries of WWW-Authenticate; what cannot be read ends the list."""
    found: list[Challenge] = []
    header = header[:_LONGEST]
    position = 0
    while match := _SCHEME.match(header, position):
        position = match.end()
        parameters: dict[str, str] = {}
        while part := _PARAMETER.match(header, position):
            quoted = re.sub(r"\\(.)", r"\1", part[2]) if part[2] is not None else part[3]
            parameters.setdefault(part[1].lower(), quoted)
            position = part.end()
        found.append(Challenge(match[1].lower(), parameters))
    return tuple(found)


def retry_after(header: str, now: float) -> float | None:
    """Seconds to wait, from either form (RFC 9110, 10.2.3). `now` is the time since the epoch."""
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def next_link(header: str) -> str:
    """The target of rel=next in a Link header (RFC 8288), "" if there is none."""
    for match in _LINK.finditer(header[:_LONGEST]):
        if _NEXT.search(match[2]):
            return match[1]
    return ""


def received(header: str) -> int | None:
    """How many bytes an upload's Range header says are there; None if it says nothing (distribution-spec:
    Pushing a blob in chunks). `0-0` is taken for none, as most registries mean it: one byte is soon sent
    again."""
    match = _RANGE.fullmatch(header.strip())
    if not match:
        return None
    return int(match[1]) + 1 if int(match[1]) else 0


def content_range(header: str) -> tuple[int, int, int | None] | None:
    """First byte, last byte and total size (None when `*`) of a Content-Range (RFC 9110, 14.4)."""
    match = _CONTENT_RANGE.fullmatch(header.strip())
    if not match:
        return None
    return int(match[1]), int(match[2]), None if match[3] == "*" else int(match[3])
