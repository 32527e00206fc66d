"""What one step gets to see beyond its root: the border between who makes mounts ready and who runs."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from oci.data import dataclass

if TYPE_CHECKING:
    from builder.sandbox.spec import Mount


@dataclass(frozen=True, slots=True)
class Shown:
    """Mounts in the order in which they are made, more variables, which may hold secrets, and more groups."""

    mounts: tuple[Mount, ...] = ()
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    groups: tuple[int, ...] = ()


NOTHING = Shown()
