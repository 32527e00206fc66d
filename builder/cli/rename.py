"""`pybuild rename`: a container's other name."""

from __future__ import annotations

import click

from builder.cli.session import Session


@click.command("rename", help="Give a container another name.")
@click.argument("name", metavar="CONTAINER")
@click.argument("new", metavar="NAME")
@click.pass_obj
def command(session: Session, name: str, new: str) -> None:
    """Set by the decorator."""
    from builder.container.store import Containers

    containers = Containers(session.state.root)
    containers.rename(containers.find(name), new.removeprefix("/"))
