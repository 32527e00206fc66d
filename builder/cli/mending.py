"""What people are told of a damaged blob: which, of which image, and what mends it (R16)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cli.text import safe

if TYPE_CHECKING:
    from builder.healing import Aside


def told(aside: Aside) -> str:
    """The warning, and the command that brings the blob back."""
    of = f" of {_listed(aside.names)}" if aside.names else ""
    return (
        f"warning: the blob {aside.digest}{safe(of)} is damaged and was put aside\n"
        f"hint: {safe(_command(aside))}\n"
    )


def _command(aside: Aside) -> str:
    where = _listed(tuple(dict.fromkeys(place.familiar() for place in aside.places)))
    if aside.forgotten and aside.places:
        return f"its name is gone with it; pybuild pull {aside.forgotten[0]} fetches it from {where}"
    if aside.places:
        return f"the same command again takes it from {where}"
    return "no registry is known to have it: build or load the image again, or pull it from where it is"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
