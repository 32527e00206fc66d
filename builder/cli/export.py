"""`pybuild export`: the files of a container, or of an image with its layers merged, as one tar."""

from __future__ import annotations

import gc
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from builder.cli.session import Session
from builder.errors import ExportError, NotFound, UsageError

if TYPE_CHECKING:
    from builder.images import Entry


@click.command(
    "export",
    help="Write a container's files, without what is mounted in it, or an image's, all layers merged, as one "
    "tar archive.",
)
@click.argument("name", metavar="CONTAINER | IMAGE")
@click.option("-o", "--output", "path", metavar="FILE", help="The archive (default: standard output).")
@click.pass_obj
def command(session: Session, name: str, path: str | None) -> None:
    """Set by the decorator."""
    if path is None and os.isatty(1):
        raise UsageError("an archive does not go to a terminal", hint="name a file with -o, or pipe it on")
    ident = _container_of(session, name)
    if ident and _is_named(session, ident, name):
        _container(session, ident, path)
        return
    try:
        entry = session.again(partial(session.images.resolve, name))
    except NotFound as error:
        if not ident:
            raise NotFound(f"no container and no image {name!r}", hint=error.hint) from None
        _container(session, ident, path)
        return
    _image(session, name, entry, path)


def _container_of(session: Session, name: str) -> str:
    """The id of the container that `name` means, "" if it means none."""
    from builder.container.store import Containers

    try:
        return Containers(session.state.root).find(name)
    except NotFound:
        return ""


def _is_named(session: Session, ident: str, word: str) -> bool:
    """Whether a container is named so, or has that id: the beginning of one may be an image's name."""
    from builder.container.store import Containers

    return word == ident or word.removeprefix("/") == Containers(session.state.root).get(ident).name


def _image(session: Session, name: str, entry: Entry, path: str | None) -> None:
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
            leave_onbuild=True,
            outputs=(OutputSpec("tar", path or "-"),),
            root=session.root,
        )
    )


def _container(session: Session, ident: str, path: str | None) -> None:
    from builder.cli.isolating import isolated

    isolated(session, None)
    gc.enable()
    try:
        if path is None:
            sys.stdout.flush()
            _write(session, ident, 1)
            return
        from builder.export.archive import replacing

        with replacing(path) as fd:
            _write(session, ident, fd)
    except BrokenPipeError:
        raise ExportError("the archive is not complete: its reader went away") from None


def _write(session: Session, ident: str, fd: int) -> None:
    from contextlib import closing

    from builder.cli.containing import shown
    from builder.container.copying import write
    from builder.container.files import Files
    from oci.durable import write_all
    from oci.tar import TarWriter

    with session.state.lease(), shown(session, ident, alone=True) as (root, alive):
        with closing(Files(root, b".", b"", looked=alive)) as files:
            write(files, TarWriter(partial(write_all, fd)), top=False)
