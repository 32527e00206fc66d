"""RUN: what its key is made of, and its result, from the cache or by running it."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from builder import space
from builder.errors import BuildError, ResourceError, StepFailed
from builder.graph import Exec, Step
from builder.isolation import need_runs
from builder.mounts import BindMount, CacheMount
from builder.solver.cache import now
from builder.solver.keys import content_key, marked_key
from builder.solver.result import Part, Result

if TYPE_CHECKING:
    from builder.solver.failed import FailedStep
    from builder.solver.files import Files
    from builder.solver.means import Means, Tools
    from builder.solver.records import Records


class Runs:
    """The RUN steps of one build."""

    def __init__(self, means: Means, tools: Tools, files: Files, records: Records) -> None:
        self._means = means
        self._tools = tools
        self._files = files
        self._records = records
        self._failed: list[FailedStep] = []

    def result(
        self, step: Step, op: Exec, inputs: tuple[Result, ...], definition: str
    ) -> tuple[Result, bool]:
        """The result, and whether it was known. Where a step is shown a part of another one, only that part
        counts (docs/decisions/0007)."""
        parent, cache, clocked = inputs[0], self._means.cache, self._means.clocked
        key = definition = marked_key(definition, self._marks(op))
        if any(isinstance(each, BindMount) and _is_part(each) for each in op.mounts):
            known = None if step.fresh else cache.alias(definition)
            if known is not None and (found := self._records.hit(step, known, parent)) is not None:
                return found, True
            key = content_key(step, parent.key, self._shown_keys(op, inputs), clocked=clocked)
            key = marked_key(key, self._marks(op))
            cache.store_alias(definition, key)
        found = self._records.hit(step, key, parent)
        if found is not None:
            return found, True
        return self._ran(step, op, inputs, key), False

    def failed(self, error: BuildError) -> FailedStep | None:
        """The step that `error` is about, where failed steps are kept."""
        return next((each for each in self._failed if each.error is error), None)

    def _marks(self, op: Exec) -> tuple[str, ...]:
        """What stands for the secrets that count."""
        if not op.mounts:
            return ()
        from builder.solver.marks import marks

        return marks(op, self._means.secrets, self._means.state)

    def _shown_keys(self, op: Exec, inputs: tuple[Result, ...]) -> tuple[str, ...]:
        """What stands for the files of each mount: a checksum of a part, else the key of the whole."""
        from builder.solver.selection import selected

        keys = []
        for mount in op.mounts:
            if isinstance(mount, BindMount) and _is_part(mount):
                part = selected(self._files.view_of(inputs[mount.step])(), mount.source)
                keys.append(self._tools.content.checksum((part,)))
            elif isinstance(mount, BindMount | CacheMount) and mount.step:
                keys.append(inputs[mount.step].key)
        return tuple(keys)

    def _ran(self, step: Step, op: Exec, inputs: tuple[Result, ...], key: str) -> Result:
        parent = inputs[0]
        need_runs(self._means.isolation)
        lowers = self._files.directories(parent)
        view = self._files.view_of(parent)
        created = now()
        with ExitStack() as stack:
            active = stack.enter_context(self._tools.snapshots.prepare(lowers))
            sources = [self._files.source(each) for each in inputs[1:]]
            shown = stack.enter_context(self._tools.mounting.ready(op, view, sources, active))
            try:
                self._tools.runner.run(step, op, active, view, shown)
            except (StepFailed, ResourceError) as error:
                self._judge_space(error, active.upper)
                from builder.solver.failed import FailedStep

                what = (op, view, shown)
                caches = self._means.state.caches
                failed = FailedStep(error, step, self._tools.runner, active, what, caches)
                self._keep(failed, stack)
                raise
            snapshot = active.commit()
            self._tools.runner.own(op, view, snapshot.path)
        if not os.listdir(snapshot.path):
            self._tools.snapshots.remove(snapshot.name)
            self._records.record(step, key, None, created)
            return parent.on_top(key, None)
        future = self._records.write_diff(step, key, snapshot.path, lowers, snapshot.name, created)
        return parent.on_top(key, Part(future, snapshot.name, snapshot.path))

    def _judge_space(self, error: BuildError, upper: str) -> None:
        """Raise ResourceError when a step has failed and the disk it wrote on is full: that is why."""
        if isinstance(error, StepFailed) and space.nearly_full(upper):
            full = OSError(errno.ENOSPC, f"{error}: {os.strerror(errno.ENOSPC)}")
            raise ResourceError(
                str(space.no_space(full, self._means.state.root)), log=error.log, hint=space.HINT
            ) from error

    def _keep(self, failed: FailedStep, stack: ExitStack) -> None:
        """Keep a failed step until the end of the build, with what `stack` would give back, if that is asked
        for.
        """
        failed.error.enterable = failed.has_shell()
        if self._means.keeps_failed:
            with self._tools.lock:
                self._failed.append(failed)
                self._tools.exit.push(stack.pop_all())


def _is_part(mount: BindMount) -> bool:
    """Whether a mount shows a part of a step that was not made for it."""
    return bool(mount.step) and not mount.own and mount.source != "/"
