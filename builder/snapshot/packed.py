"""Layers looked into without unpacking them: for a process that may not give files their owners.

Headers are read once. Contents are asked for rarely (a passwd file, what `COPY --from` takes): the first
such question unpacks the regular files of the layer, one after the other, into one nameless file of the disk.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import BinaryIO

from builder.snapshot.view import IndexLayer, index_of
from oci.tar import Entry, Kind, TarReader

_CHUNK = 1 << 20
_SMALL = 1 << 24

Reading = Callable[[], AbstractContextManager[TarReader]]


def packed_layer(
    reading: Reading, folder: str, edit: Callable[[Entry], Entry | None] | None = None
) -> IndexLayer:
    """The layer that `reading` opens, for a View. Contents go to the file system of the host directory
    `folder`; `edit` may change entries or leave them out. Raises OciError for a bad archive.
    """
    contents = _Contents(reading, folder)
    with reading() as reader:
        edited = (edit(entry) if edit else entry for entry in reader)
        entries = [entry for entry in edited if entry is not None]
    links = {entry.name: entry.link for entry in entries if entry.kind is Kind.HARDLINK}

    def fetch(path: bytes) -> int:
        seen = set()
        while path in links and path not in seen:
            seen.add(path)
            path = links[path]
        return contents.open(path)

    return index_of(entries, fetch)


class _Contents:
    """The contents of a layer's regular files, by name."""

    def __init__(self, reading: Reading, folder: str) -> None:
        self._reading = reading
        self._folder = folder
        self._lock = threading.Lock()
        self._places: dict[bytes, tuple[int, int]] | None = None
        self._spool: BinaryIO | None = None

    def open(self, path: bytes) -> int:
        """A descriptor that reads the file, at its beginning."""
        with self._lock:
            if self._places is None:
                self._places = self._unpack()
        if path not in self._places:
            raise FileNotFoundError(2, "no such file in the layer", os.fsdecode(path))
        assert self._spool is not None
        at, size = self._places[path]
        fd = self._nameless(size)
        while size:
            block = os.pread(self._spool.fileno(), min(size, _CHUNK), at)
            os.write(fd, block)
            at, size = at + len(block), size - len(block)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def _nameless(self, size: int) -> int:
        """A new file without a name, in memory if it is small."""
        if size <= _SMALL:
            return os.memfd_create("layer", os.MFD_CLOEXEC)
        with tempfile.TemporaryFile(dir=self._folder) as file:
            return os.dup(file.fileno())

    def _unpack(self) -> dict[bytes, tuple[int, int]]:
        places = {}
        at = 0
        self._spool = spool = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        with self._reading() as reader:
            for entry in reader:
                if entry.kind is not Kind.FILE:
                    continue
                begin = at
                while block := reader.read(_CHUNK):
                    spool.write(block)
                    at += len(block)
                places[entry.name] = (begin, at - begin)
        spool.flush()
        return places
