"""The colours of the live view: ours, or those of BUILDKIT_COLORS, such as `run=green:error=255,0,0`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping

_USUAL = {"run": "blue", "error": "red", "cancel": "yellow", "warning": "yellow"}
_NAMES = ("black", "blue", "cyan", "green", "magenta", "red", "white", "yellow")


def colours() -> Mapping[str, str]:
    """A style of rich for each of run, error, cancel and warning. What cannot be read is told, and changes
    nothing."""
    found = dict(_USUAL)
    for part in os.environ.get("BUILDKIT_COLORS", "").split(":"):
        name, _, value = part.partition("=")
        if not part:
            continue
        style = _style(value.strip().lower())
        if name in found and style:
            found[name] = style
        else:
            sys.stderr.write(f"warning: BUILDKIT_COLORS: {part!r} is no {'|'.join(_USUAL)}=COLOUR\n")
    return found


def _style(value: str) -> str:
    """A name, or `R,G,B`, in rich's words; "" for what is neither."""
    light = value.removeprefix("light-")
    if light in _NAMES:
        return light if light == value else f"bright_{light}"
    if re.fullmatch(r"\d{1,3},\d{1,3},\d{1,3}", value) and all(int(each) < 256 for each in value.split(",")):
        return f"rgb({value})"
    return "default" if value == "default" else ""
