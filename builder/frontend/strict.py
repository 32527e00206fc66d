"""Heredocs of RUN that end at the first command that fails: the extension `shell-strict` (D28).

The script gets a line more, so that history tells what ran, and the step's key is that of what ran.
"""

from __future__ import annotations

import posixpath

_SHELLS = frozenset({"sh", "ash", "bash", "dash", "ksh", "mksh", "zsh"})
_PIPEFAIL = frozenset({"bash", "zsh"})
"""Shells that know `pipefail` in every version that is still in use."""


def strict(script: str, shell: tuple[str, ...]) -> str:
    """`script`, run by `shell` (empty: /bin/sh) or its own `#!` line, with the line that makes it end early.

    Scripts of other languages stay as they are.
    """
    first, newline, rest = script.partition("\n")
    if not first.startswith("#!"):
        line = _setting(shell[0] if shell else "sh")
        return f"{line}{script}" if line else script
    line = _setting(_interpreter(first))
    return f"{first}{newline}{line}{rest}" if line and newline else script


def _interpreter(first: str) -> str:
    """The program of a `#!` line; behind env the first word that is no option and no variable."""
    words = first[2:].split()
    if words and posixpath.basename(words[0]) == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    return words[0] if words else ""


def _setting(program: str) -> str:
    name = posixpath.basename(program)
    if name not in _SHELLS:
        return ""
    return "set -eo pipefail\n" if name in _PIPEFAIL else "set -e\n"
