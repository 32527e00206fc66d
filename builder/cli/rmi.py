"""`pybuild rmi`: names and images go; blobs go with the last image that needs them."""

from __future__ import annotations

import sys

import click

from builder.cli import output
from builder.cli.session import Session
from builder.errors import BuildError, NotFound
from oci.errors import OciError


@click.command(
    "rmi", help="Remove images by name (the image goes with its last name) or by id (all its names go)."
)
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-f", "--force", is_flag=True, help="An id with names in several repositories; no error if not there."
)
@click.option("--no-prune", is_flag=True, help="Accepted: there are no unnamed parents.")
@click.pass_obj
def command(session: Session, names: tuple[str, ...], force: bool, no_prune: bool) -> int:
    """Set by the decorator."""
    code = 0
    for name in names:
        try:
            removal = session.images.remove(name, force=force)
        except (BuildError, OciError) as error:
            if not (force and isinstance(error, NotFound)):
                code = max(code, output.report(error))
            continue
        for each in removal.untagged:
            sys.stdout.write(f"Untagged: {each}\n")
        for digest in removal.deleted:
            sys.stdout.write(f"Deleted: {digest}\n")
    return code
