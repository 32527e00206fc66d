"""Files of several platforms side by side: a folder for each, `linux_arm64`, or all in one (O03)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from builder.errors import ExportError
from oci.tar import Kind

if TYPE_CHECKING:
    from builder.export.base import Export, One, OutputSpec
    from oci.model import Platform

OPTION = "platform-split"


def asked(spec: OutputSpec) -> bool | None:
    """Whether the output is to have folders; None leaves it to the image. Raises UsageError."""
    return spec.flag(OPTION, True) if OPTION in spec.options else None


def folder(platform: Platform) -> str:
    """The name of a platform's folder, as BuildKit has it."""
    return str(platform).replace("/", "_")


def folders(what: Export, split: bool | None) -> list[tuple[One, str]]:
    """The images of an export, each with the folder it goes to; "" is the top.

    An index is split unless `split` says otherwise. Raises ExportError when files of two platforms would
    have to be in one place.
    """
    if what.is_index if split is None else split:
        return [(one, folder(one.platform)) for one in what.images]
    if len(what.images) > 1:
        _refuse_collisions(what)
    return [(one, "") for one in what.images]


def placed(whats: Iterable[Export], split: bool | None) -> list[tuple[One, str]]:
    """The images of several exports, each with its folder: that of its stage, then that of its platform."""
    return [
        (one, "/".join(part for part in (what.folder, name) if part))
        for what in whats
        for one, name in folders(what, split)
    ]


def _refuse_collisions(what: Export) -> None:
    seen: dict[bytes, tuple[Platform, bool]] = {}
    for one in what.images:
        with one.view() as view:
            for path, node in view.walk():
                directory = node.kind is Kind.DIRECTORY
                other, both = seen.setdefault(path, (one.platform, directory))
                if other != one.platform and not (directory and both):
                    raise ExportError(
                        f"{other} and {one.platform} both have /{path.decode(errors='replace')}",
                        hint=f"leave out {OPTION}=false: each platform then gets a folder of its own",
                    )
