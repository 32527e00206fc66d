"""RUN: from an op to a sandboxed process, its output to the log, its end to a result or an error."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from builder import entitlements
from builder.errors import BuildCancelled, ResourceError, SandboxError, StepFailed
from builder.events import Emit, Usage, Warning_
from builder.graph import Exec, Step
from builder.isolation import PROC_MEND, PROC_NOTE, Isolation, current, need_runs, unmapped
from builder.sandbox.run import Launcher, Running
from builder.sandbox.spec import DEFAULT_CAPABILITIES, Bind, Exit, File, Limits, Overlay, Owners, Sandbox
from builder.solver.chrooted import UNCONFINED, WARNING, WITHOUT, furnished
from builder.solver.identity import resolve_user
from builder.solver.logs import StepOutput
from builder.solver.shown import NOTHING, Shown
from builder.tree import Tree

if TYPE_CHECKING:
    from builder.sandbox.cgroup import Groups
    from builder.sandbox.network import NetworkPool
    from builder.snapshot.base import Active
    from builder.solver.identity import Identity

_PIPES = "/dev/pipes/"
_APT_FILE, _APT_CONFIG = _PIPES + "apt.conf", b'APT::Sandbox::User "root";\n'
"""With one id, apt must not try to become another user: it looks whether that worked, and gives up."""
_LAST_SIGNAL = 64
_MISSING = "is the program in this stage, with its interpreter?"
_LONG = (
    "a program's arguments and variables may have 128 KiB each (execve(2)): COPY the script and run that, or"
    " begin it with #!/bin/sh in a heredoc, which then is a file"
)
INSTALL = (
    "install slirp4netns or passt (sudo apt-get install slirp4netns), or give the steps the host's network"
    " with --network=host, or none with --network=none"
)
HOST_GATEWAY = "host-gateway"
"""In place of an address: the host's own."""


class Runner:
    """Runs the Exec steps of one build. `logs` is the directory for their output, `allow` what they may have
    beyond a plain step, `groups` the cgroups that limit them, `networks` how many private ones there will
    be at most (0: nobody knows). Once `cancelled` is set, `run` ends what it has just begun: `kill_all`
    reaches only what runs already.

    Use it in `with`: leaving ends the launcher and the network pool, and with them every process and
    interface.
    """

    def __init__(
        self,
        *,
        stubs: str,
        logs: Callable[[], str],
        emit: Emit,
        allow: frozenset[str] = frozenset(),
        groups: Groups | None = None,
        isolation: Isolation | None = None,
        networks: int = 0,
        cancelled: threading.Event | None = None,
    ) -> None:
        self._networks = networks
        self._cancelled = cancelled or threading.Event()
        self._allow = allow
        self._groups = groups
        self._usages: dict[str, Usage] = {}
        self._isolation = isolation or current()
        self._exit = ExitStack()
        self._launcher = Launcher(stubs)
        self._logs = logs
        self._emit = emit
        self._lock = threading.Lock()
        self._pool: NetworkPool | None = None
        self._told_weaker = False
        self._told_unconfined = False

    def __enter__(self) -> Runner:
        need_runs(self._isolation)
        self._exit.enter_context(self._launcher)
        self._launcher.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._exit.close()

    def kill_all(self) -> None:
        """Kill every running step."""
        self._launcher.kill_all()

    def run(
        self, step: Step, op: Exec, active: Active, view: Callable[[], Tree], shown: Shown = NOTHING
    ) -> None:
        """Run `op` on the snapshot `active`; `shown` are its mounts.

        Raises StepFailed when its status is not 0, SandboxError when it never began, BuildCancelled.
        """
        sandbox = self.sandbox(op, active, view, shown)
        path = os.path.join(self._logs(), f"{step.digest[:32]}.log")
        with StepOutput(path, step.digest, self._emit) as output:
            with furnished(sandbox, active), self.begin(sandbox, output.write_fd) as running:
                if self._cancelled.is_set():
                    raise BuildCancelled("the build was cancelled")
                output.close_writer()
                output.drain()
                exit_ = ended(running)
            self._usages[step.digest] = _usage(exit_)
            self._tell_weaker(exit_)
            self._judge(exit_, output, str(step.at or ""), lambda: self._advice(op, exit_, output, active))

    def own(self, op: Exec, view: Callable[[], Tree], directory: str) -> None:
        """Where owners are noted: what a USER's step added in the layer `directory` is that user's."""
        if self._isolation.notes_owners:
            from builder.snapshot.noted import claim

            identity = resolve_user(view(), op.user)
            claim(directory, view(), identity.uid, identity.gid)

    def usage(self, digest: str) -> Usage | None:
        """What the step of that digest used, if it ran. To be asked once."""
        return self._usages.pop(digest, None)

    def sandbox(self, op: Exec, active: Active, view: Callable[[], Tree], shown: Shown = NOTHING) -> Sandbox:
        """What the process of `op` shall see; its USER is looked up in `view`.

        Raises SandboxError for more than is allowed: every way to a process leads through here.
        """
        wanted = (op.network, op.security, self._allow, op.devices, op.security_opts)
        if lacking := entitlements.missing(*wanted):
            raise SandboxError(f"the step is not allowed {lacking}", hint=f"allow it with --allow {lacking}")
        identity = resolve_user(view(), op.user)
        self._check_mapped(identity)
        network = self.network(op.network)
        scripts = [File(_PIPES + each.name, each.content, 0o755) for each in op.files]
        env = op.env + op.proxy_env + shown.env
        if active.notes and view().lstat(b"etc/apt") is not None and "APT_CONFIG" not in dict(env):
            scripts.append(File(_APT_FILE, _APT_CONFIG))
            env = (*env, ("APT_CONFIG", _APT_FILE))
        return Sandbox(
            root=self._root(active),
            argv=op.argv,
            env=environment(env, identity.home, op.hostname),
            cwd=op.cwd,
            uid=identity.uid,
            gid=identity.gid,
            groups=tuple(dict.fromkeys(identity.groups + shown.groups)),
            hostname=op.hostname,
            mounts=(*self._network_files(op, network), *scripts, *shown.mounts),
            network=network,
            rlimits=op.ulimits,
            shm_size=op.shm_size,
            privileged=op.security == "insecure",
            no_new_privileges=entitlements.NO_NEW_PRIVILEGES in op.security_opts,
            unfiltered=entitlements.UNFILTERED in op.security_opts,
            chroot=self._isolation.chroot,
            capabilities=DEFAULT_CAPABILITIES - (WITHOUT if self._isolation.chroot else frozenset()),
            limits=self._groups.each if self._groups else Limits(),
            owners=self._owners(active),
            strict=self._isolation.asked == "strict",
        )

    def _owners(self, active: Active) -> Owners | None:
        return Owners(active.written, active.notes) if active.notes else None

    def _root(self, active: Active) -> Overlay | Bind:
        if active.merged:
            return Bind(active.merged)
        return Overlay(active.lowers, active.upper, active.work, userxattr=self._isolation.userxattr)

    def _judge(self, exit_: Exit, output: StepOutput, at: str, advice: Callable[[], str]) -> None:
        """Raise what a bad end means; warn of a good one that came after a limit was met."""
        if exit_.timed_out and self._groups is not None:
            seconds = f"{self._groups.each.wall_s:g}s"
            text = f"RUN was ended: it took longer than {seconds} (--step-timeout)"
            raise StepFailed(text, status=exit_.status, log=output.last_lines())
        if self._groups is not None and exit_.used is not None:
            from builder.limiting import met

            if text := met(exit_, self._groups):
                if exit_.status:
                    raise ResourceError(f"RUN exited with {exit_.status}, {text}", log=output.last_lines())
                self._emit(Warning_("LimitMet", f"RUN went on, {text}", at))
        _check(exit_, output, advice)

    def _advice(self, op: Exec, exit_: Exit, output: StepOutput, active: Active) -> str:
        """What to do about a program that was not executed; "" when nothing says that there is one."""
        from builder.snapshot.view import DirectoryLayer, View
        from builder.solver import foreign

        def tree() -> View:
            marks = self._isolation.userxattr
            layers = reversed((active.upper, *active.lowers))
            return View([DirectoryLayer(each, userxattr=marks) for each in layers])

        if exit_.error:
            return foreign.advice(op, tree())
        return foreign.advice_of_output(op, output.last_lines(), tree)

    def _check_mapped(self, identity: Identity) -> None:
        """Raises SandboxError for a user or group that has no id in this process's namespace (S101)."""
        maps = self._isolation.maps
        if maps is None or self._isolation.notes_owners:
            return  # with one id, a step's program believes to be whom it asks to be
        for what, number, there in (
            ("user", identity.uid, maps.has_uid(identity.uid)),
            *(("group", each, maps.has_gid(each)) for each in (identity.gid, *identity.groups)),
        ):
            if not there:
                text, hint = unmapped(self._isolation, f"the step's {what} {number}")
                raise SandboxError(text, hint=hint)

    def _tell_weaker(self, exit_: Exit) -> None:
        """Say once what was weaker than it should be (S106)."""
        if "proc" in exit_.weaker and not self._told_weaker:
            self._told_weaker = True
            self._emit(Warning_("WeakerIsolation", f"{PROC_NOTE}: {PROC_MEND}"))
        for each in exit_.weaker:
            if each in UNCONFINED and not self._told_unconfined:
                self._told_unconfined = True
                self._emit(Warning_("WeakerIsolation", UNCONFINED[each]))

    @contextmanager
    def begin(
        self,
        sandbox: Sandbox,
        output: int | None,
        *,
        errors: int | None = None,
        stdin: int | None = None,
        netns: int | None = None,
        tell_pid: bool = False,
        show: str = "",
    ) -> Iterator[Running]:
        """Begin to run a sandbox, with a ready network where it has a private one: `netns`, which the
        caller has of `take_network`, or another. Raises SandboxError.
        """
        with ExitStack() as stack:
            try:
                group = stack.enter_context(self._groups.step()) if self._groups else None
                if netns is None and sandbox.network == "private":
                    netns = self.take_network(stack)
                running = self._launcher.begin(
                    sandbox,
                    output_fd=output,
                    netns_fd=netns,
                    stdin_fd=stdin,
                    error_fd=errors,
                    cgroup=group,
                    tell_pid=tell_pid,
                    show=show,
                )
            except (OSError, ValueError) as error:
                raise SandboxError(f"the step could not be started: {error}") from error
            yield stack.enter_context(running)

    @contextmanager
    def join(
        self,
        running: Running,
        sandbox: Sandbox,
        output: int | None,
        *,
        errors: int | None = None,
        stdin: int | None = None,
        show: str = "",
    ) -> Iterator[Running]:
        """Begin one more process where `running` runs. Raises SandboxError."""
        try:
            joined = self._launcher.join(
                running,
                sandbox,
                output_fd=output,
                stdin_fd=stdin,
                error_fd=errors,
                cgroup=None if show else running.group,
                show=show,
            )
        except (OSError, ValueError) as error:
            raise SandboxError(f"the program could not be started: {error}") from error
        with joined:
            yield joined

    @contextmanager
    def shown(self, sandbox: Sandbox, show: str, *, where: Running | None = None) -> Iterator[int]:
        """The root of a sandbox that executes nothing, or of the one that runs as `where`: a descriptor, good
        for the time of the block. `show` as for `Launcher.begin`. Raises SandboxError.
        """
        sandbox = replace(sandbox, terminal=None, owners=None)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        with ExitStack() as stack:
            try:
                begun = (
                    self.join(where, sandbox, null, show=show)
                    if where
                    else self.begin(sandbox, null, show=show)
                )
                running = stack.enter_context(begun)
            finally:
                os.close(null)
            if (fd := running.terminal()) < 0:
                raise SandboxError(f"the container's files cannot be reached: {running.wait().error}")
            stack.callback(os.close, fd)
            yield fd

    def take_network(self, stack: ExitStack) -> int:
        """A ready network namespace, closed with `stack`. Raises SandboxError."""
        with self._networking() as pool:
            fd = pool.take()
        stack.callback(os.close, fd)
        return fd

    def network(self, wanted: str) -> Literal["none", "host", "private"]:
        """The sandbox's network for RUN's; a private one makes the pool ready."""
        if self._isolation.chroot:
            return self._shared_network(wanted)
        if wanted == "host":
            return "host"
        if wanted == "none":
            return "none"
        with self._lock:
            if self._pool is None:
                self._pool = self._exit.enter_context(self._new_pool())
        return "private"

    def _shared_network(self, wanted: str) -> Literal["host"]:
        """Without namespaces there is the host's network alone."""
        if wanted == "none":
            raise SandboxError(
                "--isolation=chroot cannot keep a step from the network",
                hint="leave --network=none out, or build where there are namespaces (pybuild doctor)",
            )
        with self._lock:
            told, self._told_weaker = self._told_weaker, True
        if not told:
            self._emit(Warning_("WeakerIsolation", WARNING))
        return "host"

    def _new_pool(self) -> NetworkPool:
        """What makes private networks here: with root's means, or (the same interface) with an ordinary
        user's.
        """
        from builder.sandbox.network import NetworkPool

        rootless = not self._isolation.private_network
        return NetworkPool(min(3, self._networks or 3), rootless=rootless, most=self._networks)

    @contextmanager
    def _networking(self) -> Iterator[NetworkPool]:
        """The pool, whose errors are told with what mends them."""
        assert self._pool is not None
        try:
            yield self._pool
        except OSError as error:
            hint = "" if self._isolation.private_network else INSTALL
            raise SandboxError(str(error.strerror or error), hint=hint) from None

    def _network_files(self, op: Exec, network: str) -> tuple[File, ...]:
        resolv = _host_resolv() if network == "host" else b""
        if network == "private" and self._pool is not None:
            with self._networking() as pool:
                resolv = pool.resolv_conf()
        extra = [(name, self._address(address, network)) for name, address in op.extra_hosts]
        # A changed root has no name of its own: programs ask for the machine's.
        name = f"{op.hostname} {os.uname().nodename}" if self._isolation.chroot else op.hostname
        text = hosts(name, tuple((name, address) for name, address in extra if address))
        return (File("/etc/resolv.conf", resolv), File("/etc/hosts", text))

    def _address(self, address: str, network: str) -> str:
        """An address of `--add-host`: for `host-gateway` the host's as the step sees it, "" if it cannot."""
        if address != HOST_GATEWAY:
            return address
        if network == "host":
            return "127.0.0.1"
        if network != "private" or self._pool is None:
            return ""
        with self._networking() as pool:
            return pool.gateway()


def environment(env: tuple[tuple[str, str], ...], home: str, hostname: str) -> tuple[tuple[str, str], ...]:
    """`env` with HOME and HOSTNAME where it has none, as BuildKit gives them to a step."""
    env = tuple(dict(env).items())  # a later one wins
    names = {name for name, _ in env}
    extra = [("HOME", home)] if "HOME" not in names else []
    if "HOSTNAME" not in names:
        extra.append(("HOSTNAME", hostname))
    return (*env, *extra)


def hosts(hostname: str, extra: tuple[tuple[str, str], ...]) -> bytes:
    """/etc/hosts of a step."""
    rows = [f"127.0.0.1\tlocalhost {hostname}", "::1\tlocalhost ip6-localhost ip6-loopback"]
    rows += [f"{address}\t{name}" for name, address in extra]
    return ("\n".join(rows) + "\n").encode()


def _host_resolv() -> bytes:
    try:
        with open("/etc/resolv.conf", "rb") as file:
            return file.read(1 << 16)
    except OSError:
        return b""


def ended(running: Running) -> Exit:
    """How a sandbox ended. Raises SandboxError when it never began or the launcher is gone."""
    try:
        exit_ = running.wait()
    except OSError as error:
        raise SandboxError(f"the step ended with its launcher: {error}") from error
    if exit_.error and exit_.status not in (126, 127):
        raise SandboxError(f"the step could not be started: {exit_.error}")
    return exit_


def _usage(exit_: Exit) -> Usage:
    together = exit_.used.memory if exit_.used else 0
    return Usage(exit_.user_s, exit_.system_s, exit_.max_rss, together, exit_.read, exit_.written)


def _is_too_long(error: str) -> bool:
    return error.lower().endswith(os.strerror(errno.E2BIG).lower())


def _check(exit_: Exit, output: StepOutput, advice: Callable[[], str]) -> None:
    if exit_.status == 0:
        return
    text = f"RUN exited with {exit_.status}"
    hint = ""
    if exit_.error:
        text = f"{text}: {exit_.error}"
        hint = _LONG if _is_too_long(exit_.error) else advice() or _MISSING
    elif exit_.status in (2, 126, 127):
        hint = advice()
    elif 128 < exit_.status <= 128 + _LAST_SIGNAL:
        text = f"RUN was killed by signal {exit_.status - 128}"
    raise StepFailed(text, status=exit_.status, log=output.last_lines(), hint=hint)
