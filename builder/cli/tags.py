"""`pybuild tags`: what a repository of a registry has."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from builder.cli import remote
from builder.cli.session import Session


@click.command("tags", help="List the tags of the repository REPO of a registry.")
@click.argument("name", metavar="REPO")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How.")
@remote.with_access
@click.pass_obj  # fmt: skip
def command(session: Session, /, name: str, form: str, **flags: Any) -> None:
    """Set by the decorator."""
    from builder.registries import connect, told

    reference = remote.reference(name)
    access = remote.asked(session, flags, reference.domain)
    with told(reference), connect(access, remote.warn) as client:
        found = sorted(client.tags(reference))
    if form == "json":
        sys.stdout.write(json.dumps({"Repository": reference.repository, "Tags": found}) + "\n")
    else:
        sys.stdout.write("".join(f"{tag}\n" for tag in found))
