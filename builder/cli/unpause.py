"""`pybuild unpause`: containers whose processes are unpaused."""

from __future__ import annotations

import click

from builder.cli import ending
from builder.cli.session import Session


@click.command("unpause", help="Let go on all processes of containers.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.pass_obj
def command(session: Session, names: tuple[str, ...]) -> int:
    """Set by the decorator."""
    from builder.container import lifecycle

    def act(ident: str) -> None:
        lifecycle.ask(session.state, ident, do="unpause")

    return ending.each(session, names, act)
