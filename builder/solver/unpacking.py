"""ADD of a local archive: found by its content, unpacked as `tar -x` would over what is there.

Owners and modes are the archive's, unless `--chown` is given. Every name and link is resolved below the
destination and stays there (SECURITY.md S41, S42); whatever says otherwise is refused before anything is
written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from builder.contexts.content import Selected, check_unchanged
from builder.errors import BuildError
from builder.snapshot.view import node_of_entry
from builder.solver.placing import BELOW, Placed, Placing, check_name
from builder.tree import Node, join, parent_of
from oci.compress import open_compressed
from oci.errors import OciError
from oci.rooted import follow
from oci.tar import Entry, Kind, TarReader


def place_archive(placing: Placing, source: Selected, index: int, dest: bytes) -> bool:
    """Place the members of `source` below `dest`; False when it is no archive, and nothing was placed.

    Raises BuildError for an archive that is damaged or holds what cannot be unpacked.
    """
    if source.node.kind is not Kind.FILE or not _is_archive(source):
        return False
    where = placing.resolve(dest)
    placing.make_directories(where)
    with opened(source) as reader:
        for number, entry in enumerate(reader):
            _place(placing, entry, where, index, number, source)
    return True


@contextmanager
def opened(source: Selected) -> Iterator[TarReader]:
    """The archive's members. Raises BuildError when it is damaged, ContextError when it changes meanwhile."""
    fd = source.tree.open(source.base)
    with os.fdopen(fd, "rb") as stream:
        check_unchanged(fd, source.base, source.node)
        try:
            yield TarReader(open_compressed(stream))
        except OciError as error:
            raise BuildError(f"{_name(source)} cannot be unpacked: {error}") from None
        check_unchanged(fd, source.base, source.node)


def _is_archive(source: Selected) -> bool:
    """Whether a first tar header can be read, packed or not; nothing else makes an archive of a file."""
    fd = source.tree.open(source.base)
    with os.fdopen(fd, "rb") as stream:
        check_unchanged(fd, source.base, source.node)
        return _first_entry(stream) is not None


def _first_entry(stream: BinaryIO) -> Entry | None:
    try:
        return next(iter(TarReader(open_compressed(stream))), None)
    except OciError:
        return None


def _place(placing: Placing, entry: Entry, where: bytes, index: int, number: int, source: Selected) -> None:
    if b".." in entry.name.split(b"/"):
        raise BuildError(f"{_name(source)} holds {entry}, which would leave the destination")
    if not entry.name:
        if entry.kind is not Kind.DIRECTORY:
            raise BuildError(
                f"{_name(source)} holds a {entry.kind.name.lower()} in place of its root directory"
            )
        return
    directory = entry.kind is Kind.DIRECTORY
    path = _inside(placing, where, entry.name, directory)
    if not path or path == where:
        return
    check_name(path)
    placing.make_directories(parent_of(path), (0, 0))
    placed = _linked(placing, entry, where, source) if entry.kind is Kind.HARDLINK else None
    there = placing.lstat(path)
    merges = directory and there is not None and there.kind is Kind.DIRECTORY
    if there is not None and not merges:
        if placed is not None and placed == placing.placed.get(path):
            return
        placing.remove(path)
    if placed is None:
        placed = Placed(_owned(placing, entry), index, source.base, number)
    if directory and not merges:
        placing.put_directory(path, placed)
    else:
        placing.placed[path] = placed


def _owned(placing: Placing, entry: Entry) -> Node:
    node = node_of_entry(entry)
    return node._replace(uid=placing.owner[0], gid=placing.owner[1]) if placing.owner else node


def _inside(placing: Placing, where: bytes, name: bytes, follow_last: bool) -> bytes:
    """`name` below `where` through the symlinks that are there now; these see `where` as their root."""

    def link_at(path: bytes) -> bytes | None:
        node = placing.lstat(join(where, path))
        return node.link if node is not None and node.kind is Kind.SYMLINK else None

    try:
        real = follow(name, link_at, follow_last=follow_last)
    except OSError as error:
        raise BuildError(f"/{os.fsdecode(name)} of an archive cannot be placed: {error.strerror}") from None
    return join(where, real) if real else where


def _linked(placing: Placing, entry: Entry, where: bytes, source: Selected) -> Placed:
    """A hardlink: the same member, or a copy of the file that the target has."""
    if b".." in entry.link.split(b"/"):
        raise BuildError(f"{_name(source)} holds {entry}, a link to {os.fsdecode(entry.link)} outside of it")
    to = _inside(placing, where, entry.link, False)
    node = placing.lstat(to)
    if node is None or node.kind is Kind.DIRECTORY:
        raise BuildError(
            f"{_name(source)} holds {entry}, a link to {os.fsdecode(entry.link)}, which is no file in it"
        )
    return placing.placed.get(to) or Placed(node, BELOW, to)


def _name(source: Selected) -> str:
    return os.fsdecode(source.base)
