"""What a new volume begins with: the files that the image has where it is mounted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from oci.apply import apply
from oci.compress import NO_LIMITS
from oci.tar import Entry, Kind, TarReader
from oci.whiteout import is_whiteout

if TYPE_CHECKING:
    from builder.snapshot.view import View
    from builder.tree import Node, Opener


def fill(directory: str, view: View, target: str, unmapped: Callable[[bytes, Entry], None] | None) -> bool:
    """Copy what the image shows at `target` into the host directory: content, owners, modes, attributes,
    times to the second. False, and nothing done, if there is no directory.

    The image's links are followed inside the image, and nothing of it is written but below `directory`.
    `unmapped` is told of files whose owner has no id here. OSError for the disk.
    """
    top = view.resolve(os.fsencode(target).strip(b"/"))
    node = view.lstat(top)
    if node is None or node.kind is not Kind.DIRECTORY:
        return False
    with ExitStack() as stack:
        reader = _Shown(view, top, stack.enter_context(view.opener()))
        stack.callback(reader.close)
        apply(cast("TarReader", reader), directory, style="plain", whiteouts=False, unmapped=unmapped)
    return True


class _Shown:
    """A directory of a view, as `apply` reads an archive."""

    limits = NO_LIMITS

    def __init__(self, view: View, top: bytes, opener: Opener) -> None:
        self._view, self._top, self._opener = view, top, opener
        self._path, self._fd = b"", -1
        self.entries = 0

    def __iter__(self) -> Iterator[Entry]:
        first: dict[tuple[int, int], bytes] = {}
        for path, node in self._view.walk(self._top):
            name = path[len(self._top) :].lstrip(b"/")
            if any(is_whiteout(part) for part in name.split(b"/")):
                continue
            entry = self._view.entry(path)
            if entry is None:
                continue
            self.close()
            self._path = path
            self.entries += 1
            yield self._linked(first, node, replace(entry, name=name))

    def _linked(self, first: dict[tuple[int, int], bytes], node: Node, entry: Entry) -> Entry:
        """The entry, or that of a link to the same file's first name."""
        if node.kind is Kind.DIRECTORY or node.nlink < 2 or not node.ino:
            return entry
        name = first.setdefault((node.dev, node.ino), entry.name)
        return entry if name == entry.name else Entry(entry.name, Kind.HARDLINK, link=name)

    def read(self, size: int) -> bytes:
        """Content of the file that came last."""
        if self._fd < 0:
            self._fd = self._opener(self._path)
        return os.read(self._fd, size)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
