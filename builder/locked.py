"""A build that uses exactly what its lock says (`--locked`): nobody is asked what a name means now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from builder.errors import FetchFailed, NotFound, RegistryFailed, UsageError
from builder.graph import GitSource, HttpSource, RemoteSource
from builder.lock import Lock, git_key, image_key, url_key
from oci.digest import Digest

if TYPE_CHECKING:
    from builder.source import SourceRange
    from builder.tree import Tree
    from oci.reference import Reference

_UPDATE = "pybuild lock adds what is new, pybuild lock --update takes all of it as it is now"


class Sources(Protocol):
    """What fetches (`builder.contexts.remote.Remotes`)."""

    def pin(self, source: RemoteSource) -> str: ...
    def tree(self, source: RemoteSource) -> Tree: ...
    def cancel(self) -> None: ...


class Locked:
    """What a lock says of the names in a Dockerfile; `name` is what messages call the lock. Methods raise
    UsageError for what is not in it.
    """

    def __init__(self, lock: Lock, name: str) -> None:
        self._lock = lock
        self._name = name

    def image(self, reference: Reference, at: SourceRange | None = None) -> Reference:
        """The image that a name is locked to; one with a digest is that."""
        if reference.digest is not None:
            return reference
        digest = self._value(self._lock.images, image_key(reference), at)
        return reference.with_default_tag().with_digest(Digest.parse(digest))

    def source(self, source: RemoteSource) -> RemoteSource:
        """What a remote source is locked to; one that is pinned in the Dockerfile is that."""
        if isinstance(source, HttpSource):
            if source.checksum:
                return source
            return replace(source, checksum=self._value(self._lock.urls, url_key(source.url), None))
        if source.git.commit or source.git.by_commit:
            return source
        commit = self._value(self._lock.git, git_key(source.git), None)
        return GitSource(replace(source.git, ref=commit), source.keep_git_dir)

    @contextmanager
    def told(self) -> Iterator[None]:
        """What cannot be had now is told with what to do about the lock."""
        try:
            yield
        except (FetchFailed, RegistryFailed, NotFound) as error:
            text = f"{self._name} wants exactly this; {_UPDATE}"
            error.hint = f"{error.hint}; {text}" if error.hint else text
            raise

    def _value(self, rows: Mapping[str, str], key: str, at: SourceRange | None) -> str:
        if key not in rows:
            raise UsageError(f"{key} is not in {self._name}", at=at, hint=_UPDATE)
        return rows[key]


class LockedSources:
    """Remote sources under a lock (a function finds it, when it is needed): keys and steps stay the same."""

    def __init__(self, sources: Sources, locked: Callable[[], Locked]) -> None:
        self._sources = sources
        self._locked = locked

    def pin(self, source: RemoteSource) -> str:
        """The digest or commit of `source`. Raises UsageError, FetchFailed."""
        locked = self._locked()
        with locked.told():
            return self._sources.pin(locked.source(source))

    def tree(self, source: RemoteSource) -> Tree:
        """The files of `source`. Raises UsageError, FetchFailed, ContextError."""
        locked = self._locked()
        with locked.told():
            return self._sources.tree(locked.source(source))

    def cancel(self) -> None:
        """End every transfer. From any thread."""
        self._sources.cancel()
