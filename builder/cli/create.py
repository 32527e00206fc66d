"""`pybuild create`: a container that is not started yet."""

from __future__ import annotations

import gc
import sys
from typing import Any

import click

from builder.cli import creating, limits
from builder.cli.isolating import isolated
from builder.cli.session import Session


@click.command(
    "create",
    help="Make a container of IMAGE without starting it, and print its id.",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("image", metavar="IMAGE")
@click.argument("args", nargs=-1, metavar="[ARG...]", type=click.UNPROCESSED)
@creating.options
@click.help_option("--help")
@click.pass_obj
def command(session: Session, /, image: str, args: tuple[str, ...], **flags: Any) -> None:
    """Set by the decorator."""
    from builder.cli import starting

    limits.enter_scope(flags)
    gc.enable()
    isolated(session, flags["isolation"])
    with starting.ready(session, image, flags) as ready:
        container = starting.created(session, image, ready, args, flags)
    sys.stdout.write(container.id + "\n")
