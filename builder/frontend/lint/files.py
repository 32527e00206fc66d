"""Files of the context: L19."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from builder.frontend import instructions as ins
from builder.frontend.lint.rules import Found
from builder.frontend.lint.scene import Moment
from builder.frontend.quoting import quote

if TYPE_CHECKING:
    from builder.patterns import IgnoreFile

_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*://|git@[^/]+:")
_ANY_NAME = b"a name that no pattern spells out"


def copy_ignored_file(moment: Moment) -> Iterator[Found]:
    """A source that the ignore file leaves out, with everything below it."""
    line = moment.line
    if not isinstance(line, ins.Copy | ins.Add) or not line.sources:
        return
    if isinstance(line, ins.Copy) and line.origin:
        return
    ignore = moment.shared.options.ignore()
    if not ignore:
        return
    verb = "Add" if isinstance(line, ins.Add) else "Copy"
    for source in line.sources:
        path = moment.expand(source)
        if _ELSEWHERE.match(path):
            continue
        path = posixpath.normpath(posixpath.join("/", path)).lstrip("/") or "."
        if _left_out(ignore, path):
            yield Found(f"Attempting to {verb} file {quote(path)} that is excluded by .dockerignore", line.at)


def _left_out(ignore: IgnoreFile, path: str) -> bool:
    if path == ".":
        return _everything_left_out(ignore)
    state: object = ignore.enter()
    for name in path.encode("utf-8", "surrogateescape").split(b"/"):
        left_out, state = ignore.step(state, name, True)
        if state is None:
            return left_out
    return False


def _everything_left_out(ignore: IgnoreFile) -> bool:
    """Whether no file of the context remains, whatever they are called."""
    takes_back = not all(ignore.left_out[1:])
    return not takes_back and ignore.step(ignore.enter(), _ANY_NAME, True)[0]
