"""The image-spec's rules as JSON Schemas (our own wording, draft 2020-12), for bytes that come from outside.

`oci.model` reads what can be read; this says whether it is right. `check` raises, `findings` lists.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from oci.data import dataclass
from oci.errors import InvalidDocument
from oci.strict_json import loads

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

KINDS = ("descriptor", "manifest", "index", "config", "layout")
MOST = 1000
"""Findings in one document; a large one may have half a million mistakes."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong (`error`) or odd (`warning`), and where: a JSON path or a digest."""

    severity: Literal["error", "warning"]
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.path}: {self.message}"


def check(kind: str, document: bytes | Any) -> None:
    """Raise InvalidDocument, naming the JSON path, unless the document (bytes or parsed) obeys its schema."""
    found = findings(kind, document)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InvalidDocument(f"{found[0].path}: {found[0].message}{more}")


def findings(kind: str, document: bytes | Any) -> list[Finding]:
    """What is wrong with a document, by path: all of it, or the first MOST. Raises InvalidDocument for what
    is no JSON at all.
    """
    value = loads(document, kind) if isinstance(document, bytes) else document
    errors = sorted(
        islice(_validator(kind).iter_errors(value), MOST),
        key=lambda error: [str(part) for part in error.absolute_path],
    )
    return [Finding("error", _path(kind, error.absolute_path), _message(error)) for error in errors]


@cache
def _validator(kind: str) -> Validator:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(schema(kind))


def schema(kind: str) -> dict[str, Any]:
    """The schema of one of KINDS."""
    with open(os.path.join(os.path.dirname(__file__), "schemas", f"{kind}.json"), "rb") as file:
        value: dict[str, Any] = json.load(file)
    return value


def _path(kind: str, parts: Sequence[str | int]) -> str:
    return kind + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def _message(error: ValidationError) -> str:
    if error.validator == "not":
        return "must not be here"
    message = error.message
    return message if len(message) <= 300 else message[:150] + " ... " + message[-150:]
