"""What a build fetches from elsewhere, but for images: files behind URLs, commits of git repositories."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from builder.contexts.local import LocalContext
from builder.graph import GitSource, HttpSource, RemoteSource

if TYPE_CHECKING:
    from builder.contexts.content import Memory
    from builder.contexts.git import Repositories
    from builder.contexts.http import Downloads, Secret
    from builder.events import Emit
    from builder.giturl import GitUrl
    from builder.tree import Tree
    from oci.blobs import BlobStore
    from oci.registry.config import RegistryConfig


class Remotes:
    """The remote sources of one build, each fetched when first needed. Threads share it; use it in `with`.

    Downloads become blobs of `blobs`, checkouts lie in its temporary directory until the end. `secret` finds
    credentials, `agent` is the socket of the ssh agent that the build may ask. With `offline` only what is
    known already can be had.
    """

    def __init__(
        self,
        blobs: BlobStore,
        memory: Memory,
        *,
        secret: Secret | None = None,
        agent: str = "",
        config: Callable[[], RegistryConfig] | None = None,
        offline: bool = False,
        emit: Emit | None = None,
    ) -> None:
        self._blobs = blobs
        self._memory = memory
        self._secret = secret
        self._agent = agent
        self._config = config
        self._offline = offline
        self._emit = emit
        self._exit = ExitStack()
        self._lock = threading.RLock()
        self._downloads: Downloads | None = None
        self._repositories: Repositories | None = None
        self._trees: dict[tuple[GitUrl, bool], LocalContext] = {}

    def __enter__(self) -> Remotes:
        return self

    def __exit__(self, *exc: object) -> None:
        self.cancel()
        self._exit.close()

    def cancel(self) -> None:
        """End every transfer. From any thread."""
        if self._downloads is not None:
            self._downloads.cancel()
        if self._repositories is not None:
            self._repositories.cancel()

    def pin(self, source: RemoteSource) -> str:
        """What `source` is now: the digest of a file, the commit of a repository. Raises FetchFailed."""
        if isinstance(source, HttpSource):
            return str(self.downloads.find(source.url, source.checksum).digest)
        return self.repositories.commit(source.git)

    def tree(self, source: RemoteSource) -> Tree:
        """The files of `source`. Raises FetchFailed, ContextError."""
        if isinstance(source, HttpSource):
            return self.downloads.tree(source.url, source.name, source.checksum)
        return self._checkout(source)

    def checkout(self, git: GitUrl) -> str:
        """The directory of a repository's files, for a context."""
        return self.repositories.checkout(git, bool(git.keep_git_dir))

    @property
    def scratch(self) -> str:
        """A directory for files of this build, which exists."""
        os.makedirs(self._blobs.temporary, 0o700, exist_ok=True)
        return self._blobs.temporary

    @property
    def downloads(self) -> Downloads:
        """Files behind URLs."""
        with self._lock:
            if self._downloads is None:
                from builder.contexts.http import Downloads, no_secret
                from oci.registry.web import Web

                config = self._config() if self._config else None
                web = self._exit.enter_context(Web(config, offline=self._offline, warn=self._warn))
                self._downloads = Downloads(web, self._blobs, self._memory, self._secret or no_secret)
            return self._downloads

    @property
    def repositories(self) -> Repositories:
        """Git repositories."""
        with self._lock:
            if self._repositories is None:
                from builder.contexts.git import Repositories

                config = self._config() if self._config else None
                plain = {host for host, each in config.hosts.items() if each.http} if config else set()
                made = Repositories(
                    self._blobs.temporary, self._secret, self._agent, frozenset(plain), self._offline
                )
                self._repositories = self._exit.enter_context(made)
            return self._repositories

    def _checkout(self, source: GitSource) -> LocalContext:
        place = self.repositories.checkout(source.git, source.keep_git_dir)
        with self._lock:
            key = (source.git, source.keep_git_dir)
            if key not in self._trees:
                opened = LocalContext(place, None, source.git.remote)
                self._trees[key] = self._exit.enter_context(opened)
            return self._trees[key]

    def _warn(self, text: str) -> None:
        if self._emit is not None:
            from builder.events import Warning_

            self._emit(Warning_("Remote", text))
