"""The local store's images and their names: find, tag, list, remove. `index.json` is the only truth.

An image's id is the digest of its config, as Docker has it. An entry of the index without a name is an image
all the same: a build without `-t`, or one whose name has moved on to another image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from builder import origins, roster
from builder.errors import NotFound, UsageError
from builder.state import StateDir
from oci import media_types, platforms
from oci.blobs import BlobStore
from oci.data import dataclass
from oci.digest import Digest
from oci.errors import BlobNotFound, InvalidReference, OciError
from oci.image import Image, images
from oci.layout import Layout, Names, name_of, without_names
from oci.model import Descriptor, Manifest, Platform, parse
from oci.reference import Reference

ID_LENGTH = 4
"""Fewer hex digits are no id: too many words are hex digits."""

_HEX_ID = re.compile(rf"(?:sha256:)?([0-9a-f]{{{ID_LENGTH},64}})")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NOT_FOUND_HINT = "pybuild images lists what is here; a base comes with pybuild import or pybuild load"

_NOTHING: Mapping[str, str] = {}

OnDamage = Callable[[Descriptor, OciError], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of the store. Of an index of platforms, `image` is the one that fits this machine best, and
    `others` are those of other platforms that are here.
    """

    descriptor: Descriptor
    image: Image
    names: tuple[Reference, ...] = ()
    others: tuple[Image, ...] = ()

    @property
    def is_index(self) -> bool:
        """Whether it is an index of images for several platforms."""
        return self.descriptor.media_type in media_types.INDEXES

    @property
    def id(self) -> Digest:
        """The image id: the config's digest, of an index its own."""
        return self.descriptor.digest if self.is_index else self.image.id

    @property
    def size(self) -> int:
        """Bytes that its layers and documents take in the store, compressed as they are."""
        found = {}
        for image in (self.image, *self.others):
            found[image.manifest.digest] = len(image.manifest.content)
            found[image.id] = len(image.config.content)
            found.update((layer.digest, layer.size) for layer in image.layers)
        return sum(found.values())

    @property
    def created(self) -> str:
        """When it was made: RFC 3339, "" if it does not say."""
        return self.image.config.value.created


@dataclass(frozen=True, slots=True)
class Removal:
    """What `remove` did: names that are gone, images and layers that are gone, bytes that are free again."""

    untagged: tuple[str, ...]
    deleted: tuple[Digest, ...]
    freed: int = 0


class Images:
    """The images of a store."""

    def __init__(self, state: StateDir) -> None:
        self._state = state
        known = os.path.exists(os.path.join(state.root, "index.json"))
        self.layout = Layout.open(state.root) if known else Layout.create(state.root)

    def entries(self, on_damage: OnDamage | None = None) -> list[Entry]:
        """Every image with its names, newest first. A damaged one is told to `on_damage`, or raised."""
        found = []
        for descriptor, names in _grouped(self.layout.descriptors()):
            if _is_artifact(descriptor):
                continue
            try:
                found.append(self._made(descriptor, names))
            except OciError as error:
                if on_damage is None:
                    raise
                on_damage(descriptor, error)
        return sorted(found, key=lambda entry: entry.created, reverse=True)

    def find(self, reference: Reference) -> Descriptor | None:
        """What the index has under this very name; with a digest, what has that digest in the repository."""
        reference = reference.with_default_tag()
        if reference.digest is None:
            return self.layout.find(str(reference))
        return next((each for each in self.layout.descriptors() if _is_pinned(each, reference)), None)

    def resolve(self, text: str) -> Entry:
        """The image that people mean by a name, a name with a digest, or at least four digits of an id. What
        is no id may be the digest of a manifest, or the id of an image in an index.

        Raises NotFound (with what may have been meant), UsageError when an id's beginning fits several.
        """
        reference = _reference(text)
        if reference and (descriptor := self.find(reference)):
            return self._entry(descriptor)
        found = self._known_as(self.layout.descriptors(), text)
        ids = {self._id(each) for each in found}
        if len(ids) > 1:
            raise _ambiguous(text, ids)
        if not found:
            raise NotFound(f"no image {text!r} in the store", hint=self._did_you_mean(text))
        return self._entry(found[0])

    def named(self, text: str) -> Descriptor:
        """What people mean by a name of the store, an artifact or anything; else what `resolve` finds."""
        reference = _reference(text)
        found = self.find(reference) if reference else None
        return _pointer(found) if found is not None else self.resolve(text).descriptor

    def for_platform(self, descriptor: Descriptor) -> Image:
        """The image below a pointer that fits this machine best, else its first; of those that are here."""
        return self._made(descriptor, ()).image

    def choose(self, entry: Entry, platform: Platform) -> Entry:
        """Of an image or index what is for `platform`, and nothing else. Raises NotFound."""
        blobs = self.layout.blobs
        offered = images(blobs, entry.descriptor) if entry.is_index else (entry.image.descriptor,)
        position = platforms.best(platform, [each.platform for each in offered])
        name = entry.names[0].familiar() if entry.names else entry.id.short
        if position is None:
            there = ", ".join(str(each.platform) for each in offered) or "none"
            raise NotFound(f"{name} has no image for {platform}; it has {there}")
        if offered[position].digest not in blobs:
            raise NotFound(
                f"the image of {name} for {platform} is not in the store",
                hint=f"pybuild pull --platform {platform} {name}",
            )
        return Entry(offered[position], Image.load(blobs, offered[position]), entry.names)

    def absent(self, descriptor: Descriptor) -> tuple[Platform, ...]:
        """The platforms that an index names and whose images are not in the store."""
        if descriptor.media_type not in media_types.INDEXES:
            return ()
        blobs = self.layout.blobs
        lost = [each for each in images(blobs, descriptor) if each.digest not in blobs]
        return tuple(each.platform for each in lost if each.platform)

    def refuse_sparse(self, descriptor: Descriptor, name: str) -> None:
        """Raise NotFound if images of an index are not in the store."""
        if lost := self.absent(descriptor):
            listed = ", ".join(str(each) for each in lost[:4]) + (", ..." if len(lost) > 4 else "")
            raise NotFound(
                f"of the index {name} the images for {listed} are not in the store",
                hint=f"--platform takes one that is here; all of it: pybuild pull --all-platforms {name}",
            )

    def _made(self, descriptor: Descriptor, names: tuple[Reference, ...]) -> Entry:
        """The entry that a pointer is. Raises OciError for what is damaged or holds no image."""
        blobs = self.layout.blobs
        if descriptor.media_type not in media_types.INDEXES:
            return Entry(descriptor, Image.load(blobs, descriptor), names)
        here = [each for each in images(blobs, descriptor) if each.digest in blobs]
        if not here:
            raise BlobNotFound(f"the index {descriptor.digest} names no image that is here")
        best = platforms.best(platforms.host(), [each.platform for each in here]) or 0
        first, *others = [Image.load(blobs, each) for each in (here[best], *here[:best], *here[best + 1 :])]
        return Entry(descriptor, first, names, tuple(others))

    def _known_as(self, entries: Iterable[Descriptor], text: str) -> list[Descriptor]:
        """The entries with this id, else those that have it otherwise: the digest of a manifest, the id of
        the image that an index has for this machine."""
        entries = tuple(entries)
        found = [each for each in entries if _begins(self._id(each), text)]
        if found or not _HEX_ID.fullmatch(text):
            return found
        return [each for each in entries if any(_begins(also, text) for also in self._also(each))]

    def _also(self, descriptor: Descriptor) -> tuple[Digest, ...]:
        if descriptor.media_type not in media_types.INDEXES:
            return (descriptor.digest,)
        with suppress(OciError):
            return (self.for_platform(descriptor).id,)
        return ()

    def tag(self, name: Reference, descriptor: Descriptor, facts: Mapping[str, str] = _NOTHING) -> None:
        """Let `name` mean `descriptor`. An image that had only this name stays, unnamed.

        `facts` are what to remember of the image (`builder.origins`), beside what is known of it.
        """
        if name.digest is not None:
            raise UsageError(
                f"{name.familiar()!r} has a digest; a tag names an image, a digest is its content"
            )
        if name.path == "library/sha256":
            raise UsageError(f"{name.familiar()!r} would be taken for a digest: choose another name")
        with self.layout.editing() as names:
            _move_name(names, str(name.with_default_tag()), descriptor, facts)

    def pulled(self, name: Reference, descriptor: Descriptor, facts: Mapping[str, str]) -> None:
        """Let the name an image was pulled by mean it; one with a digest too, which then has no tag."""
        name = replace(name, tag="") if name.digest else name.with_default_tag()
        with self.layout.editing() as names:
            within = {each.digest for each in images(self.layout.blobs, descriptor)}
            _move_name(names, str(name), descriptor, facts, within)

    def keep(self, descriptor: Descriptor, facts: Mapping[str, str] = _NOTHING) -> None:
        """Store an image without a name (or leave the names it has)."""
        with self.layout.editing() as names:
            names.add(origins.remembering(names.entries, descriptor, facts))

    def note(self, digest: Digest, facts: Mapping[str, str]) -> None:
        """Remember more of an image that has an entry; nothing to do if it has none."""
        if not facts:
            return
        with self.layout.editing() as names:
            names.entries = [
                origins.remembering((), entry, facts) if entry.digest == digest else entry
                for entry in names.entries
            ]

    def untag(self, name: Reference) -> None:
        """Take a name away; the image stays. Raises NotFound."""
        with self.layout.editing() as names:
            before = names.remove(str(name.with_default_tag()))
            if before is None:
                raise NotFound(f"no image {name.familiar()!r} in the store", hint=_NOT_FOUND_HINT)
            names.add(before)

    def remove(self, text: str, *, force: bool = False) -> Removal:
        """Take an image away by name (it goes with its last name) or by id (which takes all its names).

        Blobs go that no other image, no container, no record of the build cache and no living build needs.
        Raises NotFound; and UsageError, unless `force`, for an id with names in several repositories and an
        image that a container uses. One that a running container uses goes by no means, but its name may.
        """
        with self.layout.editing() as names:
            gone, untagged = self._forget(names, text, force)
        if not gone:
            return Removal(untagged, ())
        told = [digest for digest, document in _below(self.layout.blobs, gone) if not document]
        deleted, freed = self._delete(reachable(self.layout.blobs, gone))
        return Removal(untagged, tuple(digest for digest in told if digest in deleted), freed)

    def release(self, descriptor: Descriptor) -> None:
        """A container that was made from an image is gone: what nothing else needs of that image goes too."""
        if all(each.digest != descriptor.digest for each in self.layout.descriptors()):
            self._delete(reachable(self.layout.blobs, [descriptor]))

    def collect(self) -> int:
        """Delete the blobs that no image, container, cache record and living build needs; bytes freed."""
        return self._delete(set(self.layout.blobs))[1]

    def _delete(self, candidates: set[Digest]) -> tuple[set[Digest], int]:
        """Of `candidates`, those deleted because nothing needs them, and the bytes that freed.

        Names cannot move meanwhile, and no lease can begin: what is decided here stays true until it is done.
        """
        deleted, freed = set(), 0
        with self._state.collecting() as leased, self.layout.editing() as names:
            kept = self._recorded() | self._pushed()
            entries = [*names.entries, *roster.held(self._state.root)]
            for digest in unreferenced(self.layout, entries, candidates) - kept:
                with suppress(FileNotFoundError):
                    status = os.stat(self.layout.blobs.path(digest))
                    if not leased.protects(digest, status.st_ctime_ns) and self.layout.blobs.delete(digest):
                        deleted.add(digest)
                        freed += status.st_size
        return deleted, freed

    def _recorded(self) -> set[Digest]:
        """Every digest the build cache mentions: layers that a later build may want."""
        if not os.path.exists(os.path.join(self._state.root, "state.db")):
            return set()
        return {Digest.parse(text) for _, row in self._state.steps().items() for text in _DIGEST.findall(row)}

    def _pushed(self) -> set[Digest]:
        """Every digest that the store's registry holds for its clients, named or not."""
        if not os.path.exists(os.path.join(self._state.root, "registry")):
            return set()
        from oci.registry.server.links import kept

        return kept(self._state.root)

    def _forget(self, names: Names, text: str, force: bool) -> tuple[list[Descriptor], tuple[str, ...]]:
        """Take names out of the index: what no name points at any more, and the names taken."""
        by_name = self._named(names, text)
        chosen = by_name or self._with_id(names, text, force)
        for descriptor in chosen:
            names.entries.remove(descriptor)
        left = {descriptor.digest for descriptor in names.entries}
        untagged = tuple(name.familiar() for name in map(_name, chosen) if name)
        gone = [descriptor for descriptor in chosen if descriptor.digest not in left]
        if (users := self._users(gone)) and _refused(text, users, force=force, by_name=bool(by_name)):
            for descriptor in gone:
                names.add(without_names(descriptor))
            return [], untagged
        return gone, untagged

    def _users(self, descriptors: Iterable[Descriptor]) -> list[roster.Listed]:
        """The containers that were made from these images, those that run first."""
        below = {str(digest) for digest in reachable(self.layout.blobs, descriptors)}
        found = [each for each in roster.listed(self._state.root) if each.config["manifest"] in below]
        return sorted(found, key=lambda each: not each.alive)

    def _named(self, names: Names, text: str) -> list[Descriptor]:
        reference = _reference(text)
        if reference is None:
            return []
        if reference.digest is None:
            found = names.find(str(reference.with_default_tag()))
            return [found] if found else []
        return [each for each in names.entries if _is_pinned(each, reference)]

    def _with_id(self, names: Names, text: str, force: bool) -> list[Descriptor]:
        chosen = self._known_as(names.entries, text)
        ids = {self._id(each) for each in chosen}
        if not ids:
            raise NotFound(f"no image {text!r} in the store", hint=self._did_you_mean(text))
        if len(ids) > 1:
            raise _ambiguous(text, ids)
        known = [name for name in map(_name, chosen) if name]
        if len({name.repository for name in known}) > 1 and not force:
            listed = ", ".join(name.familiar() for name in known)
            raise UsageError(
                f"the image {text!r} has names in several repositories: {listed}",
                hint="remove it by name, or all of it with --force",
            )
        return chosen

    def _id(self, descriptor: Descriptor) -> Digest:
        """The image id; of an image that cannot be read, its pointer's digest: it must be removable too."""
        try:
            return self._made(descriptor, ()).id
        except OciError:
            return descriptor.digest

    def _entry(self, descriptor: Descriptor) -> Entry:
        names = [
            name
            for each in self.layout.descriptors()
            if each.digest == descriptor.digest and (name := _name(each))
        ]
        return self._made(_pointer(descriptor), tuple(names))

    def _did_you_mean(self, text: str) -> str:
        from difflib import get_close_matches

        known = [name.familiar() for name in map(_name, self.layout.descriptors()) if name]
        by_word = {word: name for name in known for word in (name, name.rpartition(":")[0])}
        close = dict.fromkeys(by_word[word] for word in get_close_matches(text, by_word, 3, 0.7))
        return f"did you mean {' or '.join(close)}?" if close else _NOT_FOUND_HINT


def _refused(text: str, users: list[roster.Listed], *, force: bool, by_name: bool) -> bool:
    """Whether an image that containers use stays, without its names. Raises UsageError when nothing is done:
    docker's rule.
    """
    first = users[0]
    who = f"the container {first.name} ({first.id[:12]})"
    if first.alive and not (force and by_name):
        hint = "" if not by_name else "; --force takes the name away alone"
        raise UsageError(
            f"the image {text!r} is used by {who}, which runs",
            hint=f"pybuild rm -f {first.name} removes the container{hint}",
        )
    if not force:
        raise UsageError(
            f"the image {text!r} is used by {who}, which does not run",
            hint=f"remove that first (pybuild rm {first.name}), or use --force: the container stays usable",
        )
    return first.alive


def unreferenced(layout: Layout, entries: Iterable[Descriptor], candidates: set[Digest]) -> set[Digest]:
    """Of `candidates`, the blobs that none of the index `entries` leads to."""
    return candidates - reachable(layout.blobs, entries)


def reachable(store: BlobStore, entries: Iterable[Descriptor]) -> set[Digest]:
    """Every blob that `entries` lead to. What is damaged leads nowhere, and hides nothing beside it."""
    return {digest for digest, _ in _below(store, entries)}


def _below(store: BlobStore, entries: Iterable[Descriptor]) -> Iterator[tuple[Digest, bool]]:
    """Digests from the top down, each once, and whether each is that of an index or a manifest."""
    seen: set[Digest] = set()
    waiting = list(entries)
    while waiting:
        descriptor = waiting.pop(0)
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        document = descriptor.media_type in media_types.INDEXES | media_types.MANIFESTS
        yield descriptor.digest, document
        if document:
            with suppress(OciError):
                read = parse(store.document(descriptor), descriptor.media_type)
                waiting += (read.config, *read.layers) if isinstance(read, Manifest) else read.manifests


def _is_artifact(descriptor: Descriptor) -> bool:
    """Whether an entry is something else than an image, kept for clients of its registry."""
    documents = media_types.INDEXES | media_types.MANIFESTS
    return bool(descriptor.artifact_type) or descriptor.media_type not in documents


def _grouped(descriptors: Iterable[Descriptor]) -> list[tuple[Descriptor, tuple[Reference, ...]]]:
    """Entries of the index by what they point at, each once with all its names."""
    found: dict[Digest, tuple[Descriptor, list[Reference]]] = {}
    for descriptor in descriptors:
        _, names = found.setdefault(descriptor.digest, (_pointer(descriptor), []))
        if name := _name(descriptor):
            names.append(name)
    return [(descriptor, tuple(sorted(names))) for descriptor, names in found.values()]


def _pointer(entry: Descriptor) -> Descriptor:
    """What an entry points at, without its name and what else is for the index alone."""
    return origins.bare(without_names(entry))


def _is_pinned(entry: Descriptor, reference: Reference) -> bool:
    """Whether an entry is what a name with a digest means: the image itself, or what was chosen of the index
    with that digest, by this name or by another one."""
    name = _name(entry)
    if name is None or name.repository != reference.repository:
        return False
    return reference.digest in (entry.digest, name.digest) or str(reference.digest) == _root(entry)


def _root(entry: Descriptor) -> str:
    return entry.annotations.get(origins.ROOT, "")


def _name(descriptor: Descriptor) -> Reference | None:
    """The name an index entry carries. Other tools write anything there: what is no name is none."""
    return _reference(name_of(descriptor))


def _reference(text: str) -> Reference | None:
    try:
        return Reference.parse(text)
    except InvalidReference:
        return None


def _begins(digest: Digest, text: str) -> bool:
    match = _HEX_ID.fullmatch(text)
    return match is not None and digest.hex.startswith(match[1])


def _ambiguous(text: str, ids: Iterable[Digest]) -> UsageError:
    listed = ", ".join(sorted(digest.short for digest in ids))
    return UsageError(f"{text!r} is the beginning of several image ids: {listed}", hint="give more digits")


def _move_name(
    names: Names,
    name: str,
    descriptor: Descriptor,
    facts: Mapping[str, str],
    within: Collection[Digest] = (),
) -> None:
    """Let `name` mean `descriptor`. What it meant stays without a name, unless it lies `within` that."""
    before = names.set(name, origins.remembering(names.entries, descriptor, facts))
    if before is not None and before.digest not in within:
        names.add(before)
