"""Forgetting what nobody needs: links to blobs that no manifest mentions, and if so wanted manifests without
a tag.

Only links go here; the bytes are for the collector of the store, which keeps what any name or link leads to.
It is safe beside a running server: a younger link stays, and a push renews the links it relies on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from oci.digest import Digest
from oci.errors import OciError
from oci.layout import Layout
from oci.model import Descriptor
from oci.registry.server.documents import Document, read
from oci.registry.server.links import Linked, Links
from oci.registry.server.names import Names

GRACE_SECONDS = 24 * 3600.0
"""How old a link must be before it may go."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What was, or would be, forgotten: repository and digest."""

    manifests: tuple[tuple[str, Digest], ...] = ()
    blobs: tuple[tuple[str, Digest], ...] = ()


def trim(
    layout: Layout,
    links: Links,
    *,
    untagged: bool = False,
    age: float = GRACE_SECONDS,
    dry_run: bool = False,
) -> Trimmed:
    """Forget links older than `age` seconds that lead to nothing anybody can ask for.

    `untagged` forgets manifests too that no tag leads to, directly, through an index, or as what refers to
    such a manifest. With `dry_run` nothing changes.
    """
    names = Names(layout, ())
    before = time.time() - age
    manifests: list[tuple[str, Digest]] = []
    blobs: list[tuple[str, Digest]] = []
    for repository in links.repositories():
        found = _Repository(layout, links, names, repository)
        stale = found.stale(untagged)
        kept = [linked for linked in found.manifests if linked.digest not in stale]
        loose = links.blobs(repository) - found.needed(kept)
        if dry_run:
            manifests += ((repository, digest) for digest in sorted(stale))
            blobs += ((repository, digest) for digest in sorted(loose))
            continue
        gone = links.remove_old(repository, stale, loose, before)
        manifests += ((repository, digest) for digest in gone[0])
        blobs += ((repository, digest) for digest in gone[1])
        links.drop_repository(repository)
    return Trimmed(tuple(manifests), tuple(blobs))


class _Repository:
    """One repository while it is looked at."""

    def __init__(self, layout: Layout, links: Links, names: Names, repository: str) -> None:
        self._layout = layout
        self.manifests = links.manifests(repository)
        self._documents = {each.digest: self._read(each.descriptor) for each in self.manifests}
        self._tagged = {digest for digest, _ in links.fetched(repository).values()}
        known = names.tags(repository)  # without addresses of our own, every name is one of `others`
        self._tagged |= {digest for tag in known.others for digest in known.meanings(tag)}
        self._tagged |= {descriptor.digest for descriptor in known.pinned}

    def stale(self, untagged: bool) -> set[Digest]:
        """Manifests that may go: those that are gone from the store, and, if wanted, those without a tag."""
        gone = {digest for digest in self._documents if digest not in self._layout.blobs}
        return gone | (set(self._documents) - set(self._reached()) if untagged else set())

    def needed(self, kept: list[Linked]) -> set[Digest]:
        """The blobs that manifests mention."""
        documents = [self._documents[linked.digest] for linked in kept]
        return {digest for document in documents if document for digest in (*document.need, *document.blobs)}

    def _reached(self) -> Iterator[Digest]:
        seen: set[Digest] = set()
        waiting = list(self._tagged)
        while waiting:
            digest = waiting.pop()
            if digest in seen:
                continue
            seen.add(digest)
            yield digest
            if document := self._documents.get(digest):
                waiting += (child.digest for child in document.manifests)
            waiting += (each.digest for each in self.manifests if each.subject == digest)

    def _read(self, descriptor: Descriptor) -> Document | None:
        try:
            return read(self._layout.blobs.document(descriptor), descriptor.media_type)
        except OciError:
            return None
