"""What a container of the image will do: L07, L10, L12, L21, L22."""

from __future__ import annotations

from collections.abc import Iterator

from builder.frontend import instructions as ins
from builder.frontend.lint.rules import Found
from builder.frontend.lint.scene import Moment, keyword
from builder.frontend.quoting import quote


def json_args_recommended(moment: Moment) -> Iterator[Found]:
    """A SHELL was chosen by somebody who knows that one runs."""
    line = moment.line
    if isinstance(line, ins.Cmd | ins.Entrypoint) and line.command.shell and not moment.shell:
        purpose = "to prevent unintended behavior related to OS signals"
        yield Found(f"JSON arguments recommended for {keyword(line)} {purpose}", line.at)


def multiple_instructions_disallowed(moment: Moment) -> Iterator[Found]:
    """The earlier one is told: it is the one that has no effect."""
    earlier = moment.earlier.get(type(moment.line))
    if earlier is not None:
        message = f"Multiple {keyword(moment.line)} instructions should not be used in the same stage"
        yield Found(f"{message} because only the last one will be used", earlier.at)


def workdir_relative_path(moment: Moment) -> Iterator[Found]:
    """Only the first WORKDIR of a stage and those below it: the others are relative to that one."""
    line = moment.line
    if isinstance(line, ins.Workdir) and not moment.workdir_set:
        path = moment.expand(line.path)
        if not path.startswith("/"):
            message = f"Relative workdir {quote(path)} can have unexpected results if the base image changes"
            yield Found(message, line.at)


def expose_proto_casing(moment: Moment) -> Iterator[Found]:
    for port in _ports(moment):
        protocol = port.rpartition(":")[2].partition("/")[2]
        if protocol != protocol.lower():
            yield Found(
                f"Defined protocol '{port}' in EXPOSE instruction should be lowercase", moment.line.at
            )


def expose_invalid_format(moment: Moment) -> Iterator[Found]:
    for port in _ports(moment):
        if port.rpartition(":")[0]:
            message = "EXPOSE instruction should not define an IP address or host-port mapping, found"
            yield Found(f"{message} '{port}'", moment.line.at)


def _ports(moment: Moment) -> list[str]:
    line = moment.line
    words = line.ports if isinstance(line, ins.Expose) else ()
    return [port for word in words for port in moment.process(word).words]
