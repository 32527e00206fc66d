"""What every command gets: where the store is, opened when first asked for and closed at the end."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from builder.events import Event
    from builder.images import Images
    from builder.state import StateDir


class Session:
    """One run of the command, with the options that stand before the command's name."""

    def __init__(self, *, root: str | None = None, config: str | None = None, debug: bool = False) -> None:
        from builder.state import default_root

        self.root = root or default_root()
        self.config = _checked(config or os.environ.get("PYBUILD_CONFIG", ""))
        self.debug = debug
        self._state: StateDir | None = None
        self._images: Images | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._state is not None:
            self._state.close()

    @property
    def state(self) -> StateDir:
        """The store's directory."""
        if self._state is None:
            from builder.state import StateDir

            self._state = StateDir(self.root, self._tell)
        return self._state

    @property
    def images(self) -> Images:
        """The store's images."""
        if self._images is None:
            from builder.images import Images

            self._images = Images(self.state)
        return self._images

    def _tell(self, event: Event) -> None:
        message = getattr(event, "message", "")
        if message:
            sys.stderr.write(f"warning: {message}\n")


def _checked(path: str) -> str:
    """A configuration that was named must be there and be TOML. What it may say comes with registries."""
    if path:
        import tomllib

        from builder.errors import UsageError

        try:
            with open(path, "rb") as file:
                tomllib.load(file)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"the configuration {path!r} is no TOML: {error}") from None
    return path
