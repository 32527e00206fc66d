"""`diff`: what a container changed in its image's files, path by path."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from builder.errors import SandboxError
from builder.tree import join
from oci.tar import Kind
from oci.whiteout import OPAQUE, is_whiteout, target

if TYPE_CHECKING:
    from builder.container.written import Written
    from builder.tree import Node
    from oci.tar import Entry

Change = Literal["A", "C", "D"]
_TRIES, _PAUSE_S = 20, 0.02
_NANO = 1_000_000_000


def changed(found: Written) -> list[tuple[Change, bytes]]:
    """Added, changed and deleted paths (without their first slash), sorted. Of a directory that is deleted or
    replaced by a file only itself is told; one that was merely written to is changed if its time is.

    Raises SandboxError when the container's directories come and go more quickly than they can be read.
    """
    for _ in range(_TRIES):
        try:
            return _compared(found, *_last(found))
        except (FileNotFoundError, NotADirectoryError):
            time.sleep(_PAUSE_S)
    raise SandboxError(
        "the container changes its files while they are compared", hint="pybuild pause holds it up meanwhile"
    )


def _last(found: Written) -> tuple[dict[bytes, Entry | None], set[bytes]]:
    """What it wrote last at each path, None for what it deleted; and directories that hide the image's."""
    last: dict[bytes, Entry | None] = {}
    opaque: set[bytes] = set()
    for upper, below in found.layers():
        own: dict[bytes, Entry | None] = {}
        for entry, _ in found.changes(upper, below):
            parent, _, base = entry.name.rpartition(b"/")
            if base == OPAQUE:
                _forget(last, parent)
                opaque.add(parent)
            elif is_whiteout(base):
                path = join(parent, target(base))
                _forget(last, path)
                own[path] = None
            else:
                if entry.kind is not Kind.DIRECTORY:
                    _forget(last, entry.name)
                own[entry.name] = entry
        last |= own
    return last, opaque


def _forget(paths: dict[bytes, Entry | None], above: bytes) -> None:
    for path in [each for each in paths if each.startswith(above + b"/")]:
        del paths[path]


def _compared(
    found: Written, last: dict[bytes, Entry | None], opaque: set[bytes]
) -> list[tuple[Change, bytes]]:
    image = found.image()
    rows: list[tuple[Change, bytes]] = []
    for path, entry in last.items():
        before = image.lstat(path)
        if entry is None:
            if before is not None:
                rows.append(("D", path))
        elif before is None:
            rows.append(("A", path))
        elif path and (path in opaque or not _same_directory(before, entry)):
            rows.append(("C", path))
    for path in opaque:
        entry = last.get(path)
        if entry is not None and entry.kind is Kind.DIRECTORY:
            rows += [("D", each) for name in image.listdir(path) if (each := join(path, name)) not in last]
    return sorted(rows, key=lambda row: row[1])


def _same_directory(before: Node, now: Entry) -> bool:
    """Whether a directory was only brought up because of what is in it."""
    return (
        before.kind is now.kind is Kind.DIRECTORY
        and (before.mode, before.uid, before.gid) == (now.mode, now.uid, now.gid)
        and before.mtime_ns // _NANO == now.mtime
    )
