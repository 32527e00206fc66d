"""What `RUN --device` must look like: `[name=]NAME[,required[=true|false]]` (I42)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.devices import Device, is_name
from builder.frontend.broken import broken
from builder.frontend.suggest import hint

if TYPE_CHECKING:
    from builder.source import SourceRange

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
_FORM = "write --device=VENDOR/CLASS=NAME, =* for all of them, or VENDOR/CLASS for the first"


def device(at: SourceRange, text: str) -> Device:
    """One `--device`. A word without `=` is the name. Raises DockerfileError."""
    name, required = "", False
    for field in _fields(at, text):
        key, equals, value = field.partition("=")
        match key.lower():
            case "required":
                if equals and value not in _TRUE + _FALSE:
                    raise broken(f"--device: required={value} is not true or false", at=at)
                required = not equals or value in _TRUE
            case "name" if equals:
                name = _named(at, text, name, value)
            case _ if "/" in key or not equals:
                name = _named(at, text, name, field)
            case other:
                advice = hint(other, ("name", "required"), "it has name and required")
                raise broken(f"--device has no option `{other}`", at=at, hint=advice)
    if not is_name(name):
        raise broken(f"--device={text}: `{name}` is no name of a device", at=at, hint=_FORM)
    return Device(name, required)


def _named(at: SourceRange, text: str, before: str, name: str) -> str:
    if before:
        raise broken(f"--device={text} names two devices", at=at, hint="give each a --device of its own")
    return name


def _fields(at: SourceRange, text: str) -> list[str]:
    import csv

    try:
        return next(iter(csv.reader([text], strict=True)), [])
    except csv.Error as error:
        raise broken(f"--device={text} cannot be read: {error}", at=at) from None
