"""`pybuild kill`: a signal for containers."""

from __future__ import annotations

import click

from builder.cli import ending
from builder.cli.session import Session


@click.command("kill", help="Send a signal to the first process of running containers.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.option("-s", "--signal", "name", default="KILL", metavar="SIGNAL", help="Which one (default: KILL).")
@click.pass_obj
def command(session: Session, names: tuple[str, ...], name: str) -> int:
    """Set by the decorator."""
    from builder.container import lifecycle
    from builder.container.signals import number_of

    number = number_of(name)
    return ending.each(session, names, lambda ident: lifecycle.kill(session.state, ident, number))
