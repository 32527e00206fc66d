"""How a build is watched: `--progress` names a view, and each view is one receiver of `builder.events`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from builder.errors import UsageError
from builder.events import Emit, discard

MODES = ("auto", "tty", "plain", "rawjson", "quiet", "none")


@contextmanager
def watching(mode: str, verb: str = "Building") -> Iterator[Emit]:
    """A receiver of events that shows them on standard error until the block ends; `verb` heads a live view.

    `auto` is BUILDKIT_PROGRESS, else a live view on a terminal and plain text elsewhere. Raises UsageError.
    """
    match _chosen(mode):
        case "tty":
            from builder.cli.progress_tty import live

            with live(verb) as emit:
                yield emit
        case "rawjson":
            from builder.cli.progress_json import JsonLines

            yield JsonLines(sys.stderr.buffer).emit
        case "plain":
            from builder.cli.progress_plain import Plain

            plain = Plain(sys.stderr.buffer)
            try:
                yield plain.emit
            finally:
                plain.close()
        case _:
            yield discard


def _chosen(mode: str) -> str:
    wanted = os.environ.get("BUILDKIT_PROGRESS", "") if mode == "auto" else mode
    if wanted and wanted not in MODES:
        raise UsageError(f"BUILDKIT_PROGRESS={wanted!r}: there are {', '.join(MODES)}")
    terminal = sys.stderr.isatty()
    if wanted == "tty" and not terminal and mode == "tty":
        raise UsageError("--progress tty needs a terminal on standard error", hint="use --progress plain")
    if wanted in ("", "auto", "tty"):
        return "tty" if terminal and os.environ.get("TERM", "dumb") != "dumb" else "plain"
    return wanted
