"""What `RUN --mount` shows, made ready for one step: sources become layers, ids directories and sockets.

with mounting.ready(op, sources, active) as shown:    the mounts and variables of the sandbox
    run the step                                      afterwards locks, sockets and written copies are gone
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from builder.errors import ContextError, SandboxError, UsageError
from builder.mounts import BindMount, CacheMount, SecretMount, SshMount, TmpfsMount
from builder.sandbox.spec import Bind, File, Layers, Tmpfs
from builder.secrets import is_socket
from builder.solver.caches import Caches, Wanted
from builder.solver.shown import NOTHING, Shown
from builder.tree import Tree, clean
from oci.data import dataclass
from oci.rooted import Root
from oci.tar import Kind

if TYPE_CHECKING:
    from builder.graph import Exec
    from builder.sandbox.spec import Mount
    from builder.secrets import Agent, Secrets
    from builder.snapshot.base import Active

_SOCKET_VARIABLE = "SSH_AUTH_SOCK"


@dataclass(frozen=True, slots=True)
class Source:
    """The result of an input, as far as mounts look into it.

    `lowers` are its directories (topmost first), `view` looks into them, `copy_to` writes all of it into a
    host directory. `key` stands for what it holds.
    """

    key: str
    lowers: Callable[[], tuple[str, ...]]
    view: Callable[[], Tree]
    copy_to: Callable[[str], None]


class Mounting:
    """Makes mounts ready for the steps of one build. Close it, or use it in `with`: agents end then."""

    def __init__(self, caches: Caches, secrets: Secrets, agents: Mapping[str, Agent]) -> None:
        self._caches = caches
        self._secrets = secrets
        self._agents = agents
        self._lock = threading.Lock()
        self._sockets: dict[str, str] = {}
        self._exit = ExitStack()

    def __enter__(self) -> Mounting:
        return self

    def __exit__(self, *exc: object) -> None:
        self._exit.close()

    @contextmanager
    def ready(
        self, op: Exec, root: Callable[[], Tree], sources: Sequence[Source], active: Active
    ) -> Iterator[Shown]:
        """The mounts of `op`; `root` looks into its first input, `sources` are the others.

        Raises ContextError for a path that is not there, UsageError for what was not given, SandboxError for
        an agent that cannot be had.
        """
        if not op.mounts and not op.devices:
            yield NOTHING
            return
        devices = _devices(op)
        with ExitStack() as stack:
            yield _both(devices, _Step(self, op, root, sources, active, stack).shown())

    def secret(self, mount: SecretMount) -> bytes | None:
        """The value of a secret; None for one that is neither given nor required."""
        value = self._secrets.value(mount.id)
        if value is None and mount.required:
            raise UsageError(
                f"the secret {mount.id!r} is required and was not given",
                hint=f"give it with --secret id={mount.id},src=FILE (or env=VARIABLE)",
            )
        return value

    def agent(self, mount: SshMount) -> str:
        """The socket of an agent, started if it is one with keys; "" for one that is neither given nor
        required.
        """
        agent = self._agents.get(mount.id)
        if agent is None:
            if mount.required:
                raise UsageError(
                    f"the ssh agent {mount.id!r} is required and was not given",
                    hint=f"give it with --ssh {mount.id} (your own agent) or --ssh {mount.id}=PATH",
                )
            return ""
        if is_socket(agent):
            return agent.paths[0]
        with self._lock:
            if mount.id not in self._sockets:
                self._sockets[mount.id] = self._started(agent)
            return self._sockets[mount.id]

    def _started(self, agent: Agent) -> str:
        from builder.sandbox.agent import KeyAgent

        try:
            return self._exit.enter_context(KeyAgent(agent.paths)).path
        except OSError as error:
            raise SandboxError(
                f"--ssh {agent.id}: {error.strerror or error}",
                hint="add a key with a passphrase to your own agent (ssh-add), then use --ssh default",
            ) from None

    def caches(self, wanted: Sequence[Wanted], stack: ExitStack) -> tuple[str, ...]:
        """Directories for these caches, held until `stack` ends."""
        return stack.enter_context(self._caches.taken(wanted)) if wanted else ()


class _Step:
    """The mounts of one step, under way."""

    def __init__(
        self,
        mounting: Mounting,
        op: Exec,
        root: Callable[[], Tree],
        sources: Sequence[Source],
        active: Active,
        stack: ExitStack,
    ) -> None:
        self._mounting = mounting
        self._op = op
        self._root = root
        self._sources = sources
        self._active = active
        self._stack = stack
        self._env: list[tuple[str, str]] = []

    def shown(self) -> Shown:
        # Everything that can fail comes before the caches: nobody waits for a lock in vain.
        found = [(each, self._mount(number, each)) for number, each in enumerate(self._op.mounts)]
        wanted = [self._wanted(each) for each, _ in found if isinstance(each, CacheMount)]
        folders = iter(self._mounting.caches(wanted, self._stack))
        mounts = [
            self._cache(each, next(folders)) if isinstance(each, CacheMount) else made for each, made in found
        ]
        # Parents before what lies in them, whatever order they were written in (as BuildKit does).
        return Shown(tuple(sorted(filter(None, mounts), key=lambda each: each.target)), tuple(self._env))

    def _mount(self, number: int, mount: object) -> Mount | None:
        match mount:
            case BindMount():
                return self._bind(number, mount)
            case TmpfsMount(target, size, read_only):
                return Tmpfs(target, size, _mode_of(self._root(), target), read_only)
            case SecretMount():
                return self._secret(mount)
            case SshMount():
                return self._ssh(number, mount)
            case _:
                return None

    def _bind(self, number: int, mount: BindMount) -> Layers | Bind:
        lowers: tuple[str, ...] = ()
        directory = True
        if mount.step:
            source = self._sources[mount.step - 1]
            lowers = source.lowers()
            directory = mount.source == "/" or _is_directory(source.view(), mount.source)
        elif mount.source != "/":
            raise ContextError(f"{mount.source} is not in scratch, which holds nothing")
        if self._active.merged:
            folder = self._active.plain(f"mount{number}", lowers)
            return Bind(folder, mount.target, not mount.writable, mount.source.strip("/"), directory)
        upper, work = self._active.extra(f"mount{number}", lowers) if mount.writable else ("", "")
        layers = self._active.stacked(lowers)
        return Layers(mount.target, layers, mount.source.strip("/"), directory, upper, work)

    def _wanted(self, mount: CacheMount) -> Wanted:
        if not mount.step:
            return Wanted(mount)
        source = self._sources[mount.step - 1]
        return Wanted(mount, source.copy_to, source.key)

    def _cache(self, mount: CacheMount, folder: str) -> Bind:
        path = mount.source.strip("/")
        directory = True
        if path:
            try:
                with Root.at(folder) as root:
                    directory = stat.S_ISDIR(root.stat(os.fsencode(path)).st_mode)
            except OSError as error:
                text = f"the cache {mount.id} has no {mount.source}: {error.strerror}"
                raise ContextError(text, hint="a cache is empty at first, unless `from` fills it") from None
        return Bind(folder, mount.target, mount.read_only, path, directory)

    def _secret(self, mount: SecretMount) -> File | None:
        value = self._mounting.secret(mount)
        if value is None:
            return None
        if mount.env:
            if b"\0" in value:
                raise UsageError(
                    f"the secret {mount.id!r} holds a NUL byte: it cannot be the variable {mount.env}",
                    hint="mount it as a file: leave out env=",
                )
            self._env.append((mount.env, os.fsdecode(value)))
        if not mount.target:
            return None
        return File(mount.target, value, mount.mode, mount.uid, mount.gid)

    def _ssh(self, number: int, mount: SshMount) -> Bind | None:
        upstream = self._mounting.agent(mount)
        if not upstream:
            return None
        from builder.sandbox.agent import Door

        folder, name = self._active.scratch(), f"agent{number}"
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._stack.callback(os.close, fd)
        try:
            self._stack.enter_context(Door(fd, name, upstream, (mount.mode, mount.uid, mount.gid)))
        except OSError as error:
            raise SandboxError(f"the socket of the ssh agent {mount.id!r} cannot be made: {error}") from error
        if not any(each == _SOCKET_VARIABLE for each, _ in (*self._op.env, *self._env)):
            self._env.append((_SOCKET_VARIABLE, mount.target))
        return Bind(os.path.join(folder, name), mount.target, read_only=True)


def _devices(op: Exec) -> Shown:
    if not op.devices:
        return NOTHING
    from builder.solver.devices import shown

    return shown((each.name, each.required) for each in op.devices)


def _both(one: Shown, other: Shown) -> Shown:
    """Two steps' worth; what is mounted at the same place is the other's."""
    taken = {each.target for each in other.mounts}
    mounts = (*(each for each in one.mounts if each.target not in taken), *other.mounts)
    ordered = tuple(sorted(mounts, key=lambda each: each.target))
    return Shown(ordered, one.env + other.env, one.groups + other.groups)


def _mode_of(tree: Tree, path: str) -> int:
    """The mode of a tmpfs: that of the directory it covers, as runc has it."""
    node = tree.lstat(tree.resolve(clean(path)))
    return node.mode if node is not None and node.kind is Kind.DIRECTORY else 0o1777


def _is_directory(tree: Tree, path: str) -> bool:
    node = tree.lstat(tree.resolve(clean(path)))
    return node is not None and node.kind is Kind.DIRECTORY
