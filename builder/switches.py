"""Build arguments that switch something of the builder: `--build-arg NAME=1` (FEATURES.md I06)."""

from __future__ import annotations

from collections.abc import Mapping

from builder.errors import UsageError

MULTI = "BUILDKIT_MULTI_PLATFORM"
"""The build argument that makes an index of one platform's image too."""

KEEP_GIT = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"
"""The build argument that leaves `.git` in a context that is a repository."""

_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"", "0", "f", "false"})


def is_on(build_args: Mapping[str, str], name: str) -> bool:
    """Whether a switch is on. Raises UsageError for what is neither true nor false."""
    value = build_args.get(name, "").lower()
    if value not in _TRUE | _FALSE:
        raise UsageError(f"--build-arg {name}={value}: it is true or false")
    return value in _TRUE
