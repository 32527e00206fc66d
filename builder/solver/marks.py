"""What stands in a step's key for the secrets that are to count there: `--secret ...,cache-key=hash` (D25).

A mark is an HMAC of the value under a random key that never leaves the store: equal marks are equal values,
but nobody can try values without that key, and marks of two stores say nothing of each other.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from builder.mounts import SecretMount

if TYPE_CHECKING:
    from builder.graph import Exec
    from builder.secrets import Secrets
    from builder.state import StateDir

KEY = "secret-marks.key"
"""The key's file in the store, 0600. Without it (it may go at any time) such steps run again."""

_SIZE = 32


def marks(op: Exec, secrets: Secrets | None, state: StateDir) -> tuple[str, ...]:
    """A mark for each secret that `op` mounts and that counts. Raises UsageError when one cannot be read."""
    if secrets is None:
        return ()
    found = []
    for mount in op.mounts:
        if isinstance(mount, SecretMount) and secrets.counts(mount.id):
            value = secrets.value(mount.id)
            found.append("" if value is None else _mark(_key(state), mount.id, value))
    return tuple(found)


def _mark(key: bytes, name: str, value: bytes) -> str:
    import hmac

    return hmac.digest(key, name.encode("utf-8", "surrogateescape") + b"\0" + value, "sha256").hex()


def _key(state: StateDir) -> bytes:
    """The store's key, made when it is first needed."""
    path = os.path.join(state.root, KEY)
    key = _read(path)
    if len(key) == _SIZE:
        return key
    with state.lock("secret-marks"):
        key = _read(path)
        if len(key) != _SIZE:
            key = os.urandom(_SIZE)
            _write(path, key)
    return key


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    with os.fdopen(fd, "rb") as file:
        return file.read(_SIZE + 1)


def _write(path: str, key: bytes) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(fd)
    os.replace(temporary, path)
