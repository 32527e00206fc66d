"""`pybuild copy`: images from one place to another."""

from __future__ import annotations

import gc
import sys
from contextlib import ExitStack
from functools import partial
from typing import Any

import click

from builder.cli import remote
from builder.cli.session import Session


@click.command(
    "copy",
    help="Copy the image or index SRC to DST: [docker://]NAME, store:NAME, oci:DIR[:TAG], "
    "oci-archive:FILE[:NAME], docker-archive:FILE[:NAME], dir:DIR. Between registries nothing is stored.",
)
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@click.option("--platform", metavar="OS/ARCH", help="Of an index only this (default: all of it).")
@remote.QUIET
@remote.AUTHFILE
@remote.CREDS
@click.option("--src-creds", default="", metavar="USER[:PASSWORD]", help="For the registry of SRC.")
@click.option("--dest-creds", default="", metavar="USER[:PASSWORD]", help="For the registry of DST.")
@remote.CERT_DIR
@click.option("--src-cert-dir", default="", metavar="DIR", help="--cert-dir for the registry of SRC.")
@click.option("--dest-cert-dir", default="", metavar="DIR", help="--cert-dir for the registry of DST.")
@remote.TLS_VERIFY
@click.pass_obj  # fmt: skip
def command(session: Session, /, source: str, target: str, **flags: Any) -> None:
    """Set by the decorator."""
    from builder.places import Copying, Place
    from builder.registries import Registries
    from oci import platforms

    here, there = Place.parse(source), Place.parse(target)
    wanted = platforms.parse(flags["platform"]) if flags["platform"] else None
    access = [
        remote.asked(
            session,
            {**flags, **{name: flags[f"{end}_{name}"] or flags[name] for name in ("creds", "cert_dir")}},
            *((place.reference.domain,) if place.kind == "docker" else ()),
        )
        for place, end in ((here, "src"), (there, "dest"))
    ]
    gc.enable()
    with ExitStack() as stack:
        reading = stack.enter_context(
            remote.registries(session, access[0], verb="Copying", quiet=flags["quiet"])
        )
        writing = reading
        if access[0] != access[1]:
            writing = stack.enter_context(Registries(access[1], session.images, reading.emit))
        copying = stack.enter_context(Copying(session.images, reading, writing))
        found = session.again(partial(copying.copy, here, there, wanted), reading)
    if there.path != "-":
        sys.stdout.write(f"{found.digest}\n")
