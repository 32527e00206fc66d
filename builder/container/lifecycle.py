"""What people do with containers: make, start, stop, remove them, and run programs in them."""

from __future__ import annotations

import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from builder.container import wire
from builder.container.documents import encoded
from builder.container.model import Container, RunRequest, State
from builder.container.moments import now
from builder.container.names import random_name
from builder.container.operation import ExecRequest, argv_of
from builder.container.store import Containers
from builder.errors import BuildError, NotFound, ResourceError, SandboxError, UsageError
from builder.isolation import current, need_runs
from builder.snapshot.overlay import opened
from builder.snapshot.view import DirectoryLayer, View
from builder.solver.result import Result, directories, parts_of, unpacker

if TYPE_CHECKING:
    from builder.sandbox.spec import Mount, Terminal
    from builder.state import StateDir
    from oci.blobs import BlobStore
    from oci.image import Image

_NAMES_TRIED = 20


def create(store: StateDir, image: Image, typed: str, request: RunRequest, name: str = "") -> Container:
    """Make a container of `image`, which people named `typed`. Raises UsageError when there is nothing to
    run or the name is taken.
    """
    containers = Containers(store.root)
    config = image.config.value.config
    ident = secrets.token_hex(32)
    labels = dict(config.labels) | dict(request.labels)
    for attempt in range(_NAMES_TRIED):
        container = Container(
            id=ident,
            name=name or random_name() + (f"_{ident[:4]}" if attempt > _NAMES_TRIED // 2 else ""),
            image=typed,
            manifest=str(image.manifest.digest),
            manifest_type=image.descriptor.media_type,
            manifest_size=image.descriptor.size,
            image_id=str(image.id),
            created=now(),
            argv=argv_of(request, config),
            request=request,
            hostname=request.hostname,
            stop_signal=request.stop_signal or config.stop_signal or "SIGTERM",
            labels=tuple(sorted(labels.items())),
            working_dir=request.workdir or config.working_dir or "/",
            user=request.user or config.user,
        )
        try:
            containers.add(container)
            return container
        except UsageError:
            if name or attempt == _NAMES_TRIED - 1:
                raise
    raise AssertionError("unreachable")


class NotStarted(BuildError):
    """A container's program could not be executed; `status` is what a shell says of that: 126 or 127."""

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.exit_code = status


def unpacked(
    store: StateDir, image: Image, blobs: BlobStore, fetch: Callable[[int], bool] | None = None
) -> tuple[str, ...]:
    """An image's layers as directories, topmost first. `fetch` makes a layer present and tells whether
    strangers wrote it (`builder.registries`). Raises OciError for a layer that is not what the image says
    it is.
    """
    need_runs(current())
    with opened(store.snapshots, current()) as snapshots:
        return directories(Result("", parts_of(image, fetch)), unpacker(snapshots, blobs))


def view_of(lowers: tuple[str, ...]) -> View:
    """The merged files of layers that are `unpacked`."""
    marks = current().userxattr
    return View([DirectoryLayer(each, userxattr=marks) for each in reversed(lowers)])


def start(
    store: StateDir,
    container: Container,
    image: Image,
    lowers: tuple[str, ...],
    *,
    mounts: tuple[Mount, ...] = (),
    terminal: Terminal | None = None,
    attach: bool = False,
) -> tuple[socket.socket | None, dict[str, Any]]:
    """Start a container on top of `lowers` (`unpacked`): a connection that is attached to it, when that is
    wanted, and what its monitor said.

    Raises SandboxError when its surroundings cannot be made, NotStarted when its program cannot be executed,
    UsageError when it runs already. This process must have one thread.
    """
    from builder.container.forking import fork
    from builder.container.monitor import Start

    containers = Containers(store.root)
    with containers.alone(container.id, wait=False) as alive:
        if alive < 0:
            if not containers.state(container.id).alive:
                raise UsageError(
                    f"the container {container.name} is in use",
                    hint="it is just starting or ending, or its files are being copied: try again",
                )
            raise UsageError(f"the container {container.name} runs already")
        beginning = Start(
            container=container,
            config=image.config.value.config,
            lowers=lowers,
            mounts=mounts,
            terminal=terminal,
        )
        pair = socket.socketpair() if attach else None
        try:
            said = fork(containers, store, beginning, alive, pair)
        except BaseException:
            for end in pair or ():
                end.close()
            raise
    if said.get("error"):
        if pair:
            pair[0].close()
        raise _error(said)
    return (pair[0] if pair else None), said


def _error(said: dict[str, Any]) -> BuildError:
    if said.get("status"):
        return NotStarted(said["error"], status=said["status"], hint=said.get("hint", ""))
    kinds = {each.__name__: each for each in (UsageError, ResourceError, NotFound, SandboxError)}
    return kinds.get(said.get("kind", ""), SandboxError)(said["error"], hint=said.get("hint", ""))


def ask(store: StateDir, ident: str, **request: Any) -> dict[str, Any]:
    """Ask a container's monitor for something. Raises UsageError when the container does not run,
    SandboxError when the monitor refuses.
    """
    containers = Containers(store.root)
    try:
        answer = wire.ask(containers.path(ident), request)
    except OSError:
        containers.get(ident)
        raise _not_running(containers, ident) from None
    if "status" not in answer and answer.get("error"):
        raise SandboxError(answer["error"], hint=answer.get("hint", ""))
    return answer


def _not_running(containers: Containers, ident: str) -> UsageError:
    name = containers.get(ident).name
    return UsageError(f"the container {name} does not run", hint=f"pybuild start {name} starts it")


def stop(store: StateDir, ident: str, *, timeout_s: float | None = None, number: int = 0) -> None:
    """Have a container end: its stop signal, then after `timeout_s` seconds (negative: never) SIGKILL. One
    that does not run is left alone.
    """
    container = Containers(store.root).get(ident)
    seconds = container.request.stop_timeout_s if timeout_s is None else timeout_s
    with suppress(UsageError, NotFound):
        ask(store, ident, do="stop", timeout=seconds, number=number)


def kill(store: StateDir, ident: str, number: int = signal.SIGKILL) -> None:
    """Send a signal to a container's first process. Raises UsageError when it does not run."""
    ask(store, ident, do="signal", number=number)


def wait(store: StateDir, ident: str) -> int:
    """Wait until a container has ended; its exit code."""
    try:
        return int(ask(store, ident, do="wait").get("status", 0))
    except (UsageError, ConnectionError):
        return Containers(store.root).state(ident).exit_code


def remove(store: StateDir, ident: str, *, force: bool = False, volumes: bool = False) -> None:
    """Remove a container; with `force` one that runs, too. Raises UsageError for one that runs."""
    containers = Containers(store.root)
    if force:
        with suppress(UsageError, SandboxError):
            ask(store, ident, do="stop", timeout=0, number=int(signal.SIGKILL))
    with containers.alone(ident, wait=force) as mine:
        if mine < 0:
            name = containers.get(ident).name
            raise UsageError(
                f"the container {name} runs",
                hint=f"pybuild stop {name} ends it; pybuild rm -f {name} removes it so",
            )
        try:
            container = containers.get(ident)
        except NotFound:
            containers.forget(ident)
            return
        discard(containers, store, container, volumes=volumes)


def discard(containers: Containers, store: StateDir, container: Container, *, volumes: bool = True) -> None:
    """Take away a container that nobody looks after, and with `volumes` those that have no name."""
    containers.forget(container.id)
    if volumes:
        discard_volumes(store, container.request)


def discard_volumes(store: StateDir, request: RunRequest) -> None:
    """Remove the volumes that were made for one container alone, and have no name."""
    from builder.container.store import users_of
    from builder.container.volumes import Volumes

    found = Volumes(store.root)
    for each in request.volumes:
        if each.kind == "volume" and found.is_anonymous(each.source):
            with suppress(BuildError, OSError):
                found.remove(each.source, lambda name: users_of(store.root, name))


def attach(store: StateDir, ident: str, *, stdin: bool) -> socket.socket:
    """A connection to a running container's program. Raises UsageError when it does not run."""
    return _connected(store, ident, {"do": "attach", "stdin": stdin})


def execute(
    store: StateDir, ident: str, request: ExecRequest, size: Terminal, *, detached: bool = False
) -> socket.socket:
    """Begin a program in a running container: a connection to it."""
    asked = {
        "do": "exec",
        "request": encoded(request),
        "rows": size.rows,
        "columns": size.columns,
        "detached": detached,
    }
    return _connected(store, ident, asked)


def root(store: StateDir, ident: str, *, alone: bool = False) -> tuple[socket.socket, int]:
    """A running container's root, as a descriptor to work below, with all that is mounted in it or, `alone`,
    without: and the connection to keep while that is done, at which something arrives when the container
    ends. Raises UsageError when it does not run, SandboxError.
    """
    connection = _connected(store, ident, {"do": "root", "alone": alone})
    try:
        return connection, wire.received(connection)
    except BaseException:
        connection.close()
        raise


def _connected(store: StateDir, ident: str, request: dict[str, Any]) -> socket.socket:
    containers = Containers(store.root)
    try:
        connection = wire.connect(containers.path(ident))
    except OSError:
        raise _not_running(containers, ident) from None
    connection.sendall(wire.document(wire.REQUEST, request))
    return connection


def need_running(containers: Containers, ident: str) -> State:
    """The state of a container that has processes. Raises UsageError for others."""
    state = containers.state(ident)
    if not state.alive:
        raise _not_running(containers, ident)
    return state
