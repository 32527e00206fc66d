"""What the user lends to steps for the time they run: secrets and ssh agents (FEATURES.md U15).

Values are read when a step first wants them and are kept in memory only. Nothing here, and nothing that is
told of it (an error, a repr), shows one.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable, Mapping
from dataclasses import field

from builder.errors import UsageError
from oci.data import dataclass

MOST_BYTES = 500 << 10
"""How large a secret may be, as with BuildKit."""


@dataclass(frozen=True, slots=True)
class Secret:
    """`--secret`: what `id` stands for, a `value`, or the content of the file `path`. With `counts` another
    value runs the steps again that mount it.
    """

    id: str
    path: str = ""
    value: bytes | None = field(default=None, repr=False)
    counts: bool = False


@dataclass(frozen=True, slots=True)
class Agent:
    """`--ssh`: the agent `id` is one that listens at a socket (one path), or one with these private keys."""

    id: str
    paths: tuple[str, ...]


class Secrets:
    """The secrets of one build. Threads may share it. A later one of the same id replaces an earlier one.

    Making it raises UsageError for a file that is not there or too large, before anything is built.
    """

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        self._secrets = {each.id: each for each in secrets}
        self._values: dict[str, bytes] = {}
        self._lock = threading.Lock()
        for each in self._secrets.values():
            _check(each)

    def counts(self, name: str) -> bool:
        """Whether the value of a secret is to be in the keys of steps, under a hash."""
        return name in self._secrets and self._secrets[name].counts

    def value(self, name: str) -> bytes | None:
        """What the secret holds; None when it was not given. Raises UsageError when it cannot be read."""
        secret = self._secrets.get(name)
        if secret is None:
            return None
        with self._lock:  # a pipe can be read only once
            if name not in self._values:
                self._values[name] = secret.value if secret.value is not None else _read(secret)
            return self._values[name]


def _check(secret: Secret) -> None:
    if secret.value is not None:
        if len(secret.value) > MOST_BYTES:
            raise _too_large(secret)
        return
    try:
        info = os.stat(secret.path)
    except OSError as error:
        raise _unreadable(secret, error) from None
    if stat.S_ISDIR(info.st_mode):
        raise UsageError(f"the secret {secret.id!r} is to come from {secret.path}, which is a directory")
    if info.st_size > MOST_BYTES:
        raise _too_large(secret)


def _read(secret: Secret) -> bytes:
    try:
        with open(secret.path, "rb") as file:
            value = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise _unreadable(secret, error) from None
    if len(value) > MOST_BYTES:
        raise _too_large(secret)
    return value


def _unreadable(secret: Secret, error: OSError) -> UsageError:
    return UsageError(
        f"the secret {secret.id!r} cannot be read from {secret.path}: {error.strerror}",
        hint="name its file or variable: --secret id=NAME,src=FILE or id=NAME,env=VARIABLE",
    )


def _too_large(secret: Secret) -> UsageError:
    return UsageError(f"the secret {secret.id!r} is larger than {MOST_BYTES >> 10} KiB")


def checked_agents(agents: Iterable[Agent]) -> Mapping[str, Agent]:
    """Agents by id. Raises UsageError for a path that is not there, or a socket among keys."""
    found = {each.id: each for each in agents}
    for each in found.values():
        sockets = [path for path in each.paths if stat.S_ISSOCK(_stat(each, path).st_mode)]
        if not each.paths or (sockets and len(each.paths) > 1):
            raise UsageError(f"--ssh {each.id}: an agent has one socket, or one key or more")
    return found


def is_socket(agent: Agent) -> bool:
    """Whether `agent` runs already, rather than being a set of keys."""
    return len(agent.paths) == 1 and stat.S_ISSOCK(_stat(agent, agent.paths[0]).st_mode)


def _stat(agent: Agent, path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise UsageError(
            f"--ssh {agent.id}: {path}: {error.strerror}",
            hint="name an agent's socket or private keys: --ssh NAME=PATH",
        ) from None
