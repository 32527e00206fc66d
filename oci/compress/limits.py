"""How much an archive may ask of us before it is taken for an attack."""

from __future__ import annotations

from oci.data import dataclass
from oci.errors import LimitExceeded


@dataclass(frozen=True, slots=True)
class Limits:
    """How much an archive may ask of us. Sizes are in bytes.

    `ratio` (content to compressed bytes) counts only beyond `slack` bytes of content, since a small layer
    may well be one zero-filled file; deflate's best is 1032, so a bomb is met at `slack` and cannot fill a
    disk.
    """

    total: int = 1 << 40
    ratio: int = 250
    slack: int = 2 << 30
    entries: int = 10_000_000
    depth: int = 256
    name: int = 4096
    record: int = 1 << 20
    """The most an extended header (pax, GNU long name, sparse map) may hold."""

    def check_name(self, name: bytes) -> None:
        """Raise LimitExceeded for a path that is too long or too deep."""
        shown = name[:60].decode(errors="replace")
        if len(name) > self.name:
            raise LimitExceeded(f"a path of {len(name)} bytes ({shown}...); the limit is {self.name}")
        if name.count(b"/") >= self.depth:
            raise LimitExceeded(f"{shown}... lies deeper than {self.depth} directories")

    def check_size(self, content: int, compressed: int) -> None:
        """Raise LimitExceeded when `content` bytes are too many to have come from `compressed` ones."""
        if content > self.total:
            raise LimitExceeded(f"the content is larger than {self.total} bytes")
        if content > self.slack and content > self.ratio * compressed:
            raise LimitExceeded(
                f"{compressed} compressed bytes gave more than {content}; beyond {self.ratio} to 1 "
                "this is taken for a bomb"
            )


DEFAULT_LIMITS = Limits()
NO_LIMITS = Limits(total=1 << 62, ratio=1 << 40)
"""For layers we wrote ourselves."""
