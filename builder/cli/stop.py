"""`pybuild stop`: containers are asked to end, and made to after a while."""

from __future__ import annotations

import click

from builder.cli import ending
from builder.cli.session import Session


@click.command("stop", help="End running containers: their stop signal first, SIGKILL after a while.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.option(
    "-t", "--time", "--timeout", "seconds", type=float, metavar="SECONDS",
    help="How long to wait before SIGKILL (default: the container's, 10); -1 for ever.",
)  # fmt: skip
@click.option("-s", "--signal", "name", metavar="SIGNAL", help="Send this one first.")
@click.pass_obj
def command(session: Session, names: tuple[str, ...], seconds: float | None, name: str | None) -> int:
    """Set by the decorator."""
    from builder.container import lifecycle
    from builder.container.signals import number_of

    number = number_of(name) if name else 0
    return ending.each(
        session, names, lambda ident: lifecycle.stop(session.state, ident, timeout_s=seconds, number=number)
    )
