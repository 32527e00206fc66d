"""What git says of a context's directory, as labels (U16): commit, repository, place of the Dockerfile."""

from __future__ import annotations

import os
from urllib.parse import urlsplit, urlunsplit

from builder.contexts.git import look
from builder.errors import ContextError

REVISION = "org.opencontainers.image.revision"
SOURCE = "org.opencontainers.image.source"
ENTRYPOINT = "com.docker.image.source.entrypoint"


def labels(directory: str, dockerfile: str, *, check_dirty: bool = False) -> dict[str, str]:
    """The labels of the checkout that holds `directory`; none where there is no checkout.

    With `check_dirty` a commit with changes ends with `-dirty`; git then reads the checkout's own settings,
    and refuses one of another owner. Raises ContextError when git is not installed, or refuses.
    """
    found: dict[str, str] = {}
    top = _said(directory, "rev-parse", "--show-toplevel")
    if not top:
        return found
    if commit := _said(directory, "rev-parse", "--verify", "--quiet", "HEAD"):
        found[REVISION] = f"{commit}-dirty" if check_dirty and _is_dirty(directory) else commit
    if url := _said(directory, "config", "--get", "remote.origin.url"):
        found[SOURCE] = _without_user(url)
    place = os.path.relpath(os.path.realpath(dockerfile or os.path.join(directory, "Dockerfile")), top)
    if place.split("/")[0] != "..":
        found[ENTRYPOINT] = place
    return found


def _said(directory: str, *words: str) -> str:
    """What git printed; "" when it could not say it."""
    done = look(directory, *words, what="BUILDX_GIT_LABELS")
    return "" if done.returncode else done.stdout.decode("utf-8", "surrogateescape").strip()


def _is_dirty(directory: str) -> bool:
    done = look(directory, "status", "--porcelain", "--ignored", what="BUILDX_GIT_CHECK_DIRTY", trusted=False)
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip().split("\n")[0].removeprefix("fatal: ")
        raise ContextError(f"BUILDX_GIT_CHECK_DIRTY: {reason}")
    return bool(done.stdout)


def _without_user(url: str) -> str:
    """A URL without password, and without user where that may be a token. `git@host:path` stays."""
    parts = urlsplit(url) if "://" in url else None
    if parts is None or not parts.scheme.startswith("http"):
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
