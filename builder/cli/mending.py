"""What people are told of a damaged blob: which, of which image, and what mends it (R16)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from builder.cli.text import safe

if TYPE_CHECKING:
    from builder.healing import Aside


def told(aside: Aside) -> str:
    """The warning; where it came from again, or the command that brings it back."""
    of = f" of {_listed(aside.names)}" if aside.names else ""
    text = f"warning: the blob {aside.digest}{safe(of)} is damaged and was put aside"
    if aside.source is not None:
        return f"{text}; it was fetched again from {safe(aside.source.familiar())}\n"
    refusal = f"; {safe(aside.refusal)}" if aside.refusal else ""
    return f"{text}{refusal}\nhint: {safe(_command(aside))}\n"


def _command(aside: Aside) -> str:
    where = _listed(tuple(dict.fromkeys(place.familiar() for place in aside.places)))
    if aside.forgotten and aside.places:
        return f"its name is gone with it; pybuild pull {aside.forgotten[0]} fetches it from {where}"
    if aside.places:
        return f"the same command again takes it from {where}"
    lost = f"; {_listed(aside.forgotten)} is no name any more" if aside.forgotten else ""
    return (
        f"no registry is known to have it: build or load the image again, or pull it from where it is{lost}"
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
