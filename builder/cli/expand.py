"""`pybuild expand`: a Dockerfile as other builders read it (D01)."""

from __future__ import annotations

import sys
from typing import Any

import click

from builder.cli import reading
from builder.cli.progress import watching
from builder.cli.session import Session


@click.command(
    "expand",
    help="Print the Dockerfile in PATH (or URL, or -) as one plain file that any builder reads: INCLUDE and "
    "ENV --from-file put in, shell-strict written out.",
)
@click.argument("context", metavar="PATH | URL | -", default=".")
@reading.with_source
@click.pass_obj
def command(session: Session, /, context: str, **flags: Any) -> None:
    """Set by the decorator."""
    from builder.building import BuildRequest
    from builder.checking import expanded

    stdin = sys.stdin.buffer if context == "-" else None
    request = BuildRequest(**reading.source(context, flags), stdin=stdin)
    with watching("plain") as emit:
        text = expanded(request, emit)
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
