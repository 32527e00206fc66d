"""What there is to know of a container: what it was made as, which stays, and how it is, which changes."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Literal

from oci.data import dataclass

if TYPE_CHECKING:
    from builder.container.ports import Port
    from builder.container.volume_options import Volume
    from builder.limiting import Limiting

Network = Literal["default", "none", "host"]
Status = Literal["created", "running", "paused", "exited", "dead"]

SHORT = 12
"""Digits of an id that people are shown."""
STOP_TIMEOUT_S = 10.0
"""How long `stop` waits before it kills (docker's default)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What `run` was asked for. `args` replace the image's CMD, `entrypoint` its ENTRYPOINT (None keeps it).

    `interactive` keeps standard input open and passes it on; otherwise it is empty. With `terminal` the
    program gets a pseudo terminal of its own. `added` and `dropped` are capabilities beyond the usual ones
    or fewer (without their CAP_; `ALL`). `shm_size` is in bytes.
    """

    args: tuple[str, ...] = ()
    entrypoint: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    user: str = ""
    workdir: str = ""
    hostname: str = ""
    network: Network = "default"
    extra_hosts: tuple[tuple[str, str], ...] = ()
    security_opts: tuple[str, ...] = ()
    allow: frozenset[str] = frozenset()
    interactive: bool = False
    terminal: bool = False
    limits: Limiting | None = None
    ulimits: tuple[tuple[str, int, int], ...] = ()
    shm_size: int = 64 << 20
    privileged: bool = False
    read_only: bool = False
    added: frozenset[str] = frozenset()
    dropped: frozenset[str] = frozenset()
    ports: tuple[Port, ...] = ()
    volumes: tuple[Volume, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    stop_timeout_s: float = STOP_TIMEOUT_S
    auto_remove: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What a container was made as. `id` is 64 hexadecimal digits.

    `image` is the name that was typed, `manifest` the digest of the manifest it was made from (with its
    media type and size in bytes), `image_id` the digest of its config. `argv` is the program, `created` is
    RFC 3339 in nanoseconds.
    """

    id: str
    name: str
    image: str
    manifest: str
    manifest_type: str
    manifest_size: int
    image_id: str
    created: str
    argv: tuple[str, ...]
    request: RunRequest
    hostname: str = ""
    stop_signal: str = "SIGTERM"
    labels: tuple[tuple[str, str], ...] = ()
    working_dir: str = "/"
    user: str = ""

    @property
    def short(self) -> str:
        """The id as lists show it."""
        return self.id[:SHORT]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How a container is. Times are RFC 3339, "" for never.

    `pid` is its first process here, `monitor` the process that looks after it; 0 when it does not run.
    `error` says why it could not be started. `ports` are those in use, `address` is where it is reached
    from its host, `lives` counts its starts.
    """

    status: Status = "created"
    pid: int = 0
    monitor: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started: str = ""
    finished: str = ""
    ports: tuple[Port, ...] = ()
    address: str = ""
    lives: int = 0
    uppers: tuple[str, ...] = field(default=())
    """What it has written so far: directories in overlay's form within the container's own, lowest first."""

    @property
    def alive(self) -> bool:
        """Whether it has processes."""
        return self.status in ("running", "paused")
