"""`pybuild restart`: containers end and begin again."""

from __future__ import annotations

import gc

import click

from builder.cli import ending, start
from builder.cli.isolating import ISOLATION, isolated
from builder.cli.session import Session


@click.command("restart", help="Stop containers and start them again.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.option(
    "-t", "--time", "--timeout", "seconds", type=float, metavar="SECONDS",
    help="How long to wait before SIGKILL (default: the container's, 10); -1 for ever.",
)  # fmt: skip
@click.option("-s", "--signal", "name", metavar="SIGNAL", help="Send this one first.")
@ISOLATION
@click.pass_obj
def command(
    session: Session, names: tuple[str, ...], seconds: float | None, name: str | None, isolation: str | None
) -> int:
    """Set by the decorator."""
    from builder.container import lifecycle
    from builder.container.signals import number_of

    number = number_of(name) if name else 0
    gc.enable()
    isolated(session, isolation)

    def again(ident: str) -> None:
        lifecycle.stop(session.state, ident, timeout_s=seconds, number=number)
        start.again(session, ident)

    return ending.each(session, names, again)
