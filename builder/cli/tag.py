"""`pybuild tag`: one more name for an image."""

from __future__ import annotations

import click

from builder.cli.session import Session
from oci.reference import Reference


@click.command("tag", help="Let NAME[:TAG] mean the image that SOURCE (a name or an id) means.")
@click.argument("source")
@click.argument("name", metavar="NAME[:TAG]")
@click.pass_obj
def command(session: Session, source: str, name: str) -> None:
    """Set by the decorator."""
    target = Reference.parse(name)
    session.images.tag(target, session.images.resolve(source).descriptor)
