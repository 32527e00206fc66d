"""What lies under a layer that is being unpacked, found when the layer asks for it.

Most layers never ask: they name the directories they put files into. So layers can be unpacked beside each
other, and only one that hangs on those below it waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.snapshot.view import View
    from oci.tar import Entry

Lowers = Sequence[str] | Callable[[], Sequence[str]]
"""Host directories, topmost first, or what waits for them."""


class Below:
    """The merged view of `lowers`, for one thread (`oci.apply.Lower`)."""

    def __init__(self, lowers: Lowers, *, userxattr: bool = False) -> None:
        self._lowers = lowers
        self._userxattr = userxattr
        self._seen: View | None = None

    def lowers(self) -> Sequence[str]:
        """The directories; waits for them. Raises what went wrong with one of them."""
        return self._lowers() if callable(self._lowers) else self._lowers

    def entry(self, path: bytes, /) -> Entry | None:
        """What stands at `path`."""
        return self._view().entry(path)

    def open(self, path: bytes, /) -> int:
        """A descriptor to read the regular file at `path` from."""
        return self._view().open(path)

    def _view(self) -> View:
        from builder.snapshot.view import DirectoryLayer, View

        if self._seen is None:
            layers = [DirectoryLayer(each, userxattr=self._userxattr) for each in reversed(self.lowers())]
            self._seen = View(layers)
        return self._seen
