"""`pybuild save`: images into one archive."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

import click

from builder.cli.session import Session
from builder.errors import ExportError, UsageError
from builder.images import Entry
from oci.errors import InvalidReference
from oci.reference import Reference

if TYPE_CHECKING:
    from oci.model import Platform


@click.command("save", help="Write images to an archive that docker load, podman load and OCI tools read.")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-o", "--output", "path", metavar="FILE", help="The archive (default: standard output).")
@click.option(
    "--platform", metavar="OS/ARCH", help="Of an index only the image for this (default: all that is here)."
)
@click.pass_obj
def command(session: Session, names: tuple[str, ...], path: str | None, platform: str | None) -> None:
    """Set by the decorator."""
    from oci import platforms

    if path is None and os.isatty(1):
        raise UsageError("an archive does not go to a terminal", hint="name a file with -o, or pipe it on")
    wanted = platforms.parse(platform) if platform else None
    session.again(partial(_save, session, names, path, wanted))


def _save(session: Session, names: tuple[str, ...], path: str | None, wanted: Platform | None) -> None:
    """Write the archive. Raises OciError for what is damaged; then nothing of it is to be seen."""
    from oci.archive import Named, write_archive

    entries = [(name, _chosen(session, name, wanted)) for name in names]
    session.complete(*(entry.descriptor for _, entry in entries))
    what = [Named(entry.descriptor, _names(text, entry)) for text, entry in entries]
    blobs = session.images.layout.blobs
    try:
        if path is None:
            sys.stdout.flush()
            write_archive(what, blobs, 1, docker=True)
            return
        from builder.export.archive import replacing

        with replacing(path) as fd:
            write_archive(what, blobs, fd, docker=True)
    except BrokenPipeError:
        raise ExportError("the archive is not complete: its reader went away") from None


def _chosen(session: Session, name: str, platform: Platform | None) -> Entry:
    entry = session.images.resolve(name)
    return session.images.choose(entry, platform) if platform else entry


def _names(text: str, entry: Entry) -> tuple[Reference, ...]:
    """The names to save under: the one that was asked for; all of them for an id."""
    try:
        asked = Reference.parse(text).with_default_tag()
    except InvalidReference:
        return entry.names
    return (asked,) if asked in entry.names else entry.names
