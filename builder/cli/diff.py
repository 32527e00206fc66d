"""`pybuild diff`: what a container changed in its image's files."""

from __future__ import annotations

import os
import sys

import click

from builder.cli.isolating import isolated
from builder.cli.session import Session


@click.command(
    "diff", help="List what a container added to its image's files (A), changed (C) and deleted (D)."
)
@click.argument("word", metavar="CONTAINER")
@click.pass_obj
def command(session: Session, word: str) -> None:
    """Set by the decorator."""
    from builder.cli.containing import held
    from builder.container.changed import changed

    isolated(session, None)
    with session.state.lease(), held(session, word) as here:
        rows = changed(here.written)
    out = sys.stdout.buffer
    for kind, path in rows:
        out.write(os.fsencode(f"{kind} /") + path + b"\n")
