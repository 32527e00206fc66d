"""Git checkouts as contexts: so far, when the commit was made that a directory has checked out."""

from __future__ import annotations

import os
import re
import subprocess

from builder.errors import ContextError

_COMMITTER = re.compile(rb"^committer .* (\d+) [+-]\d{4}$", re.MULTILINE)
_SETTINGS = {
    # The checkout may be anybody's: none of its owner's or the system's settings run or fetch anything.
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",
}


def commit_time(directory: str) -> int:
    """The committer's time of HEAD in the checkout that holds `directory`, in seconds since 1970.

    Raises ContextError when there is no checkout, no commit, or no git.
    """
    command = ["git", "--no-pager", "-C", directory, "cat-file", "commit", "HEAD"]
    environment = {"PATH": os.environ.get("PATH", os.defpath), **_SETTINGS}
    try:
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True)
    except FileNotFoundError:
        raise ContextError("--timestamp commit needs git, which is not installed") from None
    match = _COMMITTER.search(done.stdout.partition(b"\n\n")[0])
    if done.returncode or match is None:
        reason = done.stderr.decode("utf-8", "replace").strip().removeprefix("fatal: ") or "no commit"
        raise ContextError(
            f"--timestamp commit: {directory!r} has no commit checked out ({reason})",
            hint="give the seconds themselves: --timestamp 1700000000",
        )
    return int(match[1])
