"""Is the store sound? Every blob, name and unpacked layer, and the build cache (R17).

    for fault in Scrub(state, images, repair=True).run():
        print(fault)

With `repair`, damaged blobs are put aside, names that lead nowhere and directories that are wrong are taken
away: all of it is fetched or made again by whoever needs it next. While builds run, directories are let be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from builder import healing, origins
from builder.soundness import Soundness
from oci.data import dataclass
from oci.digest import Digest, chain_ids
from oci.errors import BlobNotFound, DigestMismatch, OciError
from oci.image import Image, walk
from oci.image import images as images_below

if TYPE_CHECKING:
    from builder.images import Images
    from builder.snapshot.overlay import Snapshots
    from builder.state import StateDir
    from oci.layer import Layer
    from oci.model import Descriptor

Kind = Literal["blob", "name", "snapshot", "cache", "temporary"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong with `what`. `mended` says what was done about it, "" for nothing."""

    kind: Kind
    what: str
    fault: str
    mended: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.what}: {self.fault}" + (f" ({self.mended})" if self.mended else "")


class Scrub:
    """One look at the whole store. `snapshots` None leaves the directories out.

    With `incremental` blobs that were found sound within a week, and were not touched since, are not read.
    """

    def __init__(
        self,
        state: StateDir,
        images: Images,
        snapshots: Snapshots | None = None,
        *,
        repair: bool = False,
        incremental: bool = False,
    ) -> None:
        self._state = state
        self._images = images
        self._blobs = images.layout.blobs
        self._sound = Soundness(state, self._blobs)
        self._snapshots = snapshots
        self._repair = repair
        self._incremental = incremental
        self._looked_at: set[str] = set()
        self.counts = {"blob": 0, "passed over": 0, "name": 0, "snapshot": 0}
        """What was looked at, by kind."""

    def run(self) -> Iterator[Fault]:
        """Everything that is wrong, as it is found."""
        yield from self._cache()
        yield from self._all_blobs()
        yield from self._names()
        if self._snapshots is not None:
            yield from self._directories(self._snapshots)
            yield from self._of_steps(self._snapshots)
        if self._repair:
            self._blobs.clean()

    # ---- blobs ----

    def _all_blobs(self) -> Iterator[Fault]:
        yield from self._strange_files()
        digests = sorted(self._blobs, key=str)
        known = self._sound.known(digests) if self._incremental else {}
        due = [each for each in digests if each not in known]
        self.counts["passed over"] = len(known)
        with ThreadPoolExecutor(os.cpu_count() or 1, "scrub") as pool:
            for digest, fault in zip(due, pool.map(self._blob, due), strict=True):
                self.counts["blob"] += 1
                if fault is not None:
                    yield fault
                else:
                    self._sound.remember(digest)

    def _blob(self, digest: Digest) -> Fault | None:
        try:
            self._blobs.verify(digest)
        except BlobNotFound:
            return None  # somebody has removed it meanwhile
        except DigestMismatch as error:
            place = healing.quarantine(self._blobs, digest) if self._repair else ""
            text = str(error).removeprefix(f"blob {digest} is ")
            return Fault("blob", str(digest), text, f"put aside as {place}" if place else "")
        except (OciError, OSError) as error:
            return Fault("blob", str(digest), str(error))
        return None

    def _strange_files(self) -> Iterator[Fault]:
        known = {self._blobs.path(digest) for digest in self._blobs}
        for algorithm in ("sha256", "sha512"):
            directory = os.path.join(self._blobs.root, "blobs", algorithm)
            with suppress(FileNotFoundError):
                for name in sorted(os.listdir(directory)):
                    if os.path.join(directory, name) not in known:
                        yield Fault("blob", f"{algorithm}:{name}", "is no digest")

    # ---- names ----

    def _names(self) -> Iterator[Fault]:
        for entry in self._images.layout.descriptors():
            self.counts["name"] += 1
            shown = healing.shown(entry)
            if why := healing.unreadable(self._blobs, entry):
                yield Fault("name", shown, why, "taken away" if self._repair else "")
                continue
            for missing in self._missing(entry):
                yield Fault("name", shown, f"{missing} is not there, and nobody is known to have it")
        if self._repair:
            healing.forget_unreadable(self._images)

    def _missing(self, entry: Descriptor) -> list[Digest]:
        """Blobs of an image that are neither here nor where it came from."""
        if entry.media_type not in healing.DOCUMENTS:
            return []
        found = list(walk(self._blobs, entry, sparse=True))
        absent = [
            each
            for each in found
            if each.digest not in self._blobs and each.media_type not in healing.DOCUMENTS and not each.urls
        ]
        elsewhere = origins.places(self._images.layout, {each.digest for each in absent})
        return [each.digest for each in absent if each.digest not in elsewhere]

    # ---- directories ----

    def _directories(self, snapshots: Snapshots) -> Iterator[Fault]:
        """Each directory of a layer beside what its blob holds, the lowest first."""
        for image in self._whole_images():
            lowers: tuple[str, ...] = ()
            chains = chain_ids(image.config.value.diff_ids)
            for layer, chain in zip(image.layers, chains, strict=True):
                name = f"chain-{chain.hex}"
                directory = snapshots.existing(name)
                if not directory:
                    break
                if directory not in self._looked_at:
                    self._looked_at.add(directory)
                    self.counts["snapshot"] += 1
                    if why := self._compared(snapshots, directory, layer, lowers):
                        yield Fault("snapshot", name, why, self._taken_away(snapshots, name))
                        break
                lowers = (directory, *lowers)

    def _of_steps(self, snapshots: Snapshots) -> Iterator[Fault]:
        """Each directory that a step left, or that was unpacked of its layer, beside that layer."""
        from builder.snapshot.compare import lacking
        from oci.layer import read_layer

        for name, layer in self._layers_of_steps(snapshots):
            directory = snapshots.existing(name)
            if not directory or layer.digest not in self._blobs:
                continue
            self.counts["snapshot"] += 1
            why = ""
            with suppress(OciError), read_layer(self._blobs, layer.digest, layer.media_type) as reader:
                why = lacking(directory, reader)
            if why and self._is_sound(layer.digest):
                yield Fault("snapshot", name, why, self._taken_away(snapshots, name))

    def _layers_of_steps(self, snapshots: Snapshots) -> list[tuple[str, Layer]]:
        """Snapshots by name, with their layers: RUN's by their records, COPY's by the digest in the name."""
        from builder.solver.cache import Cache

        cache = Cache(self._state.steps())
        keys = [key for key, _ in self._state.steps().items() if not key.startswith("alias:")]
        records = [record for key in keys if (record := cache.record(key)) is not None]
        found = [(each.snapshot, each.layer) for each in records if each.snapshot and each.layer]
        layers = {each.layer.digest.hex[:16]: each.layer for each in records if each.layer}
        copies = [name for name in snapshots.names() if name.startswith("copy-")]
        return found + [(name, layers[end]) for name in copies if (end := name.rpartition("-")[2]) in layers]

    def _is_sound(self, digest: Digest) -> bool:
        try:
            self._blobs.verify(digest)
        except OciError:
            return False
        return True

    def _whole_images(self) -> Iterator[Image]:
        for entry in self._images.layout.descriptors():
            with suppress(OciError):
                for each in images_below(self._blobs, entry):
                    with suppress(OciError):
                        yield Image.load(self._blobs, each)

    def _compared(
        self, snapshots: Snapshots, directory: str, layer: Descriptor, lowers: tuple[str, ...]
    ) -> str:
        """The first thing in which a directory differs from its layer unpacked anew; "" for none, and for a
        layer that is damaged or not here: nothing can be said then."""
        from oci.layer import read_layer

        with suppress(OciError), read_layer(self._blobs, layer.digest, layer.media_type) as reader:
            return snapshots.difference(directory, reader, lowers)
        return ""

    def _taken_away(self, snapshots: Snapshots, name: str) -> str:
        if not self._repair:
            return ""
        from builder.state import NEVER

        with self._state.collecting() as leased:
            if leased.since != NEVER:
                return "left alone: a build is running"
            snapshots.remove(name)
        return "taken away"

    # ---- the cache ----

    def _cache(self) -> Iterator[Fault]:
        if not os.path.exists(os.path.join(self._state.root, "state.db")):
            return
        for line in self._state.database.check():
            yield Fault("cache", "state.db", line, self._state.database.replace(line) if self._repair else "")
            return
