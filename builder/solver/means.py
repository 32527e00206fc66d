"""What a build has to perform its steps with: given at its start, or opened at the first need.

Everything heavy (the launcher process, the network pool, the threads that write layers) begins with the first
cache miss: a fully cached build starts none of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import field
from typing import TYPE_CHECKING, Protocol

from builder import interrupts
from builder.errors import BuildCancelled
from builder.events import Emit
from builder.graph import RemoteSource
from builder.isolation import Isolation, current
from builder.solver.cache import Cache
from builder.solver.once import once
from builder.tree import Tree
from oci.data import dataclass

if TYPE_CHECKING:
    from builder.contexts.content import Content
    from builder.sandbox.cgroup import Groups
    from builder.secrets import Agent, Secrets
    from builder.snapshot.overlay import Snapshots
    from builder.solver.mounting import Mounting
    from builder.solver.notices import Notices
    from builder.solver.running import Runner
    from builder.state import StateDir
    from oci.blobs import BlobStore
    from oci.compress import Codec
    from oci.image import Image


_PATIENCE_S = 2.0
"""How long an interrupt waits for the layer of a step that is over."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What is given. `trees` opens a build context by name, `remotes` fetches; `secrets`, `agents` and
    `allow` are what the user lends to steps and lets them have, `groups` what limits them, `isolation` where
    this process stands; with `keeps_failed` a RUN that failed can be entered. `name` is that of the build's
    logs.
    """

    state: StateDir
    blobs: BlobStore
    cache: Cache
    trees: Callable[[str], Tree]
    codec: Codec
    clock: int | None
    emit: Emit
    remotes: Remotes | None = None
    layers: Layers | None = None
    secrets: Secrets | None = None
    agents: Mapping[str, Agent] = field(default_factory=dict)
    allow: frozenset[str] = frozenset()
    keeps_failed: bool = False
    groups: Groups | None = None
    isolation: Isolation = field(default_factory=current)
    name: str = ""

    @property
    def clocked(self) -> bool:
        """Whether there is a clock: keys know that much of it."""
        return self.clock is not None

    @property
    def fetching(self) -> Remotes:
        """What fetches remote sources, where some are named."""
        assert self.remotes is not None
        return self.remotes


class Tools:
    """What is opened at the first need, for all threads of a build; closed in reverse order by `close`."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self.exit = ExitStack()
        self.lock = threading.Lock()
        self.cancelled = threading.Event()
        self._runner: Runner | None = None
        self._mounting: Mounting | None = None
        self._snapshots: Snapshots | None = None
        self._content: Content | None = None
        self._notices: Notices | None = None

    def close(self) -> None:
        """End and close all that was opened."""
        self.exit.close()

    def cancel(self) -> None:
        """End what runs and what moves. From any thread."""
        self.cancelled.set()
        for each in (self._means.remotes, self._means.layers):
            if each is not None:
                each.cancel()
        if self._runner is not None:
            self._runner.kill_all()

    def until_cancelled(self, sink: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """`sink` for the blocks of a layer, which raises BuildCancelled once the build is."""

        def take(block: bytes) -> None:
            if self.cancelled.is_set():
                raise BuildCancelled("the build was cancelled")
            sink(block)

        return take

    def until_interrupted(self, sink: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """The same for the layer of a step that is over: when another fails, or Ctrl-C came, it is worth a
        little patience, since the next build then finds the step."""
        ends = 0.0

        def take(block: bytes) -> None:
            nonlocal ends
            if interrupts.asked():
                ends = ends or time.monotonic() + _PATIENCE_S
                if time.monotonic() > ends:
                    raise BuildCancelled("the build was cancelled")
            sink(block)

        return take

    @property
    def snapshots(self) -> Snapshots:
        """The store's snapshots."""
        with self.lock:
            if self._snapshots is None:
                from builder.snapshot.overlay import opened

                snapshots = opened(self._means.state.snapshots, self._means.isolation)
                self._snapshots = self.exit.enter_context(snapshots)
            return self._snapshots

    @property
    def content(self) -> Content:
        """Checksums of files, remembered in the store."""
        with self.lock:
            if self._content is None:
                from builder.contexts.content import Content

                self._content = Content(self._means.state.content())
            return self._content

    @property
    def notices(self) -> Notices:
        """What looks at what is copied, once for each kind of thing that people should know."""
        with self.lock:
            if self._notices is None:
                from builder.solver.notices import Notices

                self._notices = Notices(self._means.emit)
            return self._notices

    @property
    def mounting(self) -> Mounting:
        """What makes the mounts of steps ready."""
        with self.lock:
            if self._mounting is None:
                from builder.secrets import Secrets
                from builder.solver.caches import Caches
                from builder.solver.mounting import Mounting

                caches = Caches(self._means.state.caches, self.cancelled, self._means.emit)
                mounting = Mounting(caches, self._means.secrets or Secrets(), self._means.agents)
                self._mounting = self.exit.enter_context(mounting)
            return self._mounting

    @property
    def runner(self) -> Runner:
        """What runs programs; its processes begin here."""
        with self.lock:
            if self._runner is None:
                from builder.solver.running import Runner

                runner = Runner(
                    stubs=os.path.join(self._means.state.snapshots, ".stubs"),
                    logs=once(lambda: self._means.state.new_build_logs(self._means.name)),
                    emit=self._means.emit,
                    allow=self._means.allow,
                    groups=self._means.groups,
                    isolation=self._means.isolation,
                    cancelled=self.cancelled,
                )
                self._runner = self.exit.enter_context(runner)
            return self._runner

    @property
    def begun_runner(self) -> Runner | None:
        """The same, if something was run."""
        return self._runner
