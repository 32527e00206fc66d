"""Step keys: what must be equal for a result to be used again (FEATURES.md I07, K01; SECURITY.md S70).

definition key   the op and the keys of its inputs: no file is read
content key      for a Copy: the op, its target's key and checksums of what it copies; the key of the result

A result's key is its content key for a Copy and its definition key for everything else, and is what the
steps on top of it see. A Copy's content key leaves out where the files come from: when a stage is built again
and gives the same files, the copy of them is still a hit.

A `--link` reads nothing of its target: its keys leave the target out, so that its layer is used again on any
base, and `linked_key` says what it lies on for those on top.
"""

from __future__ import annotations

from builder.graph import SEMANTICS, Step, key_of


def definition_key(step: Step, inputs: tuple[str, ...], *, clocked: bool) -> str:
    """The key of `step` as written, on inputs with these keys.

    `clocked` says whether a clock is set; its value is in no key.
    """
    return key_of([SEMANTICS, "definition", clocked, step.op.definition(), inputs])


def content_key(step: Step, target: str, checksums: tuple[str, ...], *, clocked: bool) -> str:
    """The key of a Copy's result: on the target with key `target`, of sources with these checksums."""
    return key_of([SEMANTICS, "content", clocked, step.op.definition(), target, checksums])


def linked_key(layer: str, target: str) -> str:
    """The key of an independent layer, whose own key is `layer`, on the target with key `target`."""
    return key_of([SEMANTICS, "linked", layer, target])


def marked_key(definition: str, marks: tuple[str, ...]) -> str:
    """The key of a definition whose secrets count and have these marks; itself when there are none."""
    return key_of([SEMANTICS, "marked", definition, marks]) if marks else definition


def pinned_key(definition: str, pins: tuple[str, ...]) -> str:
    """The key of a definition whose remote sources now are what `pins` say; itself when there are none."""
    return key_of([SEMANTICS, "pinned", definition, pins]) if pins else definition
