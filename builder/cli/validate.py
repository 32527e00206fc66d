"""`pybuild validate`: is an image what it says it is?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import click

from builder.cli import text
from builder.cli.session import Session
from builder.errors import UsageError
from oci.layout import Layout, name_of
from oci.model import Descriptor


@click.command(
    "validate",
    help="Check an image of the store, a layout (a directory) or an archive (a file).",
)
@click.argument("name", metavar="IMAGE | DIR | FILE")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to show findings."
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing: the exit code tells.")
@click.pass_obj
def command(session: Session, name: str, form: str, quiet: bool) -> int:
    """Set by the decorator."""
    from oci.validate import validate

    findings: list[tuple[str, str]] = []
    count = 0
    with _layout(session, name) as (layout, descriptors):
        for descriptor in descriptors:
            count += 1
            shown = name_of(descriptor) or str(descriptor.digest)
            findings += [(shown, str(each)) for each in validate(layout, descriptor)]
    if not quiet:
        _show(findings, count, form)
    return 1 if findings else 0


def _show(findings: list[tuple[str, str]], count: int, form: str) -> None:
    if form == "json":
        import json

        sys.stdout.write(json.dumps([{"image": image, "finding": what} for image, what in findings]) + "\n")
        return
    for image, what in findings:
        sys.stdout.write(f"{text.safe(image)}: {text.safe(what)}\n")
    if not findings:
        sys.stdout.write(f"{count} image{'' if count == 1 else 's'}: nothing found\n")


@contextmanager
def _layout(session: Session, name: str) -> Iterator[tuple[Layout, tuple[Descriptor, ...]]]:
    """Where the images are that `name` means, and which. What exists as a path is one."""
    if os.path.isdir(name):
        layout = Layout.open(name)
        yield layout, _some(layout.descriptors(), name)
    elif os.path.isfile(name):
        with TemporaryDirectory(prefix="pybuild-validate-") as directory:
            from oci.archive import read_archive

            layout = Layout.create(directory)
            with open(name, "rb") as stream:
                found = read_archive(stream, layout.blobs)
            yield layout, tuple(each.descriptor for each in found)
    else:
        entry = session.images.resolve(name)
        session.complete(entry.descriptor)
        yield session.images.layout, (entry.descriptor,)


def _some(descriptors: tuple[Descriptor, ...], name: str) -> tuple[Descriptor, ...]:
    if not descriptors:
        raise UsageError(f"the layout {name!r} names no images")
    return descriptors
