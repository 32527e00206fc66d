"""What every command gets: where the store is, opened when first asked for and closed at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from builder.errors import BuildError
from oci.errors import OciError

if TYPE_CHECKING:
    from builder.events import Event
    from builder.healing import Aside
    from builder.images import Images
    from builder.registries import Access, Registries
    from builder.state import StateDir
    from oci.digest import Digest
    from oci.model import Descriptor

Result = TypeVar("Result")


class Session:
    """One run of the command, with the options that stand before the command's name."""

    def __init__(self, *, root: str | None = None, config: str | None = None, debug: bool = False) -> None:
        from builder.state import default_root

        self.root = root or default_root()
        self.named_config = config or os.environ.get("PYBUILD_CONFIG", "")
        if self.named_config:
            from builder.config import check

            check(self.named_config)
        self.debug = debug
        self._state: StateDir | None = None
        self._images: Images | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.heal(error)
        if self._state is not None:
            self._state.close()

    @property
    def config(self) -> str:
        """The configuration's path, "" when there is none (`builder.config`)."""
        from builder.config import find

        return find(self.named_config)

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

    def complete(self, *descriptors: Descriptor) -> None:
        """Have the layers of these images here: some may have been left where they came from. What is whole
        costs a look at each of its layers."""
        from builder.registries import Access, Registries

        if all(Registries.is_complete(self.images, each) for each in descriptors):
            return
        from builder.cli.progress import watching

        with watching("auto", "Pulling") as emit, self.state.lease():
            with Registries(Access(config=self.config), self.images, emit) as registries:
                for each in descriptors:
                    registries.complete(each)

    def again(
        self,
        act: Callable[[], Result],
        registries: Registries | None = None,
        access: Access | None = None,
    ) -> Result:
        """What `act` gives, which is tried once more for every damaged blob of the store that ends it and
        that can be had again (R16), from `registries` or by `access`. It must not have shown anything half
        done to anybody by then."""
        mended: set[Digest] = set()
        while True:
            try:
                return act()
            except (OciError, BuildError) as error:
                aside = self._mended(error, registries, access)
                if aside is None or not aside.is_mended or aside.digest in mended:
                    raise
                mended.add(aside.digest)

    def heal(self, error: BaseException) -> None:
        """Put the damaged blob aside that an error tells of, if it does (R16)."""
        if self._images is None or not isinstance(error, OciError | BuildError):
            return
        from builder.healing import put_aside

        self._told(put_aside(self._images, error))

    def _mended(self, error: Exception, registries: Registries | None, access: Access | None) -> Aside | None:
        """The damaged blob that was the reason, put aside and fetched again where that can be."""
        from builder.healing import damaged, put_aside

        if damaged(error) is None:
            return None
        if registries is not None:
            return self._told(put_aside(self.images, error, registries))
        from builder.events import discard
        from builder.registries import Access, Registries

        access = access or Access(config=self.config)
        with self.state.lease(), Registries(access, self.images, discard) as own:
            return self._told(put_aside(self.images, error, own))

    def _told(self, aside: Aside | None) -> Aside | None:
        if aside is not None:
            from builder.cli.mending import told

            sys.stderr.write(told(aside))
        return aside

    def _tell(self, event: Event) -> None:
        message = getattr(event, "message", "")
        if message:
            sys.stderr.write(f"warning: {message}\n")
