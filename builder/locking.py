"""Writing a lock: what a Dockerfile's images, URLs and repositories mean now (`pybuild lock`, D22).

All stages are looked at, for all platforms of the request, so that one lock serves every target.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from builder import planning
from builder.contexts.sources import elsewhere, is_remote
from builder.errors import BuildError, NotFound, UsageError
from builder.events import Emit, Note, discard, stamp
from builder.graph import Copy, GitSource, HttpSource, RemoteSource, Step, walk
from builder.inputs import IMAGE, LAYOUT
from builder.lock import Lock, git_key, image_key, url_key
from builder.origins import PUSHED, RESOLVED, ROOT, known
from builder.site import Site, lent, opened
from oci import media_types
from oci.data import dataclass
from oci.reference import Reference

if TYPE_CHECKING:
    from builder.request import BuildRequest
    from builder.source import SourceRange
    from oci.image import Image
    from oci.model import Platform


@dataclass(frozen=True, slots=True)
class Locking:
    """What was found: where the lock lies, what it held (None: there was none), and what it is to hold."""

    path: str
    before: Lock | None
    after: Lock

    @property
    def is_current(self) -> bool:
        """Whether the lock is as it should be."""
        return self.before is not None and self.before.text() == self.after.text()

    def changes(self) -> Iterator[tuple[str, str, str]]:
        """What changes: the name, its value before and after ("" is none)."""
        before = self.before or Lock()
        for table in ("images", "urls", "git"):
            old, new = getattr(before, table), getattr(self.after, table)
            for key in sorted(old.keys() | new.keys()):
                if old.get(key) != new.get(key):
                    yield key, old.get(key, ""), new.get(key, "")

    def write(self) -> None:
        """Put the new lock in place of the old one; nothing is written when they are equal."""
        if self.is_current:
            return
        from builder.export.archive import replacing
        from oci.durable import write_all

        with replacing(self.path) as fd:
            write_all(fd, self.after.text().encode())


def lock(request: BuildRequest, emit: Emit = discard, *, update: bool = False) -> Locking:
    """Find out what belongs into the lock of `request`'s Dockerfile; what it holds already stays as it is,
    unless `update`. Raises BuildError, OciError.
    """
    from builder.frontend.lower import plan

    request = replace(request, every_stage=True, targets=(), tags=(), locked=False)
    with opened(request, lent(request), emit) as site:
        request = site.request
        path = site.inputs.lockfile()
        before = Lock.read(path)
        pins = _Pins(site, Lock() if update or before is None else before, emit)
        pins.add_contexts(request.contexts)
        source = site.inputs.dockerfile()
        for platform in planning.targets(request.platforms):
            options = planning.plan_options(request, site.inputs, discard, platform)
            pins.add(plan(source, options, pins.resolve).stages.values())
        return Locking(path, before, pins.found)


class _Pins:
    """What names mean: as `known` has it, else as it is now."""

    def __init__(self, site: Site, known: Lock, emit: Emit) -> None:
        self._site = site
        self._known = known
        self._emit = emit
        self._images: dict[str, str] = {}
        self._urls: dict[str, str] = {}
        self._git: dict[str, str] = {}

    @property
    def found(self) -> Lock:
        """All that was asked for so far."""
        return Lock(self._images, self._urls, self._git)

    def resolve(self, name: str, platform: Platform, at: SourceRange | None) -> Image:
        """The image `name` is pinned to, for planning. Raises BuildError with the line that wants it."""
        try:
            reference = self._image(Reference.parse(name))
        except BuildError as error:
            error.at = error.at or at
            raise
        return self._site.inputs.resolve(str(reference), platform, at)

    def _image(self, reference: Reference) -> Reference:
        """An image's name with the digest that it is pinned to."""
        if reference.digest is not None:
            return reference
        key = image_key(reference)
        if key not in self._images:
            self._images[key] = self._known.images.get(key) or self._digest(reference)
        return Reference.parse(f"{key}@{self._images[key]}")

    def add(self, steps: Iterable[Step]) -> None:
        """Pin what the steps fetch. Raises FetchFailed with the line."""
        for step in walk(*steps):
            for source in step.op.sources if isinstance(step.op, Copy) else ():
                try:
                    if isinstance(source, HttpSource | GitSource):
                        self._add(source)
                except BuildError as error:
                    error.at = error.at or step.at
                    raise

    def add_contexts(self, contexts: Mapping[str, str]) -> None:
        """Pin those that are images, repositories or files of the web. Raises BuildError."""
        for name, value in contexts.items():
            image = value.removeprefix(IMAGE)
            if image != value:
                if image not in contexts:
                    self._image(Reference.parse(image))
            elif not value.startswith(LAYOUT) and is_remote(value):
                self._add(elsewhere(value, f"context {name!r}"))

    def _add(self, source: RemoteSource) -> None:
        if isinstance(source, HttpSource) and not source.checksum:
            key = url_key(source.url)
            if key not in self._urls:
                self._urls[key] = self._known.urls.get(key) or self._site.remotes.pin(source)
        elif isinstance(source, GitSource) and not (source.git.commit or source.git.by_commit):
            key = git_key(source.git)
            if key not in self._git:
                self._git[key] = self._known.git.get(key) or self._site.remotes.pin(source)

    def _digest(self, reference: Reference) -> str:
        """What an image's name means: a registry says it, or the store of an image that was made here."""
        stored = self._site.images.find(reference)
        if stored is not None and RESOLVED not in stored.annotations:
            if all(each.place.repository != reference.repository for each in known(stored, PUSHED)):
                text = f"{reference.familiar()} is an image of this store, which others have not"
                self._emit(Note(text, stamp()))
            return str(stored.digest)
        if not self._site.registries.access.offline:
            return str(self._site.registries.root(reference))
        if stored is None:
            raise NotFound(f"{reference.familiar()} is not in the store", hint=_OFFLINE)
        if stored.media_type in media_types.INDEXES:
            return str(stored.digest)
        if ROOT not in stored.annotations:
            raise UsageError(
                f"of {reference.familiar()} the store knows the manifest for one platform, and not its index",
                hint=_OFFLINE,
            )
        return stored.annotations[ROOT]


_OFFLINE = "without --offline its registry is asked"
