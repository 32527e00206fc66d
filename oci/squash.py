"""Several layers as one that does the same: later files win, and what is gone from all of them is in none.

Each layer is read twice: once for its names, once for the contents that are left. Whiteouts stay where a
lower layer may have the name (image-spec: layer.md, Whiteouts); hard links stay hard links.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from oci.blobs import BlobStore
from oci.compress import NO_LIMITS, Codec
from oci.layer import Layer, LayerSink, read_layer
from oci.model import Descriptor
from oci.tar import Entry, Kind, TarReader, TarWriter
from oci.whiteout import OPAQUE, PREFIX, is_bookkeeping, is_whiteout, target


class _Slot(NamedTuple):
    """What lies at a path: its entry, and for a file the number of its layer and of its member there."""

    entry: Entry
    layer: int = -1
    member: int = -1


def squash(layers: Sequence[Descriptor], store: BlobStore, codec: Codec) -> Layer | None:
    """One layer in place of `layers` (lowest first), in `store`; None when nothing is left of them."""
    merged = _Merged()
    for number, descriptor in enumerate(layers):
        with read_layer(store, descriptor.digest, descriptor.media_type, limits=NO_LIMITS) as reader:
            merged.add(number, reader)
    if not merged.slots and not merged.gone and not merged.opaque:
        return None
    with LayerSink(codec, store) as sink:
        tar = TarWriter(sink)
        for entry in merged.plain():
            tar.add(entry)
        for number, descriptor in enumerate(layers):
            with read_layer(store, descriptor.digest, descriptor.media_type, limits=NO_LIMITS) as reader:
                merged.write(number, reader, tar)
        for entry in merged.links():
            tar.add(entry)
        tar.finish()
        return sink.finish()


class _Merged:
    """The layers so far, as one."""

    def __init__(self) -> None:
        self.slots: dict[bytes, _Slot] = {}
        self.gone: set[bytes] = set()
        self.opaque: set[bytes] = set()
        self._directories: set[bytes] = set()

    def add(self, number: int, reader: TarReader) -> None:
        """Put one layer more on top."""
        own: dict[bytes, _Slot] = {}
        removed: list[bytes] = []
        hidden: list[bytes] = []
        for member, entry in enumerate(reader):
            parent, _, name = entry.name.rpartition(b"/")
            if name == OPAQUE:
                hidden.append(parent)
            elif is_whiteout(name):
                if not is_bookkeeping(name):
                    removed.append(_below(parent, target(name)))
            elif entry.kind is Kind.HARDLINK:
                own[entry.name] = own.get(entry.link) or self.slots.get(entry.link) or _Slot(entry)
            else:
                own[entry.name] = _Slot(entry, number, member)
        # A whiteout speaks of the layers below, wherever in its own layer it stands.
        for path in removed:
            self._remove(path)
            self.gone.add(path)
        for path in hidden:
            self._hide(path)
        for path, slot in own.items():
            self._put(path, slot)

    def _remove(self, path: bytes) -> None:
        """Forget what lies at `path` and below, and what was said of names there."""
        self.slots.pop(path, None)
        self.opaque.discard(path)
        self._directories.discard(path)
        self._empty(path)

    def _empty(self, path: bytes) -> None:
        below = path + b"/" if path else b""
        for each in [each for each in self.slots if each.startswith(below) and each != path]:
            del self.slots[each]
        self.gone = {each for each in self.gone if not each.startswith(below)}
        self._directories = {each for each in self._directories if not each.startswith(below) or each == path}
        self.opaque = {each for each in self.opaque if not each.startswith(below) or each == path}

    def _hide(self, path: bytes) -> None:
        self._empty(path)
        self.opaque.add(path)

    def _put(self, path: bytes, slot: _Slot) -> None:
        for above in _parents(path):
            self._make_directory(above)
        there = self.slots.get(path)
        if slot.entry.kind is not Kind.DIRECTORY:
            if path in self._directories:
                self._directories.discard(path)
                self._remove(path)
            self.gone.discard(path)
        elif path in self.gone or (there is not None and there.entry.kind is not Kind.DIRECTORY):
            # The layers below may have a directory here, which had gone: its names must not show again.
            self.gone.discard(path)
            self.opaque.add(path)
        if slot.entry.kind is Kind.DIRECTORY:
            self._directories.add(path)
        self.slots[path] = slot

    def _make_directory(self, path: bytes) -> None:
        """A directory that a layer only implies hides what was there, when that was none."""
        if path in self._directories:
            return
        self._directories.add(path)
        there = self.slots.get(path)
        if path in self.gone or (there is not None and there.entry.kind is not Kind.DIRECTORY):
            self.slots.pop(path, None)
            self.gone.discard(path)
            self.opaque.add(path)

    def plain(self) -> Iterator[Entry]:
        """Everything without content, directories before what is in them, and the marks of what is gone."""
        rows = {path: slot.entry for path, slot in self.slots.items() if slot.entry.kind not in _WITH_CONTENT}
        for path in self.gone:
            parent, _, name = path.rpartition(b"/")
            rows[_below(parent, PREFIX + name)] = Entry(_below(parent, PREFIX + name), Kind.FILE)
        for path in self.opaque:
            rows[_below(path, OPAQUE)] = Entry(_below(path, OPAQUE), Kind.FILE)
        for path in sorted(rows, key=lambda each: each.replace(b"/", b"\0")):
            yield replace(rows[path], name=path)

    def write(self, number: int, reader: TarReader, tar: TarWriter) -> None:
        """The files whose content this layer has; other names for one are links to the first."""
        names: dict[int, list[bytes]] = {}
        for path, slot in self.slots.items():
            if slot.layer == number and slot.entry.kind is Kind.FILE:
                names.setdefault(slot.member, []).append(path)
        for member, entry in enumerate(reader):
            if member in names:
                first, *others = sorted(names[member])
                tar.add_stream(replace(entry, name=first), reader.read)
                for other in others:
                    tar.add(replace(entry, name=other, kind=Kind.HARDLINK, size=0, link=first, xattrs=()))

    def links(self) -> Iterator[Entry]:
        """Links to files that only the layers below have."""
        for path in sorted(self.slots):
            if self.slots[path].entry.kind is Kind.HARDLINK:
                yield replace(self.slots[path].entry, name=path)


_WITH_CONTENT = (Kind.FILE, Kind.HARDLINK)


def _below(parent: bytes, name: bytes) -> bytes:
    return parent + b"/" + name if parent else name


def _parents(path: bytes) -> Iterator[bytes]:
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)
