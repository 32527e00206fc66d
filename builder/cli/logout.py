"""`pybuild logout`: forget a registry's credentials."""

from __future__ import annotations

import sys

import click

from builder.cli import remote
from builder.cli.session import Session


@click.command("logout", help="Forget the credentials of the registry HOST (default: Docker Hub).")
@click.argument("host", required=False, default="", metavar="[HOST[:PORT]]")
@remote.AUTHFILE
@click.pass_obj
def command(session: Session, host: str, authfile: str) -> None:
    """Set by the decorator."""
    from builder.registries import told
    from oci.reference import Reference
    from oci.registry.auth import CredentialStore

    where = remote.host_of(host)
    with told(Reference(where, "some/image")):
        known = CredentialStore.default(authfile).erase(where)
    sys.stdout.write(f"Removed login credentials for {where}\n" if known else f"Not logged in to {where}\n")
