"""`pybuild export`: the files of an image, layers merged, as one tar."""

from __future__ import annotations

import os
from functools import partial

import click

from builder.cli.session import Session
from builder.errors import UsageError


@click.command("export", help="Write an image's files, all layers merged, as one tar archive.")
@click.argument("name", metavar="IMAGE")
@click.option("-o", "--output", "path", metavar="FILE", help="The archive (default: standard output).")
@click.pass_obj
def command(session: Session, name: str, path: str | None) -> None:
    """Set by the decorator."""
    if path is None and os.isatty(1):
        raise UsageError("an archive does not go to a terminal", hint="name a file with -o, or pipe it on")
    entry = session.again(partial(session.images.resolve, name))
    if not entry.names:
        raise UsageError(f"the image {name!r} has no name", hint=f"pybuild tag {name} NAME")
    from builder.building import BuildRequest, build
    from builder.export.base import OutputSpec
    from builder.registries import Access

    build(
        BuildRequest(
            access=Access(config=session.config),
            dockerfile="-",
            dockerfile_text=f"FROM {entry.names[0]}\n".encode(),
            platforms=(str(entry.image.platform),),
            outputs=(OutputSpec("tar", path or "-"),),
            root=session.root,
        )
    )
