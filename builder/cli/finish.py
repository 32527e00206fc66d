"""What the command line changes of a finished image: --unset and its short forms, --squash, --annotation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.finishing import Finish

_NAMED = ("env", "label", "volume", "expose")
_KINDS = ("manifest", "manifest-descriptor", "index", "index-descriptor")
_ANNOTATION = r"(?:((?:manifest|index)[a-z,-]*)(?:\[([^\]]*)\])?:)?([^=]+)=(.*)"


def wanted(flags: dict[str, Any], platform: str) -> Finish:
    """What the flags ask for. Raises UsageError."""
    from builder.finishing import Finish

    taken_back = (
        *unset(flags["unset"]),
        *(f"env.{each}" for each in flags["unsetenv"]),
        *(f"label.{each}" for each in flags["unsetlabel"]),
    )
    manifest, descriptor = annotated(flags["annotations"], platform)
    return Finish(taken_back, flags["squash"], manifest, descriptor)


def unset(texts: Iterable[str]) -> tuple[str, ...]:
    """`--unset` values, checked. Raises UsageError."""
    from builder.finishing import WHOLE

    found = tuple(each.strip() for text in texts for each in text.split(",") if each.strip())
    for each in found:
        kind, dot, name = each.partition(".")
        if (kind not in _NAMED or not name) if dot else kind not in WHOLE:
            raise UsageError(
                f"--unset {each!r} names no setting",
                hint=f"{', '.join(f'{kind}.NAME' for kind in _NAMED)}, or one of {', '.join(WHOLE)}",
            )
    return found


def annotated(texts: Iterable[str], platform: str) -> tuple[dict[str, str], dict[str, str]]:
    """`--annotation [TYPE[,TYPE][PLATFORM]:]KEY=VALUE`: those of the manifest, and of its descriptor (O11).

    Those for another platform are left out. Raises UsageError; also for an index, which one image has not.
    """
    found: dict[str, dict[str, str]] = {"manifest": {}, "manifest-descriptor": {}}
    for text in texts:
        match = re.fullmatch(_ANNOTATION, text, re.DOTALL)
        if match is None:
            raise UsageError(
                f"--annotation {text!r} is no [TYPE:]KEY=VALUE", hint=f"TYPE is {', '.join(_KINDS)}"
            )
        kinds, only, key, value = match.groups()
        for kind in (kinds or "manifest").split(","):
            if kind not in _KINDS:
                raise UsageError(
                    f"--annotation {text!r}: {kind!r} is no type", hint=f"it is {', '.join(_KINDS)}"
                )
            if kind not in found:
                raise UsageError(
                    f"--annotation {text!r}: an image of one platform has no index",
                    hint="use manifest:KEY=VALUE",
                )
            if only in (None, platform):
                found[kind][key] = value
    return found["manifest"], found["manifest-descriptor"]
