"""`pybuild load`: images out of an archive, of `docker save` or an OCI layout in a tar."""

from __future__ import annotations

import sys

import click

from builder.cli.import_ import opened
from builder.cli.session import Session


@click.command(
    "load", help="Load images from an archive that docker save, pybuild save or an OCI tool wrote."
)
@click.option(
    "-i", "--input", "source", default="-", metavar="FILE", help="The archive (default: standard input)."
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing.")
@click.pass_obj
def command(session: Session, source: str, quiet: bool) -> None:
    """Set by the decorator."""
    from oci.archive import read_archive

    with session.state.lease(), opened(source) as stream:
        lines = []
        for found in read_archive(stream, session.images.layout.blobs):
            for name in found.names:
                session.images.tag(name, found.descriptor)
                lines.append(f"Loaded image: {name.with_default_tag().familiar()}\n")
            if not found.names:
                session.images.keep(found.descriptor)
                lines.append(f"Loaded image ID: {session.images.for_platform(found.descriptor).id}\n")
    if not quiet:
        sys.stdout.write("".join(lines))
