"""Options of all commands that read a Dockerfile."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import click

from builder.cli import values

Command = Callable[..., Any]

DOCKERFILE = click.option(
    "-f",
    "--file",
    "dockerfile",
    default="",
    metavar="FILE",
    help="The Dockerfile (default: PATH/Dockerfile).",
)
IGNOREFILE = click.option(
    "--ignorefile", default="", metavar="FILE", help="Use FILE in place of .dockerignore."
)
ENABLE = click.option(
    "--enable", multiple=True, metavar="EXTENSION,...", help="Extensions: include, env-file, shell-strict."
)
_STRICT = click.option("--shell-strict", is_flag=True, help="End a RUN heredoc at its first failure.")
_BUILD_ARG = click.option(
    "--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="Set an ARG, as in the build."
)
_PLATFORM = click.option(
    "--platform", multiple=True, metavar="OS/ARCH,...", help="As in the build (default: this machine)."
)


class Reading(TypedDict):
    """What of a BuildRequest says which Dockerfile is read, and how."""

    context: str
    dockerfile: str
    dockerfile_text: bytes
    ignorefile: str
    build_args: dict[str, str]
    platforms: tuple[str, ...]
    enable: frozenset[str]


def with_source(command: Command) -> Command:
    """Add the options by which a Dockerfile is read and understood, without building it."""
    return DOCKERFILE(IGNOREFILE(_BUILD_ARG(_PLATFORM(ENABLE(_STRICT(command))))))


def source(context: str, flags: Mapping[str, Any]) -> Reading:
    """What these options say. Raises UsageError."""
    dockerfile = flags["dockerfile"]
    return Reading(
        context=context,
        dockerfile=dockerfile,
        dockerfile_text=sys.stdin.buffer.read() if dockerfile == "-" else b"",
        ignorefile=flags["ignorefile"],
        build_args=values.variables("--build-arg", flags["build_args"]),
        platforms=values.words(flags["platform"]),
        enable=values.extensions(flags["enable"], flags["shell_strict"]),
    )
