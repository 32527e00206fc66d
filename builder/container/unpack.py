"""An image's layers as directories before anything runs in them, so that the first step or container need not
wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from builder.isolation import current
from builder.snapshot.overlay import opened
from builder.solver.result import Result, directories, parts_of, unpacker

if TYPE_CHECKING:
    from builder.state import StateDir
    from oci.blobs import BlobStore
    from oci.image import Image


def unpack(
    image: Image, state: StateDir, blobs: BlobStore, fetch: Callable[[int], bool] | None = None
) -> int:
    """Unpack every layer that is not unpacked yet; how many layers there are.

    `fetch` makes a layer present and tells whether strangers wrote it (`builder.registries`). Raises OciError
    for a layer that is not what the image says it is, OSError for the disk; nothing of that layer is left.
    """
    with opened(state.snapshots, current()) as snapshots:
        return len(directories(Result("", parts_of(image, fetch)), unpacker(snapshots, blobs)))
