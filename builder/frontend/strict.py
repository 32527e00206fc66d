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
        return f"{_setting(shell or ('sh',))}{script}"
    line = _setting(tuple(first[2:].split()))
    return f"{first}{newline}{line}{rest}" if newline else script


def _setting(words: tuple[str, ...]) -> str:
    """The line for the shell that `words` begin; none for what is no shell."""
    names = [posixpath.basename(word) for word in words if not word.startswith("-") and "=" not in word]
    if names and names[0] in ("env", "busybox"):
        names = names[1:]
    if not names or names[0] not in _SHELLS:
        return ""
    return "set -eo pipefail\n" if names[0] in _PIPEFAIL else "set -e\n"
