"""From what `run` and `exec` were asked for, and an image's config, to a program and what it sees."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from builder.container.model import SHORT, Container, RunRequest
from builder.errors import UsageError
from builder.graph import Exec
from builder.sandbox.plan import CAPABILITIES
from builder.sandbox.spec import Bind, Overlay, Sandbox, Terminal
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.sandbox.spec import Mount
    from builder.snapshot.base import Active
    from oci.model import RunConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """What `exec` was asked for; what is empty is the container's."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    user: str = ""
    workdir: str = ""
    interactive: bool = False
    terminal: bool = False
    privileged: bool = False


def argv_of(request: RunRequest, config: RunConfig) -> tuple[str, ...]:
    """The program of a container. Raises UsageError when there is none."""
    entrypoint = config.entrypoint or ()
    args = request.args or (() if request.entrypoint is not None else config.cmd or ())
    if request.entrypoint is not None:
        entrypoint = (request.entrypoint,) if request.entrypoint else ()
    argv = (*entrypoint, *args)
    if not argv:
        raise UsageError("no command: the image has neither ENTRYPOINT nor CMD", hint="name a program to run")
    return argv


def operation(container: Container, config: RunConfig) -> Exec:
    """A container's program, as RUN's op."""
    request = container.request
    return Exec(
        container.argv,
        tuple(environment(request, config).items()),
        container.working_dir,
        container.user,
        request.network,
        extra_hosts=request.extra_hosts,
        security="insecure" if request.privileged else "sandbox",
        security_opts=request.security_opts,
        hostname=container.hostname or container.id[:SHORT],
        ulimits=request.ulimits,
        shm_size=request.shm_size,
    )


def environment(request: RunRequest, config: RunConfig) -> dict[str, str]:
    """A container's variables, but for those that its user and host name give."""
    env: dict[str, str] = {"PATH": DEFAULT_PATH, **({"TERM": "xterm"} if request.terminal else {})}
    env |= dict(each.partition("=")[::2] for each in config.env)
    return env | dict(request.env)


def furnished(
    sandbox: Sandbox,
    request: RunRequest,
    active: Active,
    mounts: tuple[Mount, ...],
    terminal: Terminal | None,
) -> Sandbox:
    """`sandbox` with what a container has beyond a step."""
    return replace(
        sandbox,
        root=_root(sandbox.root, request, active),
        mounts=(*mounts_below(mounts, sandbox.mounts), *mounts),
        capabilities=capabilities(sandbox.capabilities, request),
        terminal=terminal,
    )


def mounts_below(mounts: tuple[Mount, ...], usual: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """Of the usual mounts those that nothing else is mounted at: /etc/hosts may be somebody's own file."""
    taken = {each.target.rstrip("/") for each in mounts}
    return tuple(each for each in usual if each.target not in taken)


def joining(
    sandbox: Sandbox, container: Container, request: ExecRequest, terminal: Terminal | None
) -> Sandbox:
    """A sandbox of `exec`: the container's own capabilities, or all of them."""
    return replace(
        sandbox,
        capabilities=capabilities(sandbox.capabilities, container.request),
        privileged=request.privileged or container.request.privileged,
        terminal=terminal,
    )


def exec_operation(container: Container, config: RunConfig, request: ExecRequest) -> Exec:
    """A program of `exec`, as RUN's op."""
    own = operation(container, config)
    env = dict(own.env) | ({"TERM": "xterm"} if request.terminal else {}) | dict(request.env)
    return replace(
        own,
        argv=request.argv,
        env=tuple(env.items()),
        cwd=request.workdir or own.cwd,
        user=request.user or own.user,
        network="none",
        extra_hosts=(),
    )


def capabilities(usual: frozenset[str], request: RunRequest) -> frozenset[str]:
    """The usual ones, more or fewer: what is added by name comes back when all are dropped."""
    every = frozenset(CAPABILITIES)
    added = every if "ALL" in request.added else request.added
    dropped = every if "ALL" in request.dropped else request.dropped
    if "ALL" in request.dropped:
        return added
    return (usual | added) - dropped


def known_capabilities(option: str, names: tuple[str, ...]) -> frozenset[str]:
    """Names as docker takes them: in any case, with or without `CAP_`. Raises UsageError for unknown ones."""
    found = set()
    for text in names:
        for name in text.split(","):
            plain = name.upper().removeprefix("CAP_")
            if plain != "ALL" and plain not in CAPABILITIES:
                raise UsageError(
                    f"{option} {name}: there is no such capability", hint="e.g. NET_ADMIN (capabilities(7))"
                )
            found.add(plain)
    return frozenset(found)


def _root(root: Overlay | Bind, request: RunRequest, active: Active) -> Overlay | Bind:
    """What is written shall be there after a power cut, unless nobody will look for it."""
    if isinstance(root, Bind):
        return replace(root, read_only=request.read_only)
    if request.read_only:
        return replace(root, lowers=active.stacked((root.upper, *root.lowers)), upper="", work="")
    return replace(root, volatile=request.auto_remove)
