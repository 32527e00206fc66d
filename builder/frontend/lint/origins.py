"""What FROM names: L09, L14, L15, L17, L18."""

from __future__ import annotations

from collections.abc import Iterator

from builder.frontend import instructions as ins
from builder.frontend.bases import Resolved
from builder.frontend.lint.nearest import nearest
from builder.frontend.lint.rules import Found
from builder.frontend.lint.scene import File
from builder.frontend.quoting import quote
from oci import platforms
from oci.errors import InvalidPlatform, InvalidReference
from oci.reference import Reference


def undefined_arg_in_from(file: File) -> Iterator[Found]:
    declared = file.declared()
    for head in file.lines(ins.From):
        for word in (head.base, head.platform):
            for name in sorted(file.expanded(word, file.args).missing - declared):
                near = nearest(name, sorted(declared))
                advice = f" (did you mean {near}?)" if near else ""
                yield Found(f"FROM argument '{name}' is not declared{advice}", head.at)


def invalid_default_arg_in_from(file: File) -> Iterator[Found]:
    """Whether the file builds without any build argument. A base without variables is no default's fault."""
    for head in file.lines(ins.From):
        if "$" not in head.base or file.defaults is None:
            continue
        try:
            Reference.parse(file.expanded(head.base, file.defaults).text)
        except InvalidReference:
            message = f"Default value for ARG {head.base} results in empty or invalid base image name"
            yield Found(message, head.at)


def redundant_target_platform(file: File) -> Iterator[Found]:
    for head in file.lines(ins.From):
        expansion = file.expanded(head.platform, file.args)
        if (
            expansion.used == {"TARGETPLATFORM"}
            and not expansion.missing
            and expansion.text == file.args["TARGETPLATFORM"]
        ):
            message = (
                f"Setting platform to predefined {head.platform} in FROM is redundant as this is the default"
            )
            yield Found(f"{message} behavior", head.at)


def from_platform_flag_const_disallowed(file: File) -> Iterator[Found]:
    """Unless the stage's name tells of the platform: then there may be one stage for each."""
    for head in file.lines(ins.From):
        expansion = file.expanded(head.platform, file.args)
        if not head.platform or expansion.used or expansion.missing:
            continue
        try:
            platform = platforms.parse(expansion.text)
        except InvalidPlatform:
            continue
        if platform.os not in head.name and platform.architecture not in head.name:
            message = f"FROM --platform flag should not use constant value {quote(expansion.text)}"
            yield Found(message, head.at)


def invalid_base_image_platform(base: Resolved) -> Iterator[Found]:
    wanted, found = platforms.normalise(base.wanted), platforms.normalise(base.image.platform)
    if (wanted.os, wanted.architecture) != (found.os, found.architecture):
        pulled = f'Base image {base.name} was pulled with platform "{found}"'
        yield Found(f'{pulled}, expected "{wanted}" for current build', base.at)
