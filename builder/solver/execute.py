"""One step's result, whatever the step: who makes it, what people are told of it, how it fails.

Means, Tools      what a build has to perform its steps with
Files             results as directories and views
Records           results out of the cache, layers and records into it
Runs, Copies      the steps themselves
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING

from builder import space
from builder.errors import BuildCancelled, BuildError, ContextError
from builder.events import StepDone, StepStarted, stamp
from builder.graph import Base, Copy, Exec, Mkdir, Scratch, Step, walk
from builder.solver.copies import Copies
from builder.solver.files import Files
from builder.solver.keys import definition_key
from builder.solver.means import Means, Tools
from builder.solver.records import Records
from builder.solver.result import Made, Result, parts_of
from builder.solver.runs import Runs
from oci.digest import Digest

if TYPE_CHECKING:
    from builder.snapshot.view import View
    from builder.solver.failed import FailedStep


class Executor:
    """Performs the steps of one build; `perform` is what `solve` calls, from several threads.

    Use it in `with`: leaving stops the launcher and waits for the writers.
    """

    def __init__(self, means: Means) -> None:
        self._means = means
        self._tools = Tools(means)
        self._files = Files(means, self._tools)
        self._records = Records(means, self._tools, self._files)
        self._runs = Runs(means, self._tools, self._files, self._records)
        self._copies = Copies(means, self._tools, self._files, self._records)
        self._numbers = 0
        self._preparing: threading.Thread | None = None

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is not None:
            self.cancel()
        self._records.forget()
        if self._preparing is not None:
            self._preparing.join()
        self._tools.close()

    def prepare(self) -> None:
        """Start what runs programs while the caller still plans: something will be executed, most likely."""
        self._preparing = threading.Thread(target=self._prepare, name="prepare", daemon=True)
        self._preparing.start()

    def _prepare(self) -> None:
        with suppress(Exception):  # the step that needs it meets the same, and can say which step it was
            self._tools.runner  # noqa: B018

    def cancel(self) -> None:
        """End what runs as soon as may be; from now on steps fail with BuildCancelled. From any thread."""
        self._tools.cancel()

    def settle(self) -> None:
        """Wait until every layer of this build is written; raise what went wrong with one."""
        self._records.settle()

    def everything_made(self) -> Mapping[str, Made]:
        """What history says of the steps that were performed, by step digest."""
        return self._records.made

    def failed(self, error: BuildError) -> FailedStep | None:
        """The step that `error` is about, where failed steps are kept."""
        return self._runs.failed(error)

    def rootfs(self, result: Result) -> AbstractContextManager[View]:
        """The merged files of a result, for outputs that want files."""
        return self._files.rootfs(result)

    def recorded(self, targets: Iterable[Step]) -> Iterable[Digest]:
        """Blobs that the base images of the graph consist of: to be leased before anything relies on them."""
        for step in walk(*targets):
            if isinstance(step.op, Base):
                yield from (layer.digest for layer in step.op.image.layers)

    def perform(self, step: Step, inputs: tuple[Result, ...]) -> Result:
        """The result of `step` on its inputs' results. Raises BuildError, with the step's lines."""
        if self._tools.cancelled.is_set():
            raise BuildCancelled("the build was cancelled")
        if isinstance(step.op, Scratch):
            return Result(definition_key(step, (), clocked=self._means.clocked))
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
            layers = self._means.layers
            fetch = layers.fetcher(step.op.image) if layers else None
            return Result(definition_key(step, (), clocked=False), parts_of(step.op.image, fetch)), False
        definition = definition_key(step, tuple(each.key for each in inputs), clocked=self._means.clocked)
        if isinstance(step.op, Copy):
            return self._copies.result(step, step.op, inputs, definition)
        if isinstance(step.op, Exec):
            return self._runs.result(step, step.op, inputs, definition)
        assert isinstance(step.op, Mkdir)
        return self._copies.directory(step, step.op, inputs[0], definition)

    def _started(self, step: Step) -> None:
        with self._tools.lock:
            self._numbers += 1
            number = self._numbers
        self._means.emit(StepStarted(step.digest, number, step.name, stamp(), step.stage))

    def _done(self, step: Step, started: float, *, cached: bool = False, error: str = "") -> None:
        runner = self._tools.begun_runner
        usage = runner.usage(step.digest) if runner is not None else None
        self._means.emit(StepDone(step.digest, stamp(), time.monotonic() - started, cached, error, usage))

    def _told(self, step: Step, error: BaseException) -> BaseException:
        """`error` as people shall see it: with the step's lines, and a cancelled step as cancelled."""
        if self._tools.cancelled.is_set() and not isinstance(error, BuildCancelled):
            return BuildCancelled("the build was cancelled", at=step.at)
        if isinstance(error, BuildError):
            error.at = error.at or step.at
            return error
        if isinstance(error, OSError):
            return _of_the_system(error, step, self._means.state.root)
        return error


def _of_the_system(error: OSError, step: Step, store: str) -> BuildError:
    if space.is_full(error):
        return space.no_space(error, store, at=step.at)
    where = f": {os.fsdecode(error.filename)}" if error.filename is not None else ""
    return ContextError(f"{error.strerror or error}{where}", at=step.at)
