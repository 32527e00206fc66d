"""`pybuild commit`: an image of what a container wrote."""

from __future__ import annotations

import gc

import click

from builder.cli import composing
from builder.cli.isolating import isolated
from builder.cli.session import Session
from oci.reference import Reference


@click.command("commit", help="Make an image of what a container wrote, on top of its own image.")
@click.argument("word", metavar="CONTAINER")
@click.argument("name", required=False, metavar="[REPOSITORY[:TAG]]")
@click.option("-a", "--author", default="", metavar="TEXT", help="Who made it, e.g. 'Ada <ada@example.org>'.")
@composing.CHANGES
@composing.MESSAGE
@click.option(
    "-p", "--pause/--no-pause", "pause", default=True, help="Stop its processes meanwhile (default)."
)
@click.pass_obj
def command(
    session: Session,
    word: str,
    name: str | None,
    author: str,
    changes: tuple[str, ...],
    message: str,
    pause: bool,
) -> None:
    """Set by the decorator."""
    from builder.cli.containing import held
    from builder.container.commit import commit
    from builder.container.volumes import Volumes
    from builder.imports import changed

    reference = Reference.parse(name).with_default_tag() if name else None
    unnamed = Volumes(session.state.root)
    created, clock = composing.clock()
    gc.enable()
    isolated(session, None)
    with session.state.lease(), held(session, word, pause=pause) as here:
        session.complete(here.entry.image.descriptor)
        descriptor = commit(
            here.written,
            here.container,
            here.entry.image,
            session.images.layout.blobs,
            created=created,
            clock=clock,
            changed=lambda image: changed(image, changes),
            author=author,
            message=message,
            volumes=tuple(
                each.target
                for each in here.container.request.volumes
                if each.kind == "volume" and unnamed.is_anonymous(each.source)
            ),
        )
        composing.keep(session, descriptor, reference)
    composing.tell(session, descriptor)
