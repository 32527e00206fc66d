"""COPY, ADD and WORKDIR: their keys, and their results, from the cache or as layers written here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from builder import space
from builder.events import Warning_
from builder.graph import ContextSource, Copy, GitSource, HttpSource, Mkdir, Step
from builder.solver.cache import now
from builder.solver.keys import content_key, definition_key, pinned_key
from builder.solver.once import once
from builder.solver.records import copy_name, stacked
from builder.solver.result import Part, Result, done
from builder.tree import Tree

if TYPE_CHECKING:
    from builder.solver.copying import Plan, Selection, Written
    from builder.solver.files import Files
    from builder.solver.means import Means, Tools
    from builder.solver.records import Records
    from builder.solver.selection import TreeSource
    from oci.layer import Layer


class Copies:
    """The steps of one build that write files without running anything."""

    def __init__(self, means: Means, tools: Tools, files: Files, records: Records) -> None:
        self._means = means
        self._tools = tools
        self._files = files
        self._records = records

    def result(
        self, step: Step, op: Copy, inputs: tuple[Result, ...], definition: str
    ) -> tuple[Result, bool]:
        """The result of a COPY or ADD, and whether it was known."""
        cache, clocked = self._means.cache, self._means.clocked
        parent = inputs[0]
        target = "" if op.link else parent.key
        before = definition_key(step, (target,), clocked=clocked)
        if op.link:
            keys = (target, *(each.key for each in inputs[1:]))
            definition = definition_key(step, keys, clocked=clocked)
        definition = pinned_key(definition, self._pins(op))
        known = None if step.fresh else cache.alias(definition)
        seen = not step.fresh and cache.alias(before) is not None
        if known is not None and not any(isinstance(source, ContextSource) for source in op.sources):
            found = self._records.hit(step, known, parent)
            if found is not None:
                return found, True
        selection = self._select(op, inputs)
        checksum = self._checksum(selection, read=seen)
        if checksum is not None:
            key = content_key(step, target, (checksum,), clocked=clocked)
            found = self._records.hit(step, key, parent)
            if found is not None:
                cache.store_alias(definition, key)
                return found, True
        return self._copied(step, op, parent, selection, (definition, before)), False

    def directory(self, step: Step, op: Mkdir, parent: Result, key: str) -> tuple[Result, bool]:
        """The result of a WORKDIR, and whether it was known."""
        found = self._records.hit(step, key, parent)
        if found is not None:
            return found, True
        from builder.solver.copying import place_directory

        plan = place_directory(op, self._files.view_of(parent)())
        created = now()
        return self._with_files(step, parent, key, self._write(plan), created), False

    def _pins(self, op: Copy) -> tuple[str, ...]:
        """What the remote sources of `op` are now."""
        sources = [each for each in op.sources if isinstance(each, HttpSource | GitSource)]
        return tuple(self._means.fetching.pin(each) for each in sources)

    def _select(self, op: Copy, inputs: tuple[Result, ...]) -> Selection:
        from builder.solver.selection import select

        def tree_of(source: TreeSource) -> Tree:
            if isinstance(source, ContextSource):
                return self._means.trees(source.name)
            if isinstance(source, HttpSource | GitSource):
                return self._means.fetching.tree(source)
            return self._files.view_of(inputs[1])()

        selection = select(op, tree_of)
        for text in selection.warnings:
            self._means.emit(Warning_("CopyMatchesNothing", text))
        return selection

    def _checksum(self, selection: Selection, *, read: bool) -> str | None:
        """The selection's checksum: without reading a file if it can be, else only if `read`."""
        if not selection.selected:
            return ""
        content = self._tools.content
        return content.checksum(selection.selected) if read else content.known(selection.selected)

    def _copied(
        self, step: Step, op: Copy, parent: Result, selection: Selection, aliases: tuple[str, ...]
    ) -> Result:
        from builder.solver.copying import place
        from builder.solver.placing import NOTHING

        excerpt = step.at.excerpt() if step.at else ""
        self._tools.notices.look(selection.selected, str(step.at or ""), excerpt)
        plan = place(op, selection, NOTHING if op.link else self._files.view_of(parent)())
        created = now()
        layer, written = self._write(plan)
        checksum = ""
        if selection.selected:
            checksum = self._tools.content.learn(selection.selected, written.digests)
        target = "" if op.link else parent.key
        key = content_key(step, target, (checksum,), clocked=self._means.clocked)
        for alias in aliases:
            self._means.cache.store_alias(alias, key)
        return self._with_files(step, parent, key, (layer, written), created)

    def _with_files(
        self, step: Step, parent: Result, key: str, what: tuple[Layer | None, Written], created: str
    ) -> Result:
        """The result on top of `parent` of files that were just written as a layer."""
        layer, written = what
        self._records.record(step, key, layer, created)
        key = stacked(step, key, parent)
        if layer is None:
            return parent.on_top(key, None)
        part = Part(done(layer), copy_name(key, layer))
        result = parent.on_top(key, part)
        part.index = once(lambda: written.layer(lambda path: self._files.opened(result, path)))
        return result

    def _write(self, plan: Plan) -> tuple[Layer | None, Written]:
        """The layer of a plan, None if it is empty, and what is known of its files from writing it."""
        from builder.sandbox.syscalls import keep_freed_memory
        from builder.solver.copying import write
        from oci.layer import LayerSink
        from oci.tar import TarWriter

        means = self._means
        keep_freed_memory()
        with LayerSink(means.codec, means.blobs) as sink, space.told(means.state.root):
            tar = TarWriter(self._tools.until_cancelled(sink))
            written = write(plan, tar, now=int(time.time()), clock=means.clock)
            if plan.empty:
                return None, written
            tar.finish()
            return sink.finish(), written
