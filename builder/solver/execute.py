"""One step's result: from the cache, or by running or copying.

An Executor belongs to one build. Everything heavy it owns (the launcher process, the network pool, the
threads that write layers) begins with the first cache miss: a fully cached build starts none of it.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Protocol, TypeVar

from builder import space
from builder.errors import BuildCancelled, BuildError, ContextError, ResourceError, StepFailed
from builder.events import Emit, StepDone, StepStarted, Warning_, stamp
from builder.graph import (
    Base,
    ContextSource,
    Copy,
    Exec,
    GitSource,
    HttpSource,
    Mkdir,
    RemoteSource,
    Scratch,
    Step,
    walk,
)
from builder.isolation import Isolation, current, need_runs
from builder.mounts import BindMount, CacheMount
from builder.solver.cache import Cache, StepRecord, now
from builder.solver.keys import content_key, definition_key, linked_key, marked_key, pinned_key
from builder.solver.result import (
    Made,
    Part,
    Result,
    directories,
    done,
    forget,
    merge,
    packed,
    parts_of,
    settle,
    unpacker,
)
from builder.tree import Tree
from oci.digest import Digest
from oci.layer import Layer

if TYPE_CHECKING:
    from builder.contexts.content import Content
    from builder.sandbox.cgroup import Groups
    from builder.secrets import Agent, Secrets
    from builder.snapshot.overlay import Snapshots
    from builder.snapshot.view import DirectoryLayer, IndexLayer, View
    from builder.solver.copying import Plan, Selection, Written
    from builder.solver.failed import FailedStep
    from builder.solver.mounting import Mounting, Source
    from builder.solver.notices import Notices
    from builder.solver.running import Runner
    from builder.solver.selection import TreeSource
    from builder.state import StateDir
    from oci.blobs import BlobStore
    from oci.compress import Codec
    from oci.image import Image

T = TypeVar("T")

_WRITERS = 2


class Remotes(Protocol):
    """What ADD fetches (`builder.contexts.remote`)."""

    def pin(self, source: RemoteSource) -> str:
        """What `source` is now, as little as possible fetched to tell: a digest, a commit."""

    def tree(self, source: RemoteSource) -> Tree:
        """Its files, fetched."""

    def cancel(self) -> None:
        """End every transfer. From any thread."""


class Layers(Protocol):
    """Where layers of base images come from that are not here yet (`builder.registries`)."""

    def fetcher(self, image: Image) -> Callable[[int], bool]:
        """What makes a layer present, by its number, and tells whether strangers wrote it."""

    def cancel(self) -> None:
        """End every transfer. From any thread."""


class Executor:
    """Performs the steps of one build; `perform` is what `solve` calls, from several threads.

    `trees` opens a build context by name, `remotes` fetches; `secrets`, `agents` and `allow` are what the
    user lends to steps and lets them have, `groups` what limits them, `isolation` where this process stands;
    with `keeps_failed` a RUN that failed can be entered (`failed`). Use it in `with`: leaving stops the
    launcher and waits for the writers.
    """

    def __init__(
        self,
        *,
        state: StateDir,
        blobs: BlobStore,
        cache: Cache,
        trees: Callable[[str], Tree],
        codec: Codec,
        clock: int | None,
        emit: Emit,
        remotes: Remotes | None = None,
        layers: Layers | None = None,
        secrets: Secrets | None = None,
        agents: Mapping[str, Agent] | None = None,
        allow: frozenset[str] = frozenset(),
        keeps_failed: bool = False,
        groups: Groups | None = None,
        isolation: Isolation | None = None,
        name: str = "",
    ) -> None:
        self._name = name
        self._isolation = isolation or current()
        self._userxattr = self._isolation.userxattr
        self._keeps_failed = keeps_failed
        self._failed: list[FailedStep] = []
        self._secrets = secrets
        self._agents = agents or {}
        self._allow = allow
        self._groups = groups
        self._state = state
        self._blobs = blobs
        self._cache = cache
        self._trees = trees
        self._remotes = remotes
        self._layers = layers
        self._codec = codec
        self._clock = clock
        self._emit = emit
        self._exit = ExitStack()
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._writing: list[Future[Layer | None]] = []
        self._made: dict[str, Made] = {}
        self._numbers = 0
        self._runner: Runner | None = None
        self._preparing: threading.Thread | None = None
        self._mounting: Mounting | None = None
        self._snapshots: Snapshots | None = None
        self._layers_seen: dict[str, DirectoryLayer] = {}
        self._packed_seen: dict[str, IndexLayer] = {}
        self._content: Content | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._notices: Notices | None = None

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is not None:
            self.cancel()
        forget(self._writing)
        if self._preparing is not None:
            self._preparing.join()
        self._exit.close()

    def prepare(self) -> None:
        """Start what runs programs while the caller still plans: something will be executed, most likely."""
        self._preparing = threading.Thread(target=self._prepare, name="prepare", daemon=True)
        self._preparing.start()

    def _prepare(self) -> None:
        with suppress(Exception):  # the step that needs it meets the same, and can say which step it was
            self.runner  # noqa: B018

    def cancel(self) -> None:
        """End what runs as soon as may be; from now on steps fail with BuildCancelled. From any thread."""
        self._cancelled.set()
        if self._remotes is not None:
            self._remotes.cancel()
        if self._layers is not None:
            self._layers.cancel()
        if self._runner is not None:
            self._runner.kill_all()

    def settle(self) -> None:
        """Wait until every layer of this build is written; raise what went wrong with one."""
        settle(self._writing)

    def everything_made(self) -> Mapping[str, Made]:
        """What history says of the steps that were performed, by step digest."""
        return self._made

    def recorded(self, targets: Iterable[Step]) -> Iterable[Digest]:
        """Blobs that the base images of the graph consist of: to be leased before anything relies on them."""
        for step in walk(*targets):
            if isinstance(step.op, Base):
                yield from (layer.digest for layer in step.op.image.layers)

    # ---- one step ----

    def perform(self, step: Step, inputs: tuple[Result, ...]) -> Result:
        """The result of `step` on its inputs' results. Raises BuildError, with the step's lines."""
        if self._cancelled.is_set():
            raise BuildCancelled("the build was cancelled")
        if isinstance(step.op, Scratch):
            return Result(definition_key(step, (), clocked=self._clocked))
        started = time.monotonic()
        self._started(step)
        try:
            result, cached = self._result(step, inputs)
        except BaseException as error:
            told = self._told(step, error)
            self._done(step, started, error=str(told) or type(told).__name__)
            raise told from error
        self._done(step, started, cached=cached)
        return result

    def _result(self, step: Step, inputs: tuple[Result, ...]) -> tuple[Result, bool]:
        """The result and whether nothing had to be executed for it."""
        if isinstance(step.op, Base):
            fetch = self._layers.fetcher(step.op.image) if self._layers else None
            return Result(definition_key(step, (), clocked=False), parts_of(step.op.image, fetch)), False
        definition = definition_key(step, tuple(each.key for each in inputs), clocked=self._clocked)
        if isinstance(step.op, Copy):
            return self._copied(step, step.op, inputs, definition)
        if isinstance(step.op, Exec):
            return self._executed(step, step.op, inputs, marked_key(definition, self._marks(step.op)))
        found = self._hit(step, definition, inputs[0])
        if found is not None:
            return found, True
        assert isinstance(step.op, Mkdir)
        return self._directory_made(step, step.op, inputs[0], definition), False

    @property
    def _clocked(self) -> bool:
        return self._clock is not None

    # ---- the cache ----

    def _hit(self, step: Step, key: str, parent: Result) -> Result | None:
        """The recorded result under `key`, if it can be used."""
        if step.fresh:
            return None
        record = self._cache.record(key)
        if record is None or (record.layer is not None and record.layer.digest not in self._blobs):
            return None
        snapshot = self.snapshots.existing(record.snapshot) if record.snapshot else ""
        if record.layer is None:
            self._remember(step, done(None), record.created)
            return parent.on_top(_stacked(step, key, parent), None)
        if record.clock != self._clock:
            return self._clocked_anew(step, key, parent, record, snapshot)
        future = done(record.layer)
        self._remember(step, future, record.created)
        key = _stacked(step, key, parent)
        name = record.snapshot or _copy_name(key, record.layer)
        return parent.on_top(key, Part(future, name, snapshot))

    def _clocked_anew(
        self, step: Step, key: str, parent: Result, record: StepRecord, snapshot: str
    ) -> Result | None:
        """A RUN's layer written again with this build's clock, from the directory that the step left."""
        if not snapshot:
            return None
        lowers = self._directories(parent)
        future = self._write_diff(step, key, snapshot, lowers, record.snapshot, record.created)
        return parent.on_top(key, Part(future, record.snapshot, snapshot))

    def _remember(self, step: Step, layer: Future[Layer | None], created: str) -> None:
        self._made[step.digest] = Made(layer, created)

    def _record(self, key: str, record: StepRecord) -> None:
        self._cache.store(key, record)

    # ---- RUN ----

    def _executed(
        self, step: Step, op: Exec, inputs: tuple[Result, ...], definition: str
    ) -> tuple[Result, bool]:
        """A RUN. Where it is shown a part of another step, only that part counts (decision 7)."""
        parent, key = inputs[0], definition
        if any(isinstance(each, BindMount) and _is_part(each) for each in op.mounts):
            known = None if step.fresh else self._cache.alias(definition)
            if known is not None and (found := self._hit(step, known, parent)) is not None:
                return found, True
            key = content_key(step, parent.key, self._shown_keys(op, inputs), clocked=self._clocked)
            key = marked_key(key, self._marks(op))
            self._cache.store_alias(definition, key)
        found = self._hit(step, key, parent)
        if found is not None:
            return found, True
        return self._ran(step, op, inputs, key), False

    def _marks(self, op: Exec) -> tuple[str, ...]:
        """What stands for the secrets that count."""
        if not op.mounts:
            return ()
        from builder.solver.marks import marks

        return marks(op, self._secrets, self._state)

    def _shown_keys(self, op: Exec, inputs: tuple[Result, ...]) -> tuple[str, ...]:
        """What stands for the files of each mount: a checksum of a part, else the key of the whole."""
        from builder.solver.selection import selected

        keys = []
        for mount in op.mounts:
            if isinstance(mount, BindMount) and _is_part(mount):
                part = selected(self._view_of(inputs[mount.step])(), mount.source)
                keys.append(self.content.checksum((part,)))
            elif isinstance(mount, BindMount | CacheMount) and mount.step:
                keys.append(inputs[mount.step].key)
        return tuple(keys)

    def _ran(self, step: Step, op: Exec, inputs: tuple[Result, ...], key: str) -> Result:
        parent = inputs[0]
        need_runs(self._isolation)
        lowers = self._directories(parent)
        created = now()
        with ExitStack() as stack:
            active = stack.enter_context(self.snapshots.prepare(lowers))
            sources = [self._source(each) for each in inputs[1:]]
            shown = stack.enter_context(self.mounting.ready(op, self._view_of(parent), sources, active))
            try:
                self.runner.run(step, op, active, self._view_of(parent), shown)
            except (StepFailed, ResourceError) as error:
                self._judge_space(error, active.upper)
                from builder.solver.failed import FailedStep

                what = (op, self._view_of(parent), shown)
                failed = FailedStep(error, step, self.runner, active, what, self._state.caches)
                self._keep_failed(failed, stack)
                raise
            snapshot = active.commit()
            self.runner.own(op, self._view_of(parent), snapshot.path)
        if not os.listdir(snapshot.path):
            self.snapshots.remove(snapshot.name)
            self._remember(step, done(None), created)
            self._record(key, StepRecord(None, created, clock=self._clock))
            return parent.on_top(key, None)
        future = self._write_diff(step, key, snapshot.path, lowers, snapshot.name, created)
        return parent.on_top(key, Part(future, snapshot.name, snapshot.path))

    def _judge_space(self, error: BuildError, upper: str) -> None:
        """Raise ResourceError when a step has failed and the disk it wrote on is full: that is why."""
        if isinstance(error, StepFailed) and space.nearly_full(upper):
            full = OSError(errno.ENOSPC, f"{error}: {os.strerror(errno.ENOSPC)}")
            raise ResourceError(
                str(space.no_space(full, self._state.root)), log=error.log, hint=space.HINT
            ) from error

    def _keep_failed(self, failed: FailedStep, stack: ExitStack) -> None:
        """Keep a failed step until the end of the build, with what `stack` would give back, if that is asked
        for.
        """
        failed.error.enterable = failed.has_shell()
        if self._keeps_failed:
            with self._lock:
                self._failed.append(failed)
                self._exit.push(stack.pop_all())

    def failed(self, error: BuildError) -> FailedStep | None:
        """The step that `error` is about, where failed steps are kept."""
        return next((each for each in self._failed if each.error is error), None)

    def _write_diff(
        self, step: Step, key: str, upper: str, lowers: tuple[str, ...], name: str, created: str
    ) -> Future[Layer | None]:
        """Write the layer of an upper directory in the background, and the record when it is written."""

        def work() -> Layer | None:
            from builder.snapshot.diff import write_upper
            from oci.layer import LayerSink

            with LayerSink(self._codec, self._blobs) as sink, space.told(self._state.root, step.at):
                written = write_upper(upper, lowers, sink, clock=self._clock, userxattr=self._userxattr)
                layer = sink.finish() if written else None
            self._record(key, StepRecord(layer, created, name, self._clock))
            self.snapshots.settled(name)
            return layer

        future = self._later(work)
        self._remember(step, future, created)
        return future

    # ---- COPY, ADD, WORKDIR ----

    def _copied(
        self, step: Step, op: Copy, inputs: tuple[Result, ...], definition: str
    ) -> tuple[Result, bool]:
        parent = inputs[0]
        target = "" if op.link else parent.key
        before = definition_key(step, (target,), clocked=self._clocked)
        if op.link:
            keys = (target, *(each.key for each in inputs[1:]))
            definition = definition_key(step, keys, clocked=self._clocked)
        definition = pinned_key(definition, self._pins(op))
        known = None if step.fresh else self._cache.alias(definition)
        seen = not step.fresh and self._cache.alias(before) is not None
        if known is not None and not any(isinstance(source, ContextSource) for source in op.sources):
            found = self._hit(step, known, parent)
            if found is not None:
                return found, True
        with ExitStack() as stack:
            selection = self._select(op, inputs, stack)
            checksum = self._checksum(selection, read=seen)
            if checksum is not None:
                key = content_key(step, target, (checksum,), clocked=self._clocked)
                found = self._hit(step, key, parent)
                if found is not None:
                    self._cache.store_alias(definition, key)
                    return found, True
            return self._copy(step, op, parent, selection, (definition, before)), False

    def _pins(self, op: Copy) -> tuple[str, ...]:
        """What the remote sources of `op` are now."""
        sources = [each for each in op.sources if isinstance(each, HttpSource | GitSource)]
        return tuple(self._fetching.pin(each) for each in sources)

    @property
    def _fetching(self) -> Remotes:
        assert self._remotes is not None
        return self._remotes

    def _select(self, op: Copy, inputs: tuple[Result, ...], stack: ExitStack) -> Selection:
        from builder.solver.selection import select

        def tree_of(source: TreeSource) -> Tree:
            if isinstance(source, ContextSource):
                return self._trees(source.name)
            if isinstance(source, HttpSource | GitSource):
                return self._fetching.tree(source)
            return self._view_of(inputs[1])()

        selection = select(op, tree_of)
        for text in selection.warnings:
            self._emit(Warning_("CopyMatchesNothing", text))
        return selection

    def _checksum(self, selection: Selection, *, read: bool) -> str | None:
        """The selection's checksum: without reading a file if it can be, else only if `read`."""
        if not selection.selected:
            return ""
        return self.content.checksum(selection.selected) if read else self.content.known(selection.selected)

    def _copy(
        self, step: Step, op: Copy, parent: Result, selection: Selection, aliases: tuple[str, ...]
    ) -> Result:
        from builder.solver.copying import place
        from builder.solver.notices import Notices
        from builder.solver.placing import NOTHING

        with self._lock:
            self._notices = self._notices or Notices(self._emit)
        self._notices.look(selection.selected, str(step.at or ""), step.at.excerpt() if step.at else "")
        plan = place(op, selection, NOTHING if op.link else self._view_of(parent)())
        created = now()
        layer, written = self._write_plan(plan)
        checksum = self.content.learn(selection.selected, written.digests) if selection.selected else ""
        key = content_key(step, "" if op.link else parent.key, (checksum,), clocked=self._clocked)
        for alias in aliases:
            self._cache.store_alias(alias, key)
        return self._with_files(step, parent, key, (layer, written), created)

    def _with_files(
        self, step: Step, parent: Result, key: str, what: tuple[Layer | None, Written], created: str
    ) -> Result:
        """The result on top of `parent` of files that were just written as a layer."""
        layer, written = what
        self._record(key, StepRecord(layer, created, clock=self._clock))
        self._remember(step, done(layer), created)
        key = _stacked(step, key, parent)
        if layer is None:
            return parent.on_top(key, None)
        part = Part(done(layer), _copy_name(key, layer))
        result = parent.on_top(key, part)
        part.index = _once(lambda: written.layer(lambda path: self._opened(result, path)))
        return result

    def _opened(self, result: Result, path: bytes) -> int:
        """Open a file of the topmost part, whose directory is made when the first one is wanted."""
        from builder.snapshot.view import DirectoryLayer

        if not self._isolation.unpacks:
            opening, close = self._packed(result.parts[-1]).opener()
            return opening(path)
        top, *_ = self._directories(result)
        opening, close = DirectoryLayer(top, userxattr=self._userxattr).opener()
        try:
            return opening(path)
        finally:
            close()

    def _directory_made(self, step: Step, op: Mkdir, parent: Result, key: str) -> Result:
        from builder.solver.copying import place_directory

        plan = place_directory(op, self._view_of(parent)())
        created = now()
        written = self._write_plan(plan)
        return self._with_files(step, parent, key, written, created)

    def _write_plan(self, plan: Plan) -> tuple[Layer | None, Written]:
        """The layer of a plan, None if it is empty, and what is known of its files from writing it."""
        from builder.sandbox.syscalls import keep_freed_memory
        from builder.solver.copying import write
        from oci.layer import LayerSink
        from oci.tar import TarWriter

        keep_freed_memory()
        with LayerSink(self._codec, self._blobs) as sink, space.told(self._state.root):
            tar = TarWriter(sink)
            written = write(plan, tar, now=int(time.time()), clock=self._clock)
            if plan.empty:
                return None, written
            tar.finish()
            return sink.finish(), written

    # ---- directories and views ----

    @property
    def snapshots(self) -> Snapshots:
        """The store's snapshots, opened at the first need."""
        with self._lock:
            if self._snapshots is None:
                from builder.snapshot.overlay import opened

                snapshots = opened(self._state.snapshots, self._isolation)
                self._snapshots = self._exit.enter_context(snapshots)
            return self._snapshots

    @property
    def content(self) -> Content:
        """Checksums of files, remembered in the store."""
        with self._lock:
            if self._content is None:
                from builder.contexts.content import Content

                self._content = Content(self._state.content())
            return self._content

    @property
    def mounting(self) -> Mounting:
        """What makes the mounts of steps ready."""
        with self._lock:
            if self._mounting is None:
                from builder.secrets import Secrets
                from builder.solver.caches import Caches
                from builder.solver.mounting import Mounting

                caches = Caches(self._state.caches, self._cancelled, self._emit)
                mounting = Mounting(caches, self._secrets or Secrets(), self._agents)
                self._mounting = self._exit.enter_context(mounting)
            return self._mounting

    def _source(self, result: Result) -> Source:
        """A result as mounts look into it."""
        from builder.solver.mounting import Source

        return Source(
            result.key,
            lambda: self._directories(result),
            self._view_of(result),
            lambda folder: merge(result, self._blobs, folder, self._clock),
        )

    @property
    def runner(self) -> Runner:
        """What runs programs; its processes begin here."""
        with self._lock:
            if self._runner is None:
                from builder.solver.running import Runner

                runner = Runner(
                    stubs=os.path.join(self._state.snapshots, ".stubs"),
                    logs=_once(lambda: self._state.new_build_logs(self._name)),
                    emit=self._emit,
                    allow=self._allow,
                    groups=self._groups,
                    isolation=self._isolation,
                )
                self._runner = self._exit.enter_context(runner)
            return self._runner

    def _directories(self, result: Result) -> tuple[str, ...]:
        """The directories of a result, topmost first; those that are missing are unpacked."""
        return directories(result, unpacker(self.snapshots, self._blobs, self._clock))

    def _view_of(self, result: Result) -> Callable[[], View]:
        """How to look into a result: made at the first look, from indexes where they are, else from
        directories.
        """
        return _once(lambda: self._view(result))

    def _view(self, result: Result) -> View:
        from builder.snapshot.view import View

        layers: list[DirectoryLayer | IndexLayer] = []
        if not self._isolation.unpacks:
            return View([self._packed(part) for part in result.parts if part.layer.result() is not None])
        if any(part.index is None and not part.directory for part in result.parts):
            self._directories(result)
        for part in result.parts:
            if part.directory:
                layers.append(self._layer_in(part.directory))
            elif part.index is not None:
                layers.append(part.index())
        return View(layers)

    def _packed(self, part: Part) -> IndexLayer:
        """A part's layer, read from its blob; one for all steps on top of it."""
        with part.lock:
            if part.name not in self._packed_seen:
                self._packed_seen[part.name] = packed(part, self._blobs, self._state.root, self._clock)
            return self._packed_seen[part.name]

    def _layer_in(self, directory: str) -> DirectoryLayer:
        """The layer that lies in `directory`, one for all steps on top of it: it remembers what it found."""
        from builder.snapshot.view import DirectoryLayer

        layer = DirectoryLayer(directory, userxattr=self._userxattr)
        return self._layers_seen.setdefault(directory, layer)

    @contextmanager
    def rootfs(self, result: Result) -> Iterator[View]:
        """The merged files of a result, for outputs that want files."""
        from builder.snapshot.view import View

        if not self._isolation.unpacks:
            yield self._view(result)
            return
        yield View([self._layer_in(each) for each in reversed(self._directories(result))])

    # ---- background, events, errors ----

    def _later(self, work: Callable[[], Layer | None]) -> Future[Layer | None]:
        with self._lock:
            if self._pool is None:
                self._pool = self._exit.enter_context(ThreadPoolExecutor(_WRITERS, "layer"))
            future = self._pool.submit(work)
            self._writing.append(future)
            return future

    def _started(self, step: Step) -> None:
        with self._lock:
            self._numbers += 1
            number = self._numbers
        self._emit(StepStarted(step.digest, number, step.name, stamp(), step.stage))

    def _done(self, step: Step, started: float, *, cached: bool = False, error: str = "") -> None:
        usage = self._runner.usage(step.digest) if self._runner is not None else None
        self._emit(StepDone(step.digest, stamp(), time.monotonic() - started, cached, error, usage))

    def _told(self, step: Step, error: BaseException) -> BaseException:
        """`error` as people shall see it: with the step's lines, and a cancelled step as cancelled."""
        if self._cancelled.is_set() and not isinstance(error, BuildCancelled):
            return BuildCancelled("the build was cancelled", at=step.at)
        if isinstance(error, BuildError):
            error.at = error.at or step.at
            return error
        if isinstance(error, OSError):
            return _of_the_system(error, step, self._state.root)
        return error


def _stacked(step: Step, key: str, parent: Result) -> str:
    """The key of a step's result on `parent`, from the key it is recorded under."""
    if isinstance(step.op, Copy) and step.op.link:
        return linked_key(key, parent.key)
    return key


def _is_part(mount: BindMount) -> bool:
    """Whether a mount shows a part of a step that was not made for it."""
    return bool(mount.step) and not mount.own and mount.source != "/"


def _copy_name(key: str, layer: Layer) -> str:
    """The snapshot's name for a COPY's layer: its files, and the key that stands for what is below them."""
    return f"copy-{key[:32]}-{layer.digest.hex[:16]}"


def _of_the_system(error: OSError, step: Step, store: str) -> BuildError:
    if space.is_full(error):
        return space.no_space(error, store, at=step.at)
    where = f": {os.fsdecode(error.filename)}" if error.filename is not None else ""
    return ContextError(f"{error.strerror or error}{where}", at=step.at)


def _once(make: Callable[[], T]) -> Callable[[], T]:
    """A function that calls `make` the first time and gives the same value ever after. Threads may share
    it.
    """
    lock = threading.Lock()
    found: list[T] = []

    def get() -> T:
        with lock:
            if not found:
                found.append(make())
            return found[0]

    return get
