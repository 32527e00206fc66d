"""`pybuild pull`: images from a registry into the store."""

from __future__ import annotations

import gc
import sys
from typing import Any

import click

from builder.cli import remote
from builder.cli.session import Session
from builder.errors import UsageError
from oci.reference import Reference


@click.command("pull", help="Pull images from registries into the store, whole.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--platform", metavar="OS/ARCH", help="For which platform (default: this machine).")
@click.option("--all-platforms", is_flag=True, help="All of an index, for every platform.")
@click.option("-a", "--all-tags", is_flag=True, help="All tags of the repositories NAME.")
@remote.QUIET
@remote.with_access
@click.pass_obj  # fmt: skip
def command(session: Session, /, names: tuple[str, ...], **flags: Any) -> None:
    """Set by the decorator."""
    from oci import platforms

    if flags["platform"] and flags["all_platforms"]:
        raise UsageError("--platform and --all-platforms cannot both be")
    wanted = platforms.parse(flags["platform"]) if flags["platform"] else platforms.host()
    references = [remote.reference(name) for name in names]
    access = remote.access(
        session,
        authfile=flags["authfile"],
        tls_verify=flags["tls_verify"],
        credentials=tuple((each.domain, flags["creds"]) for each in references),
    )
    gc.enable()
    lines: list[tuple[str, str]] = []
    try:
        with remote.registries(session, access, verb="Pulling", quiet=flags["quiet"]) as registries:
            for each in references:
                for name in _tagged(registries, each) if flags["all_tags"] else [each.with_default_tag()]:
                    before = session.images.find(name)
                    found = registries.pull(name, None if flags["all_platforms"] else wanted)
                    new = before is None or before.digest != found.digest
                    lines.append((f"{name}\n", "" if flags["quiet"] else _told(name, str(found.digest), new)))
    finally:
        for result, text in lines:  # when the view of the transfers has ended
            sys.stdout.write(result)
            sys.stdout.flush()
            sys.stderr.write(text)


def _tagged(registries: Any, reference: Reference) -> list[Reference]:
    from builder.registries import told

    if reference.tag or reference.digest:
        raise UsageError(f"{reference.familiar()}: --all-tags takes a repository, without a tag or digest")
    with told(reference):
        return [reference.with_tag(tag) for tag in registries.client.tags(reference)]


def _told(name: Reference, digest: str, new: bool) -> str:
    state = "Downloaded newer image for" if new else "Image is up to date for"
    return f"Digest: {digest}\nStatus: {state} {name.familiar()}\n"
