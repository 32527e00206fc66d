"""What `import` and `commit` have in common: an image that no Dockerfile describes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from builder.cli import values
from builder.cli.session import Session

if TYPE_CHECKING:
    from oci.model import Descriptor
    from oci.reference import Reference

CHANGES = click.option(
    "-c",
    "--change",
    "changes",
    multiple=True,
    metavar="INSTRUCTION",
    help="A Dockerfile line for the config, e.g. 'CMD [\"sh\"]'; repeatable.",
)
MESSAGE = click.option("-m", "--message", default="", metavar="TEXT", help="For the image's history.")


def clock() -> tuple[str, int | None]:
    """When the image is made (RFC 3339), and SOURCE_DATE_EPOCH if that says so."""
    from builder.solver.cache import at_clock, now

    epoch = values.clock(None, {}, "")
    return now() if epoch is None else at_clock(epoch), epoch


def keep(session: Session, descriptor: Descriptor, reference: Reference | None) -> None:
    """Have the store know the image, by a name if it has one. Its lease is still held."""
    if reference:
        session.images.tag(reference, descriptor)
    else:
        session.images.keep(descriptor)


def tell(session: Session, descriptor: Descriptor) -> None:
    """Print its id."""
    sys.stdout.write(f"{session.images.for_platform(descriptor).id}\n")
