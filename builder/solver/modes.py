"""`--chmod`: octal (`755`, `04755`) and symbolic (`u=rwX,go=rX`, `+x`, `g=u`) modes, as chmod(1) of the
BSDs reads them.

A clause without `u`, `g`, `o` or `a` changes what a umask of 022 leaves alone, whatever umask we run under:
that is what Docker's daemon has, and images must not depend on the machine (SECURITY.md R25).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from builder.errors import DockerfileError

Change = Callable[[int, bool], int]
"""(mode, whether it is a directory) -> new mode; both are the twelve permission bits."""

_UMASK = 0o022
_OCTAL = re.compile(r"[0-7]{1,5}\Z")
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)\Z")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o0007, "a": 0o6777}
_SHIFT = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111, "X": 0, "s": 0o6000, "t": 0o1000}


def parse(text: str) -> Change:
    """The change that `text` asks for. Raises DockerfileError for what is no mode."""
    if _OCTAL.match(text) and int(text, 8) <= 0o7777:
        wanted = int(text, 8)
        return lambda mode, directory: wanted
    actions: list[tuple[str, str, str]] = []
    for clause in text.split(","):
        found = _CLAUSE.match(clause)
        if found is None:
            raise DockerfileError(
                f"--chmod={text} is no file mode",
                hint="write octal digits (755) or clauses such as u=rwX,go=rX or +x",
            )
        actions += [(found[1], sign, what) for sign, what in _ACTION.findall(found[2])]
    return lambda mode, directory: _apply(actions, mode, directory)


def _apply(actions: list[tuple[str, str, str]], original: int, directory: bool) -> int:
    mode = original
    for who, sign, what in actions:
        reach = 0
        for letter in who or "a":
            reach |= _WHO[letter]
        if "t" in what and (not who or reach & 0o6000):
            reach |= 0o1000
        bits = _wanted(what, mode, directory or bool(original & 0o111)) & reach
        if not who:
            bits &= ~_UMASK
        if sign == "-":
            mode &= ~bits
        else:
            mode = (mode & ~reach if sign == "=" else mode) | bits
    return mode


def _wanted(what: str, mode: int, executable: bool) -> int:
    """The bits for every class that `what` names: letters, or one class whose bits are copied."""
    if what in _SHIFT:
        return (mode >> _SHIFT[what] & 7) * 0o111
    bits = 0o111 if "X" in what and executable else 0
    for letter in what:
        bits |= _BITS[letter]
    return bits
