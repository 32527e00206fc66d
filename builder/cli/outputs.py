"""What `-o`, `--push` and `--format` ask for: outputs, and annotations in them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from builder.export.base import OutputSpec

_IMAGES = ("image", "registry", "oci", "docker")
_ANNOTATION = "annotation"


def wanted(flags: dict[str, Any]) -> tuple[OutputSpec, ...]:
    """The outputs. `--push` makes an image that is one of them be pushed, or adds a registry. Raises
    UsageError."""
    found = [_without_annotations(each) for each in _parsed(flags)]
    if flags["push"] and not any(each.type in ("image", "registry") for each in found):
        from builder.export.base import OutputSpec

        found.append(OutputSpec("registry"))
    if flags["push"]:
        found = [_with(each, "push", "true") if each.type == "image" else each for each in found]
    if flags["form"] != "docker":
        return tuple(found)
    if not any(each.type in _IMAGES for each in found):
        sys.stderr.write("note: --format docker is for what -o and --push write: the store has OCI's types\n")
    return tuple(_with(each, "oci-mediatypes", "false") if each.type in _IMAGES else each for each in found)


def annotated(flags: dict[str, Any]) -> Iterator[str]:
    """BuildKit's `annotation[-TYPE][[PLATFORM]].KEY=VALUE` of outputs, in the form of `--annotation`."""
    for spec in _parsed(flags):
        for name, value in spec.options.items():
            head, dot, key = name.partition(".")
            if not _is_annotation(spec, name) or not dot:
                continue
            place, bracket, platform = head.partition("[")
            kind = place.removeprefix(_ANNOTATION).removeprefix("-") or "manifest"
            yield f"{kind}{bracket}{platform}:{key}={value}"


def _parsed(flags: dict[str, Any]) -> list[OutputSpec]:
    from builder.export.base import OutputSpec

    return [OutputSpec.parse(each) for each in flags["outputs"]]


def _without_annotations(spec: OutputSpec) -> OutputSpec:
    options = {name: value for name, value in spec.options.items() if not _is_annotation(spec, name)}
    return replace(spec, options=options)


def _is_annotation(spec: OutputSpec, name: str) -> bool:
    return spec.type in _IMAGES and name.startswith((f"{_ANNOTATION}.", f"{_ANNOTATION}-", f"{_ANNOTATION}["))


def _with(spec: OutputSpec, name: str, value: str) -> OutputSpec:
    """`spec` with an option, unless it says otherwise itself."""
    return replace(spec, options={name: value, **spec.options})
