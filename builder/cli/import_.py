"""`pybuild import`: a root file system in a tar becomes an image."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import BinaryIO

import click

from builder.cli import composing
from builder.cli.session import Session
from builder.errors import UsageError
from oci.errors import OciError
from oci.reference import Reference


@click.command("import", help="Make an image from a tar archive of a root file system (- is standard input).")
@click.argument("source", metavar="FILE | -")
@click.argument("name", required=False, metavar="[NAME[:TAG]]")
@composing.CHANGES
@composing.MESSAGE
@click.option("--platform", metavar="OS/ARCH", help="What it runs on (default: this machine).")
@click.pass_obj  # fmt: skip
def command(
    session: Session,
    source: str,
    name: str | None,
    changes: tuple[str, ...],
    message: str,
    platform: str | None,
) -> None:
    """Set by the decorator."""
    from builder.imports import import_rootfs
    from oci import platforms

    reference = Reference.parse(name) if name else None
    created, _ = composing.clock()
    with session.state.lease(), opened(source) as stream:
        descriptor = import_rootfs(
            stream,
            session.images.layout.blobs,
            platform=platforms.parse(platform or "local"),
            created=created,
            changes=changes,
            message=message or f"imported from {source}",
        )
        composing.keep(session, descriptor, reference)
    composing.tell(session, descriptor)


@contextmanager
def opened(source: str) -> Iterator[BinaryIO]:
    """A file to read, or standard input for `-`. What is wrong with its bytes is told with its name."""
    if "://" in source:
        raise UsageError(f"{source!r}: reading from URLs is not there yet", hint="download it first")
    if source == "-" and os.isatty(0):
        raise UsageError("standard input is a terminal; pipe an archive into it or name a file")
    with nullcontext(sys.stdin.buffer) if source == "-" else open(source, "rb") as stream:
        try:
            yield stream
        except OciError as error:
            shown = "standard input" if source == "-" else source
            raise type(error)(f"{shown}: {error}") from error
