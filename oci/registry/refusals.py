"""What a registry says when it says no, in words for people (distribution-spec: Error Codes, Warnings)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from oci.errors import LimitExceeded, ManifestUnknown, RegistryError, TooManyRequests, Unauthorized
from oci.registry.patience import Interrupted
from oci.registry.redact import redact

if TYPE_CHECKING:
    from oci.registry.transport import Answer

MAX_ERROR = 1 << 20
"""The longest error body that is read, in bytes (S80)."""

_WARNING = re.compile(r'299\s+\S+\s+"((?:[^"\\]|\\.)*)"')
_TAGS = re.compile(r"(?s)<(script|style)\b.*?</\1\s*>|<[^>]*>")


def refusal(answer: Answer, doing: str) -> RegistryError:
    """The error for a response nobody wanted, with the registry's own words. Reads its body, to a limit."""
    codes, said = _said(answer)
    if answer.status == 401:
        said = said or "authentication required"
        said += "" if "log in" in said else "; log in with `pybuild login`, or check the name"
    message = f"{doing}: {answer.status}" + (f" {said}" if said else f" {_plain(answer.status)}")
    return _kind(answer.status, codes)(message, status=answer.status, codes=codes)


def _kind(status: int, codes: tuple[str, ...]) -> type[RegistryError]:
    if status == 401 or (status == 403 and "TOOMANYREQUESTS" not in codes):
        return Unauthorized
    if status == 404:
        return ManifestUnknown
    return TooManyRequests if status == 429 or "TOOMANYREQUESTS" in codes else RegistryError


def _said(answer: Answer) -> tuple[tuple[str, ...], str]:
    """Codes and text of an error body. Whatever goes wrong here must not hide the status."""
    try:
        content = answer.document(MAX_ERROR)
    except (Interrupted, LimitExceeded):
        return (), ""
    text = content.decode("utf-8", "replace")
    if "<" in text and answer.headers.get("Content-Type", "").startswith("text/html"):
        words = redact(_TAGS.sub(" ", text[:4000]), 160)
        return (), f"(an HTML page, not a registry's answer: {' '.join(words.split())})"
    try:
        errors = json.loads(text)["errors"]
        found = [_entry(item) for item in errors[:5]]
    except (ValueError, TypeError, KeyError, RecursionError):
        return (), redact(text, 300)
    return tuple(code for code, _ in found), "; ".join(words for _, words in found)


def _entry(item: Any) -> tuple[str, str]:
    code = redact(str(item.get("code") or ""), 60) if isinstance(item, dict) else ""
    if not isinstance(item, dict):
        return "", redact(str(item), 200)
    message, detail = item.get("message") or "", item.get("detail")
    words = redact(f"{code}: {message}" if message else code, 300)
    if detail and detail != message:
        shown = detail if isinstance(detail, str) else json.dumps(detail, ensure_ascii=False)
        words += f" ({redact(shown, 200)})"
    return code, words


def _plain(status: int) -> str:
    from http import HTTPStatus

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "(no status of HTTP's)"


def warnings_of(headers: Mapping[str, str]) -> list[str]:
    """The registry's warnings for the user (distribution-spec: Warnings; at most 4,096 bytes in all)."""
    header = headers.get("Warning", "")[:4096]
    return [redact(re.sub(r"\\(.)", r"\1", match[1])) for match in _WARNING.finditer(header)]
