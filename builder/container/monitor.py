"""The process that looks after one container: starts it, keeps what it prints, answers `exec`, `stop` and
the others, and writes down how it ended.

It is a fork of the command that started the container, with a session of its own
(`builder.container.forking`), and holds the lock `alive` of the container's directory as long as it lives.
When it is killed the container goes with it: no process is left that nobody looks after (SECURITY.md S96).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import traceback
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from builder.container import wire
from builder.container.documents import decoded
from builder.container.lives import next_life
from builder.container.logs import LogWriter
from builder.container.model import Container
from builder.container.moments import now
from builder.container.operation import ExecRequest, exec_operation, furnished, joining, operation
from builder.container.sessions import Client, Loop, Session
from builder.container.signals import number_of
from builder.entitlements import INSECURE, granted
from builder.errors import BuildError, SandboxError
from builder.isolation import current
from builder.limiting import limited, met
from builder.sandbox.spec import Exit, Terminal
from builder.snapshot.overlay import opened
from builder.snapshot.view import DirectoryLayer, View
from builder.solver import chrooted
from builder.solver.running import Runner, ended
from oci.data import dataclass

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from builder.container.publish import Publisher
    from builder.container.store import Containers
    from builder.events import Event
    from builder.sandbox.freeze import Note
    from builder.sandbox.run import Running
    from builder.sandbox.spec import Mount, Sandbox
    from builder.state import StateDir
    from oci.model import RunConfig

_LAST_WORD_S = 5.0
_STREAMS = ((wire.OUTPUT, "stdout"), (wire.ERRORS, "stderr"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What a container is started with: its image's layers as directories (topmost first), what is mounted,
    the size of the terminal of who starts it.
    """

    container: Container
    config: RunConfig
    lowers: tuple[str, ...]
    mounts: tuple[Mount, ...] = ()
    terminal: Terminal | None = None


class Monitor:
    """One container's life. `client` is a connection to who started it and wants to be attached."""

    def __init__(
        self, containers: Containers, state: StateDir, start: Start, ready: int, client: socket.socket | None
    ) -> None:
        self._containers = containers
        self._store = state
        self._start = start
        self._container = start.container
        self._ready = ready
        self._first = client
        self._loop = Loop()
        self._warnings: list[str] = []
        self._state = containers.state(start.container.id)
        self._sessions: list[Session] = []
        self._waiting: list[Client] = []
        self._working: list[Client] = []
        self._main: Session | None = None
        self._exit: Exit | None = None
        self._stopped_by = 0
        self._frozen: Note = frozenset()

    def run(self) -> None:
        """The whole life. What goes wrong before it began is told to who started it."""
        with ExitStack() as stack:
            try:
                self._begin(stack)
            except (BuildError, OSError) as error:
                self._not_begun(error)
                return
            if begun := self._main is not None and self._main.running.started:
                self._tell({"pid": self._state.pid})
            self._loop.run(lambda: self._exit is not None)
            self._close_sessions()
            if not begun:
                self._not_executed()
            self._settle()
        self._finish()

    # ---- its beginning ----

    def _begin(self, stack: ExitStack) -> None:
        container, request = self._container, self._container.request
        isolation = current()
        snapshots = stack.enter_context(opened(self._store.snapshots, isolation))
        life = next_life(
            self._containers, container.id, self._state, self._start.lowers, goes_on=snapshots.goes_on
        )
        active = stack.enter_context(snapshots.lasting(life.place, life.below))
        self._state = replace(self._state, uppers=life.uppers)
        layers = [*reversed(life.below), active.upper]
        self._view = View([DirectoryLayer(each, userxattr=isolation.userxattr) for each in layers])
        self._active = active
        allow = granted(request.allow, request.network)
        allow |= {INSECURE} if request.privileged else set()
        bounds = limited(request.limits, self._store.cgroups, self._warn, isolation.processes())
        self._groups = stack.enter_context(bounds)
        runner = Runner(
            stubs=os.path.join(self._store.snapshots, ".stubs"),
            logs=lambda: "",
            emit=self._warn,
            allow=frozenset(allow),
            groups=self._groups,
            networks=1,
        )
        self._runner = stack.enter_context(runner)
        self._listen(stack)
        op = operation(container, self._start.config)
        terminal = (self._start.terminal or Terminal()) if request.terminal else None
        own = runner.sandbox(op, active, lambda: self._view)
        self._sandbox = furnished(own, request, active, self._start.mounts, terminal)
        self._op = op
        stack.enter_context(chrooted.furnished(replace(self._sandbox, terminal=None), active))
        netns = runner.take_network(stack) if self._sandbox.network == "private" else None
        publisher = self._published(stack, netns)
        log = LogWriter(self._containers.path(container.id, "log"))
        stack.callback(log.close)
        self._main = main = self._session(self._sandbox, log, netns=netns)
        stack.callback(main.close)
        if self._first is not None:
            client = Client(self._loop, self._first, self._asked)
            client.attach(main, with_input=request.interactive, last=True)
        self._running(publisher)

    def _listen(self, stack: ExitStack) -> None:
        folder = self._containers.path(self._container.id)
        server = stack.enter_context(wire.listen(folder))
        stack.callback(self._unlink, os.path.join(folder, "control"))
        server.setblocking(False)

        def accept(_: int) -> None:
            with suppress(OSError):
                Client(self._loop, server.accept()[0], self._asked)

        self._loop.watch(server.fileno(), 1, accept)

    def _published(self, stack: ExitStack, netns: int | None) -> Publisher | None:
        """The published ports. Where there is no network of its own there is nothing to publish."""
        from builder.container.publish import Publisher

        if netns is None:
            return None
        publisher = Publisher(netns, self._container.request.ports)
        stack.callback(publisher.close)
        return publisher

    def _session(self, sandbox: Sandbox, log: LogWriter | None, *, netns: int | None = None) -> Session:
        """Begin a program, the container's own (with a log) or one of `exec`."""
        interactive = log is None or self._container.request.interactive
        with ExitStack() as life, ExitStack() as ours, ExitStack() as theirs:
            output = errors = stdin = feed = None
            reads: list[int] = []
            if sandbox.terminal is None:
                output, errors = (self._pipe_from(ours, theirs, reads) for _ in range(2))
                if interactive:
                    stdin, feed = os.pipe2(os.O_CLOEXEC)
                    theirs.callback(os.close, stdin)
                    ours.callback(os.close, feed)
            running = life.enter_context(
                self._begun(sandbox, (output, errors, stdin), log is not None, netns)
            )
            session = Session(self._loop, running, life.pop_all(), log=log, ended=self._session_ended)
            ours.pop_all()
        self._sessions.append(session)
        if sandbox.terminal is not None:
            self._take_terminal(session)
        for read, (kind, stream) in zip(reads, _STREAMS, strict=False):
            session.reads(read, kind, stream)
        if feed is not None:
            session.writes(feed)
        return session

    def _begun(
        self,
        sandbox: Sandbox,
        streams: tuple[int | None, int | None, int | None],
        own: bool,
        netns: int | None,
    ) -> AbstractContextManager[Running]:
        output, errors, stdin = streams
        if own:
            return self._runner.begin(sandbox, output, errors=errors, stdin=stdin, netns=netns, tell_pid=True)
        assert self._main is not None
        return self._runner.join(self._main.running, sandbox, output, errors=errors, stdin=stdin)

    @staticmethod
    def _pipe_from(ours: ExitStack, theirs: ExitStack, reads: list[int]) -> int:
        """A pipe out of the program: the end that is its own, which is closed here when it has it."""
        read, write = os.pipe2(os.O_CLOEXEC)
        ours.callback(os.close, read)
        theirs.callback(os.close, write)
        reads.append(read)
        return write

    def _take_terminal(self, session: Session) -> None:
        master = session.running.terminal()
        if master >= 0:
            session.has_terminal(master)

    def _running(self, publisher: Publisher | None) -> None:
        assert self._main is not None
        pid = self._main.running.pid
        self._state = replace(
            self._state,
            status="running",
            pid=pid,
            monitor=os.getpid(),
            exit_code=0,
            error="",
            oom_killed=False,
            started=now(),
            finished="",
            lives=self._state.lives + 1,
            ports=publisher.bound if publisher else (),
        )
        self._containers.update(self._container.id, self._state)
        if publisher:
            publisher.start()
        signal.signal(signal.SIGTERM, lambda *_: self._stop(self._stop_signal))

    def _not_begun(self, error: BaseException) -> None:
        """What was made for a life that never began is kept or not as `run` decides; the error is
        remembered.
        """
        self._containers.update(
            self._container.id, replace(self._state, status=self._before(), error=str(error))
        )
        self._tell({"error": str(error), "hint": getattr(error, "hint", ""), "kind": type(error).__name__})

    def _not_executed(self) -> None:
        exit_ = self._exit or Exit(125)
        self._tell({"error": exit_.error, "status": exit_.status, "hint": self._advice()})

    def _before(self) -> Any:
        return "exited" if self._state.lives else "created"

    # ---- what is asked of it ----

    def _asked(self, client: Client, request: dict[str, Any]) -> None:
        what = str(request.pop("do", ""))
        try:
            answer = getattr(self, f"_do_{what}", self._do_nothing)(client, request)
        except (BuildError, OSError, ValueError) as error:
            client.end({"error": str(error), "hint": getattr(error, "hint", "")}, wire.ANSWER)
            return
        except Exception as error:  # a mistake of ours ends no container
            traceback.print_exc()
            client.end({"error": f"internal error: {type(error).__name__}: {error}"}, wire.ANSWER)
            return
        if answer is not None:
            client.end(answer, wire.ANSWER)

    def _do_nothing(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        return {"error": "this container was started by another version of pybuild, which does not know that"}

    def _do_attach(self, client: Client, request: dict[str, Any]) -> None:
        assert self._main is not None
        client.send(wire.document(wire.ANSWER, {}))
        client.attach(
            self._main, with_input=bool(request.get("stdin")) and self._container.request.interactive
        )

    def _do_wait(self, client: Client, request: dict[str, Any]) -> None:
        self._waiting.append(client)

    def _do_signal(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        assert self._main is not None
        if self._state.status == "paused" and int(request["number"]) == signal.SIGKILL:
            self._thaw()
        self._main.running.signal(int(request["number"]))
        return {}

    def _do_stop(self, client: Client, request: dict[str, Any]) -> None:
        self._waiting.append(client)
        self._stop(int(request.get("number") or self._stop_signal), float(request["timeout"]))

    def _do_pause(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        from builder.sandbox.freeze import freeze

        if self._state.status == "paused":
            return {"error": "it is paused already"}
        assert self._main is not None
        self._frozen = freeze(self._state.pid, self._main.running.group)
        self._now(status="paused")
        return {}

    def _do_unpause(self, client: Client, request: dict[str, Any]) -> dict[str, Any]:
        if self._state.status != "paused":
            return {"error": "it is not paused"}
        self._thaw()
        return {}

    def _do_exec(self, client: Client, request: dict[str, Any]) -> None:
        if self._state.status == "paused":
            raise SandboxError("the container is paused", hint="pybuild unpause lets it go on")
        if current().chroot:
            raise SandboxError("exec needs namespaces, and --isolation=chroot has none")
        asked = decoded(ExecRequest, request.get("request"))
        size = Terminal(int(request.get("rows", 0)), int(request.get("columns", 0)))
        op = exec_operation(self._container, self._start.config, asked)
        sandbox = self._runner.sandbox(op, self._active, lambda: self._view)
        sandbox = joining(sandbox, self._container, asked, size if asked.terminal else None)
        with self._unwatched(sandbox):
            session = self._session(sandbox, None)
        client.send(wire.document(wire.ANSWER, {}))
        if request.get("detached"):
            session.feed(b"")
            client.end({"status": 0})
            return
        client.attach(session, with_input=asked.interactive, last=True)
        if not asked.interactive:
            session.feed(b"")

    @contextmanager
    def _unwatched(self, sandbox: Sandbox) -> Iterator[None]:
        """Nothing in a container that may trace any process runs while another one joins it: until its
        program is executed that one is still ours, with all that we may do (SECURITY.md S11).

        By signals alone: what is born in a frozen cgroup is frozen.
        """
        if "SYS_PTRACE" not in sandbox.capabilities or sandbox.privileged:
            yield
            return
        from builder.sandbox.freeze import freeze, thaw

        before = freeze(self._state.pid)
        try:
            yield
        finally:
            thaw(self._state.pid, before)

    def _do_root(self, client: Client, request: dict[str, Any]) -> None:
        """The root's descriptor for who copies files. He stays connected as long as he works on it, and is
        told when the container ends.
        """
        with self._root("alone" if request.get("alone") else "mounted") as fd:
            client.hand(wire.document(wire.ANSWER, {}), fd)
        self._working.append(client)

    @contextmanager
    def _root(self, show: str) -> Iterator[int]:
        assert self._main is not None
        if not self._sandbox.chroot:
            with self._runner.shown(self._sandbox, show, where=self._main.running) as fd:
                yield fd
            return
        fd = os.open(self._active.written, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)

    def _stop(self, number: int, timeout: float = 10.0) -> None:
        assert self._main is not None
        if self._state.status == "paused":
            self._thaw()
        self._stopped_by = number
        running = self._main.running
        running.signal(number)
        if timeout >= 0:
            self._loop.later(timeout, lambda: running.signal(signal.SIGKILL) if self._exit is None else None)

    @property
    def _stop_signal(self) -> int:
        return number_of(self._container.stop_signal)

    def _thaw(self) -> None:
        from builder.sandbox.freeze import thaw

        assert self._main is not None
        thaw(self._state.pid, self._frozen, self._main.running.group)
        self._now(status="running")

    def _now(self, **changes: Any) -> None:
        self._state = replace(self._state, **changes)
        self._containers.update(self._container.id, self._state)

    # ---- ends ----

    def _session_ended(self, session: Session) -> None:
        self._sessions.remove(session)
        try:
            exit_ = ended(session.running)
        except SandboxError as error:
            exit_ = Exit(125, error=str(error))
        if session is self._main:
            self._exit = exit_
            return
        for client in list(session.clients):
            client.end(_told(exit_))

    def _close_sessions(self) -> None:
        """`exec`'s programs ended with the container."""
        for session in list(self._sessions):
            for client in list(session.clients):
                client.end({"status": 137})
            session.close()
        for client in self._working:  # who must let go of its files before others mount them
            client.dismiss(_LAST_WORD_S)

    def _settle(self) -> None:
        """Its processes are gone: what it wrote is put in order."""
        if not self._container.request.auto_remove:
            try:
                self._active.settle()
                self._runner.own(self._op, lambda: self._view, self._active.upper)
            except (OSError, BuildError) as error:
                self._state = replace(self._state, error=str(error))

    def _finish(self) -> None:
        """The last word, when everything that was made for it has been taken back."""
        exit_ = self._exit or Exit(137)
        told = _told(exit_) | {"stopped": self._stopped_by}
        used = exit_.used
        if exit_.error:
            told["hint"] = self._advice()
        elif exit_.status and (text := met(exit_, self._groups, "the container")):
            told["text"] = text
        state = replace(
            self._state,
            status="exited" if not exit_.error or self._state.lives > 1 else "created",
            pid=0,
            monitor=0,
            exit_code=exit_.status,
            oom_killed=bool(used and used.oom_kills),
            finished=now(),
            ports=(),
            address="",
            error=exit_.error or self._state.error,
        )
        if self._container.request.auto_remove:
            from builder.container.lifecycle import discard

            discard(self._containers, self._store, self._container)
        else:
            self._containers.update(self._container.id, state)
        clients = [*(self._main.clients if self._main else ()), *self._waiting]
        for client in clients:
            client.end(told)
            client.drain(_LAST_WORD_S)

    def _advice(self) -> str:
        from builder.solver.foreign import advice

        return advice(self._op, self._view)

    def _tell(self, document: dict[str, Any]) -> None:
        """To who started it, once."""
        with suppress(OSError):
            os.write(self._ready, json.dumps(document | {"warnings": self._warnings}).encode())
        os.close(self._ready)

    def _warn(self, event: Event) -> None:
        self._warnings.append(str(getattr(event, "message", "")))

    @staticmethod
    def _unlink(path: str) -> None:
        with suppress(OSError):
            os.unlink(path)


def _told(exit_: Exit) -> dict[str, Any]:
    return {"status": exit_.status, "error": exit_.error}
