"""Repositories: what each has, from the store's names and from what was pushed, and how that changes.

Whatever a name of the store leads to can be pulled under the name's path, without having been pushed. What
was pushed stays until it is deleted, named or not. A blob can be read only through a repository that has
it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from oci import media_types
from oci.digest import Digest
from oci.errors import BlobNotFound, OciError
from oci.layout import Layout, name_of
from oci.model import Descriptor, Manifest
from oci.registry.server import sound
from oci.registry.server.documents import Document, read
from oci.registry.server.links import Linked, Links
from oci.registry.server.names import Names
from oci.registry.server.options import Guard
from oci.registry.server.problems import Problem

_CACHED = 4096


@dataclass(frozen=True, slots=True)
class Closure:
    """All that a manifest leads to: manifests by digest, itself included, and blobs; `lost` are manifests
    that are not in the store, so that nobody knows what is below them."""

    manifests: dict[Digest, Linked]
    blobs: frozenset[Digest]
    lost: frozenset[Digest] = frozenset()


Allowed = Callable[[Descriptor | None], None]
"""Raises Problem if a tag that means this may not be moved."""


def always(before: Descriptor | None) -> None:
    """Any tag may be moved."""


_NOTHING = Closure({}, frozenset())


class Repositories:
    """The content of a registry. Any thread may call any method."""

    def __init__(self, layout: Layout, links: Links, guard: Guard, domains: tuple[str, ...]) -> None:
        self.layout = layout
        self.blobs = layout.blobs
        self.links = links
        self.guard = guard
        self.domains = domains
        self._domain = domains[0]
        self._names = Names(layout, domains)
        self._lock = threading.Lock()
        self._closures: dict[Digest, Closure] = {}
        self._named: dict[str, tuple[tuple[int, ...], Closure]] = {}

    def all(self) -> list[str]:
        """Every repository, sorted."""
        paths = self._names.paths()
        named = {path for path in paths if path.removeprefix("library/") not in paths - {path}}
        return sorted(named | set(self.links.repositories()))

    def exists(self, repository: str) -> bool:
        """Whether anything was ever pushed to it, or some image of the store has it as its name."""
        return self.links.knows(repository) or bool(self._names.tags(repository))

    def tags(self, repository: str) -> list[str]:
        """The tags that can be pulled, sorted: not those whose manifest was damaged or is gone."""
        known = self._names.tags(repository)
        hidden = self.links.hidden(repository) if known.others else set()
        own = (tag for tag, descriptor in known.own.items() if descriptor.digest in self.blobs)
        others = (tag for tag in known.others if self._is_clear(_shown(known.meanings(tag), tag, hidden)))
        asked = self.links.fetched(repository).items()
        fetched = (tag for tag, (digest, _) in asked if self._is_kept(repository, digest))
        return sorted({*own, *others, *fetched})

    def resolve(self, repository: str, tag: str) -> Descriptor | None:
        """What a tag means. Raises Problem (404) when the store's names disagree on it."""
        known = self._names.tags(repository)
        if own := known.own.get(tag):
            return own
        if tag not in known.others:
            return None
        meanings = _shown(known.meanings(tag), tag, self.links.hidden(repository))
        if len(meanings) > 1:
            hosts = ", ".join(sorted(host for host, _ in meanings.values()))
            raise Problem(
                404,
                "MANIFEST_UNKNOWN",
                f"{repository}:{tag} is another image at each of {hosts}; tag the one that is meant as "
                f"{self._domain}/{repository}:{tag}",
            )
        return next((descriptor for _, descriptor in meanings.values()), None)

    def fetched(self, repository: str, tag: str) -> Linked | None:
        """What a tag meant when a proxy last asked, if that is still here."""
        digest, _ = self.links.fetched(repository).get(tag, (None, 0.0))
        return self.manifest(repository, digest) if digest and self._is_kept(repository, digest) else None

    def manifest(self, repository: str, digest: Digest) -> Linked | None:
        """A repository's manifest by digest."""
        linked = self.links.manifest(repository, digest) or self._inherited(repository).manifests.get(digest)
        return None if linked is None or self._is_hidden(repository, digest) else linked

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Whether a repository has a blob, which must be in the store too. Manifests are blobs of it."""
        if digest not in self.blobs:
            return False
        if self.links.has_blob(repository, digest):
            return True
        inherited = self._inherited(repository)
        if digest in inherited.blobs:
            return not self._is_hidden(repository, digest)
        return self.manifest(repository, digest) is not None

    def mentioned(self, repository: str, digest: Digest) -> Descriptor | None:
        """The pointer to a blob, from a manifest of the repository; the blob need not be in the store."""
        inherited = self._inherited(repository)
        lies_open = digest in inherited.blobs and not self._is_hidden(repository, digest)
        if not lies_open and not self.links.has_blob(repository, digest):
            return None
        linked = {each.digest: each for each in self.links.manifests(repository)} | inherited.manifests
        for each in linked.values():
            if each.media_type in media_types.MANIFESTS and each.digest in self.blobs:
                try:
                    manifest = Manifest.from_json(sound.read(self.blobs, each.digest), each.media_type)
                except OciError:
                    continue
                for part in (manifest.config, *manifest.layers):
                    if part.digest == digest:
                        return part
        return None

    def holder(self, digest: Digest) -> str:
        """Some repository that has the blob, "" if none does."""
        if digest not in self.blobs:
            return ""
        if found := self.links.holder(digest):
            return found
        return next((path for path in self._names.paths() if self.has_blob(path, digest)), "")

    def referrers(self, repository: str, subject: Digest) -> list[Linked]:
        """The manifests about `subject` that are here, by digest."""
        found = {each.digest: each for each in self.links.referrers(repository, subject)}
        for digest, linked in self._inherited(repository).manifests.items():
            if linked.subject == subject and not self._is_hidden(repository, digest):
                found.setdefault(digest, linked)
        return [found[digest] for digest in sorted(found) if sound.is_here(self.blobs, digest)]

    def put(
        self,
        repository: str,
        descriptor: Descriptor,
        document: Document,
        tags: Iterable[str],
        allowed: Allowed = always,
    ) -> None:
        """Make a stored manifest visible, by digest and under tags, at once and for good.

        `allowed` is asked what each tag has meant so far: a Problem that it raises keeps all tags as they
        are.
        """
        linked = {descriptor.digest: Linked.of(descriptor, document)}
        blobs = {*document.need, *(digest for digest in document.blobs if digest in self.blobs)}
        inherited = self._inherited(repository)
        for child in document.manifests:  # what only a name has kept so far must outlive that name
            if child.digest in inherited.manifests:
                below = self._closure(child)
                linked |= below.manifests
                blobs |= below.blobs
        self.links.add_manifests(repository, linked.values(), blobs)
        if tags := tuple(tags):
            self._tag(repository, tags, descriptor, allowed)

    def untag(self, repository: str, tag: str) -> bool:
        """Delete a tag; whether there was one. Names under other hosts are the store's: they are hidden."""
        descriptor = self.resolve(repository, tag)
        fetched = self.links.remove_fetched(repository, tag)
        if descriptor is None:
            return fetched
        self._keep(repository, descriptor)
        known = self._names.tags(repository)
        if tag in known.own:
            with self.layout.editing() as names:
                names.remove(self._name(repository, tag, known.own[tag]))
            self._names.edited()
        for digest in known.meanings(tag):
            self.links.hide(repository, tag, digest)
        return True

    def remove(self, repository: str, digest: Digest) -> bool:
        """Delete a manifest and the tags that mean it; whether there was one."""
        if self.manifest(repository, digest) is None:
            return False
        known = self._names.tags(repository)
        with self.layout.editing() as names:
            for tag, own in known.own.items():
                if own.digest == digest:
                    names.remove(self._name(repository, tag, own))
        self._names.edited()
        for tag in known.others:
            if digest in known.meanings(tag):
                self.links.hide(repository, tag, digest)
        self.links.remove_manifest(repository, digest)
        if digest in self._inherited(repository).manifests:
            self.links.hide(repository, str(digest), digest)
        return True

    def remove_blob(self, repository: str, digest: Digest) -> bool:
        """Take a blob out of a repository; whether it had it."""
        if not self.has_blob(repository, digest):
            return False
        self.links.remove_blob(repository, digest)
        if digest in self._inherited(repository).blobs:
            self.links.hide(repository, str(digest), digest)
        return True

    def _tag(self, repository: str, tags: tuple[str, ...], descriptor: Descriptor, allowed: Allowed) -> None:
        with self.layout.editing() as names:
            if allowed is not always:
                for tag in tags:
                    before = self.resolve(repository, tag)
                    allowed(before if before and sound.is_here(self.blobs, before.digest) else None)
            for tag in tags:
                before = names.set(f"{self._domain}/{repository}:{tag}", descriptor)
                if before is not None and self.links.manifest(repository, before.digest) is None:
                    names.add(before)  # an image of the store's own making, which only loses this name
        self._names.edited()
        self.links.show(repository, tags)

    def _name(self, repository: str, tag: str, descriptor: Descriptor) -> str:
        """The very name under which the store has one of our tags: our addresses may be several."""
        return name_of(descriptor) or f"{self._domain}/{repository}:{tag}"

    def _keep(self, repository: str, descriptor: Descriptor) -> None:
        """Deleting a tag deletes no manifest: one that only the tag kept is linked now."""
        if self.links.manifest(repository, descriptor.digest) is None:
            below = self._closure(descriptor)
            self.links.add_manifests(repository, below.manifests.values(), below.blobs)

    def _is_kept(self, repository: str, digest: Digest) -> bool:
        return digest in self.blobs and self.manifest(repository, digest) is not None

    def _is_current(self, closure: Closure) -> bool:
        """Whether nothing that was lost has come back."""
        return not any(digest in self.blobs for digest in closure.lost)

    def _is_clear(self, meanings: dict[Digest, tuple[str, Descriptor]]) -> bool:
        """Whether other hosts' names agree on one image, which is here."""
        return len(meanings) == 1 and all(digest in self.blobs for digest in meanings)

    def _is_hidden(self, repository: str, digest: Digest) -> bool:
        return (str(digest), str(digest)) in self.links.hidden(repository)

    def _inherited(self, repository: str) -> Closure:
        """What a repository has because names of the store lead there."""
        version = self._names.version
        seen, closure = self._named.get(repository, ((), _NOTHING))
        if seen == version and self._is_current(closure):
            return closure
        closure = _union(self._closure(each) for each in self._meant(repository))
        with self._lock:
            if len(self._named) >= _CACHED:
                self._named.clear()
            self._named[repository] = (version, closure)
        return closure

    def _meant(self, repository: str) -> Iterator[Descriptor]:
        known = self._names.tags(repository)
        yield from known.own.values()
        yield from known.pinned
        for tag in known.others:
            meanings = known.meanings(tag)
            if len(meanings) == 1:
                yield from (descriptor for _, descriptor in meanings.values())

    def _closure(self, descriptor: Descriptor) -> Closure:
        known = self._closures.get(descriptor.digest)
        if known is None or not self._is_current(known):
            known = self._walk(descriptor, set())
            with self._lock:
                if len(self._closures) >= _CACHED:
                    self._closures.clear()
                self._closures[descriptor.digest] = known
        return known

    def _walk(self, descriptor: Descriptor, seen: set[Digest]) -> Closure:
        """What is damaged or absent leads nowhere: an index may name images that the store lacks."""
        if descriptor.digest in seen:
            return _NOTHING
        seen.add(descriptor.digest)
        try:
            document = read(sound.document(self.blobs, descriptor), descriptor.media_type)
        except BlobNotFound:
            return Closure({}, frozenset(), frozenset((descriptor.digest,)))
        except OciError:
            return _NOTHING
        own = Closure(
            {descriptor.digest: Linked.of(descriptor, document)}, frozenset({*document.need, *document.blobs})
        )
        return _union([own, *(self._walk(child, seen) for child in document.manifests)])


def _union(closures: Iterable[Closure]) -> Closure:
    manifests: dict[Digest, Linked] = {}
    blobs: set[Digest] = set()
    lost: set[Digest] = set()
    for closure in closures:
        manifests |= closure.manifests
        blobs |= closure.blobs
        lost |= closure.lost
    return Closure(manifests, frozenset(blobs), frozenset(lost))


def _shown(
    meanings: dict[Digest, tuple[str, Descriptor]], tag: str, hidden: set[tuple[str, str]]
) -> dict[Digest, tuple[str, Descriptor]]:
    return {
        digest: meaning
        for digest, meaning in meanings.items()
        if (tag, str(digest)) not in hidden and (str(digest), str(digest)) not in hidden
    }
