"""`pybuild rm`: containers are removed with all that they wrote."""

from __future__ import annotations

import click

from builder.cli import ending, removing
from builder.cli.isolating import isolated
from builder.cli.session import Session


@click.command("rm", help="Remove containers, with all that they wrote and is not in a volume.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.option(
    "-f", "--force", is_flag=True, help="Running ones too (they are killed); no error if not there."
)
@click.option("-v", "--volumes", is_flag=True, help="Their volumes without a name too.")
@click.pass_obj
def command(session: Session, names: tuple[str, ...], force: bool, volumes: bool) -> int:
    """Set by the decorator."""
    from builder.container.store import Containers
    from builder.errors import NotFound

    isolated(session, None)  # what a container wrote may belong to ids that only its namespace has
    containers = Containers(session.state.root)

    def known(word: str) -> bool:
        try:
            containers.find(word)
        except NotFound:
            return False
        return True

    wanted = [each for each in names if known(each)] if force else names
    return ending.each(
        session, wanted, lambda ident: removing.remove(session, ident, force=force, volumes=volumes)
    )
