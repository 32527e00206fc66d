"""What was done before, and what is done now: results out of the cache, records into it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from builder import space
from builder.errors import BuildError
from builder.graph import Copy, Step
from builder.solver.cache import StepRecord
from builder.solver.keys import linked_key
from builder.solver.result import Made, Part, Result, done, forget, settle
from oci.layer import Layer

if TYPE_CHECKING:
    from builder.solver.files import Files
    from builder.solver.means import Means, Tools

_WRITERS = 2


class Records:
    """The records of one build's steps, and the layers that are still being written for them.

    `made` is what history says of the steps that were performed, by step digest.
    """

    def __init__(self, means: Means, tools: Tools, files: Files) -> None:
        self._means = means
        self._tools = tools
        self._files = files
        self._writing: list[Future[Layer | None]] = []
        self._pool: ThreadPoolExecutor | None = None
        self.made: dict[str, Made] = {}

    def hit(self, step: Step, key: str, parent: Result) -> Result | None:
        """The recorded result under `key`, if it can be used."""
        if step.fresh:
            return None
        record = self._means.cache.record(key)
        if record is None or (record.layer is not None and record.layer.digest not in self._means.blobs):
            return None
        snapshot = self._tools.snapshots.existing(record.snapshot) if record.snapshot else ""
        if record.layer is None:
            self.remember(step, done(None), record.created)
            return parent.on_top(stacked(step, key, parent), None)
        if record.clock != self._means.clock:
            return self._clocked_anew(step, key, parent, record, snapshot)
        future = done(record.layer)
        self.remember(step, future, record.created)
        key = stacked(step, key, parent)
        name = record.snapshot or copy_name(key, record.layer)
        return parent.on_top(key, Part(future, name, snapshot))

    def remember(self, step: Step, layer: Future[Layer | None], created: str) -> None:
        """What history is to say of a step."""
        self.made[step.digest] = Made(layer, created)

    def record(self, step: Step, key: str, layer: Layer | None, created: str) -> None:
        """A step that is done, whose layer is written."""
        self._means.cache.store(key, StepRecord(layer, created, clock=self._means.clock))
        self.remember(step, done(layer), created)

    def write_diff(
        self, step: Step, key: str, upper: str, lowers: tuple[str, ...], name: str, created: str
    ) -> Future[Layer | None]:
        """Write the layer of an upper directory in the background, and the record when it is written."""
        means = self._means

        def work() -> Layer | None:
            from builder.snapshot.diff import write_upper
            from oci.layer import LayerSink

            userxattr = means.isolation.userxattr
            with LayerSink(means.codec, means.blobs) as sink, space.told(means.state.root, step.at):
                take = self._tools.until_interrupted(sink)
                try:
                    written = write_upper(upper, lowers, take, clock=means.clock, userxattr=userxattr)
                except BuildError as error:
                    error.at = error.at or step.at
                    raise
                layer = sink.finish() if written else None
            means.cache.store(key, StepRecord(layer, created, name, means.clock))
            self._tools.snapshots.settled(name)
            return layer

        future = self._later(work)
        self.remember(step, future, created)
        return future

    def settle(self) -> None:
        """Wait until every layer is written; raise what went wrong with one."""
        settle(self._writing)

    def forget(self) -> None:
        """Wait for them, whatever becomes of them."""
        forget(self._writing)

    def _clocked_anew(
        self, step: Step, key: str, parent: Result, record: StepRecord, snapshot: str
    ) -> Result | None:
        """A RUN's layer written again with this build's clock, from the directory that the step left."""
        if not snapshot:
            return None
        lowers = self._files.directories(parent)
        future = self.write_diff(step, key, snapshot, lowers, record.snapshot, record.created)
        return parent.on_top(key, Part(future, record.snapshot, snapshot))

    def _later(self, work: Callable[[], Layer | None]) -> Future[Layer | None]:
        with self._tools.lock:
            if self._pool is None:
                self._pool = self._tools.exit.enter_context(ThreadPoolExecutor(_WRITERS, "layer"))
            future = self._pool.submit(work)
            self._writing.append(future)
            return future


def stacked(step: Step, key: str, parent: Result) -> str:
    """The key of a step's result on `parent`, from the key it is recorded under."""
    if isinstance(step.op, Copy) and step.op.link:
        return linked_key(key, parent.key)
    return key


def copy_name(key: str, layer: Layer) -> str:
    """The snapshot's name for a COPY's layer: its files, and the key that stands for what is below them."""
    return f"copy-{key[:32]}-{layer.digest.hex[:16]}"
