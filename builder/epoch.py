"""The clock of a build that nobody gave seconds for (O09): a global `ARG SOURCE_DATE_EPOCH=...` of the
Dockerfile, or `SOURCE_DATE_EPOCH=context`, the moment that the context carries.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from builder import planning
from builder.errors import DockerfileError, UsageError
from builder.events import Emit, Note, discard, stamp

if TYPE_CHECKING:
    from builder.inputs import Inputs
    from builder.request import BuildRequest

ARGUMENT, CONTEXT = "SOURCE_DATE_EPOCH", "context"


def seconds(name: str, value: str) -> int:
    """A moment in seconds since 1970, as people write it; `name` is where. Raises UsageError."""
    if not re.fullmatch(r"\d{1,11}", value):
        raise UsageError(
            f"{name} {value!r} is no time in seconds since 1970",
            hint=f"e.g. $(date +%s), or {CONTEXT} for the time of a repository or URL",
        )
    return int(value)


def settled(request: BuildRequest, inputs: Inputs, emit: Emit) -> BuildRequest:
    """`request` with the clock that its build arguments or its Dockerfile ask for. Raises BuildError."""
    if request.clock is not None:
        return request
    value = request.build_args.get(ARGUMENT)
    if value is None:
        value = _default(request, inputs)
    if not value:
        return request
    if value != CONTEXT:
        return replace(request, clock=seconds(ARGUMENT, value))
    others = {name: each for name, each in request.build_args.items() if name != ARGUMENT}
    clock = inputs.moment()
    if clock is None:
        text = f"{ARGUMENT}={CONTEXT} has no effect: only repositories and URLs have a time of their own"
        emit(Note(f"{text} (--timestamp commit takes that of a checkout)", stamp()))
    return replace(request, clock=clock, build_args=others)


def _default(request: BuildRequest, inputs: Inputs) -> str:
    """What an ARG before the first FROM says; "" for none."""
    source = inputs.dockerfile()
    if ARGUMENT not in source.text:
        return ""
    from builder.frontend.lower import global_arg

    try:
        return global_arg(source, planning.plan_options(request, inputs, discard), ARGUMENT)
    except DockerfileError:
        return ""  # planning tells it, with the warnings before it
