"""Results as files: directories to run in, views to look into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from builder.solver.once import once
from builder.solver.result import Part, Result, directories, merge, packed, unpacker

if TYPE_CHECKING:
    from builder.snapshot.view import DirectoryLayer, IndexLayer, View
    from builder.solver.means import Means, Tools
    from builder.solver.mounting import Source


class Files:
    """The files of results. Threads share it: what one has found, all know."""

    def __init__(self, means: Means, tools: Tools) -> None:
        self._means = means
        self._tools = tools
        self._unpacks = means.isolation.unpacks
        self._userxattr = means.isolation.userxattr
        self._layers_seen: dict[str, DirectoryLayer] = {}
        self._packed_seen: dict[str, IndexLayer] = {}

    def directories(self, result: Result) -> tuple[str, ...]:
        """The directories of a result, topmost first; those that are missing are unpacked."""
        means = self._means
        return directories(result, unpacker(self._tools.snapshots, means.blobs, means.clock))

    def view_of(self, result: Result) -> Callable[[], View]:
        """How to look into a result: made at the first look, from indexes where they are, else from
        directories.
        """
        return once(lambda: self._view(result))

    def source(self, result: Result) -> Source:
        """A result as mounts look into it."""
        from builder.solver.mounting import Source

        return Source(
            result.key,
            lambda: self.directories(result),
            self.view_of(result),
            lambda folder: merge(result, self._means.blobs, folder, self._means.clock),
        )

    @contextmanager
    def rootfs(self, result: Result) -> Iterator[View]:
        """The merged files of a result, for outputs that want files."""
        from builder.snapshot.view import View

        if not self._unpacks:
            yield self._view(result)
            return
        yield View([self._layer_in(each) for each in reversed(self.directories(result))])

    def opened(self, result: Result, path: bytes) -> int:
        """Open a file of the topmost part, whose directory is made when the first one is wanted."""
        from builder.snapshot.view import DirectoryLayer

        if not self._unpacks:
            opening, close = self._packed(result.parts[-1]).opener()
            return opening(path)
        top, *_ = self.directories(result)
        opening, close = DirectoryLayer(top, userxattr=self._userxattr).opener()
        try:
            return opening(path)
        finally:
            close()

    def _view(self, result: Result) -> View:
        from builder.snapshot.view import View

        layers: list[DirectoryLayer | IndexLayer] = []
        if not self._unpacks:
            return View([self._packed(part) for part in result.parts if part.layer.result() is not None])
        if any(part.index is None and not part.directory for part in result.parts):
            self.directories(result)
        for part in result.parts:
            if part.directory:
                layers.append(self._layer_in(part.directory))
            elif part.index is not None:
                layers.append(part.index())
        return View(layers)

    def _packed(self, part: Part) -> IndexLayer:
        """A part's layer, read from its blob; one for all steps on top of it."""
        means = self._means
        with part.lock:
            if part.name not in self._packed_seen:
                self._packed_seen[part.name] = packed(part, means.blobs, means.state.root, means.clock)
            return self._packed_seen[part.name]

    def _layer_in(self, directory: str) -> DirectoryLayer:
        """The layer that lies in `directory`, one for all steps on top of it: it remembers what it found."""
        from builder.snapshot.view import DirectoryLayer

        if (seen := self._layers_seen.get(directory)) is not None:
            return seen
        layer = DirectoryLayer(directory, userxattr=self._userxattr)
        return self._layers_seen.setdefault(directory, layer)
