"""`pybuild wait`: until containers have ended."""

from __future__ import annotations

import click

from builder.cli import ending
from builder.cli.session import Session


@click.command("wait", help="Wait until containers have ended, and print their exit codes.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.pass_obj
def command(session: Session, names: tuple[str, ...]) -> int:
    """Set by the decorator."""
    from builder.container import lifecycle

    return ending.each(session, names, lambda ident: str(lifecycle.wait(session.state, ident)))
