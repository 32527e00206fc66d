"""What the command line changes of a finished image: --unset and its short forms, --env, --squash,
--annotation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from builder.cli import outputs, values
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.finishing import Annotation, Finish

_NAMED = ("env", "label", "volume", "expose")
_FORM = r"(?:((?:manifest|index)[a-z,-]*)(?:\[([^\]]*)\])?:)?([^=]+)=(.*)"


def wanted(flags: dict[str, Any]) -> Finish:
    """What the flags ask for. Raises UsageError."""
    from builder.finishing import Finish

    taken_back = (
        *unset(flags["unset"]),
        *(f"env.{each}" for each in flags["unsetenv"]),
        *(f"label.{each}" for each in flags["unsetlabel"]),
    )
    texts = (*flags["annotations"], *outputs.annotated(flags))
    env = values.variables("--env", flags["envs"])
    return Finish(taken_back, flags["squash"], tuple(annotated(texts)), tuple(env.items()))


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


def annotated(texts: Iterable[str]) -> Iterator[Annotation]:
    """`--annotation [TYPE[,TYPE][PLATFORM]:]KEY=VALUE` (O11). Raises UsageError."""
    from builder.finishing import PLACES, Annotation
    from oci import platforms

    listed = ", ".join(PLACES)
    for text in texts:
        match = re.fullmatch(_FORM, text, re.DOTALL)
        if match is None:
            raise UsageError(f"--annotation {text!r} is no [TYPE:]KEY=VALUE", hint=f"TYPE is {listed}")
        kinds, only, key, value = match.groups()
        platform = platforms.parse(only) if only else None
        for kind in (kinds or "manifest").split(","):
            if kind not in PLACES:
                raise UsageError(f"--annotation {text!r}: {kind!r} is no type", hint=f"it is {listed}")
            if platform is not None and kind.startswith("index"):
                raise UsageError(
                    f"--annotation {text!r}: an index is for all platforms",
                    hint="leave the [PLATFORM] out, or annotate the manifest",
                )
            yield Annotation(kind, key, value, platform)
