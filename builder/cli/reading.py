"""Options of all commands that read a Dockerfile."""

from __future__ import annotations

import click

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
