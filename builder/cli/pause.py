"""`pybuild pause`: containers whose processes are paused."""

from __future__ import annotations

import click

from builder.cli import ending
from builder.cli.session import Session


@click.command("pause", help="Stop all processes of containers.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.pass_obj
def command(session: Session, names: tuple[str, ...]) -> int:
    """Set by the decorator."""
    from builder.container import lifecycle

    def act(ident: str) -> None:
        lifecycle.ask(session.state, ident, do="pause")

    return ending.each(session, names, act)
