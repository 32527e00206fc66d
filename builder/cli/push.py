"""`pybuild push`: images of the store to their registry."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from builder.cli import remote
from builder.cli.session import Session
from builder.errors import BuildError, NotFound, UsageError
from oci.digest import Digest
from oci.errors import OciError
from oci.image import walk
from oci.layout import name_of
from oci.model import Descriptor
from oci.reference import Reference

if TYPE_CHECKING:
    from builder.registries import Access

Batch = tuple[Descriptor, list[Reference]]


@click.command("push", help="Push the image (or index) NAME of the store to the registry in its name.")
@click.argument("name", metavar="NAME[:TAG]")
@click.option("-a", "--all-tags", is_flag=True, help="Push all tags of the repository NAME.")
@click.option(
    "--platform", metavar="OS/ARCH", help="Of an index only the image for this (default: all of it)."
)
@remote.QUIET
@remote.with_access
@click.pass_obj  # fmt: skip
def command(session: Session, /, name: str, **flags: Any) -> None:
    """Set by the decorator."""
    reference = remote.reference(name)
    if flags["all_tags"] and flags["platform"]:
        raise UsageError("--all-tags pushes images as they are: --platform cannot choose of them")
    with session.images.layout.blobs.hashing_ahead(_likely(session, reference, flags)):
        access = remote.asked(session, flags, reference.domain)
        gc.enable()
        _push(session, reference, flags, access)


def _push(session: Session, reference: Reference, flags: Mapping[str, Any], access: Access) -> None:
    blobs = session.images.layout.blobs
    pushed: list[Batch] = []
    try:
        with remote.registries(session, access, verb="Pushing", quiet=flags["quiet"]) as registries:
            choose = partial(_batches, session, reference, flags)
            for descriptor, names in session.again(choose, registries):
                session.again(partial(registries.push, blobs, descriptor, names), registries)
                pushed.append((descriptor, names))
    finally:
        for descriptor, names in pushed:  # when the view of the transfers has ended
            for each in names:
                tell(each, descriptor, quiet=flags["quiet"])


def _likely(session: Session, reference: Reference, flags: Mapping[str, Any]) -> dict[Digest, int]:
    """The blobs that will be sent and their sizes, in the order of `registry.push`, if all is as it seems:
    whoever pushes looks again, and says what is wrong."""
    if flags["all_tags"]:
        return {}
    with suppress(BuildError, OciError, OSError):
        blobs = session.images.layout.blobs
        descriptor, _ = _one(session, reference, flags["platform"])
        found = {each.digest: each.size for each in walk(blobs, descriptor)}
        return dict(sorted(found.items(), key=lambda item: -item[1]))
    return {}


def _batches(session: Session, reference: Reference, flags: Mapping[str, Any]) -> list[Batch]:
    """What to push, all of it in the store."""
    if flags["all_tags"]:
        found = _all_tags(session, reference)
    else:
        found = [_one(session, reference, flags["platform"])]
    for descriptor, names in found:
        session.images.refuse_sparse(descriptor, names[0].familiar())
    return found


def tell(name: Reference, descriptor: Descriptor, *, quiet: bool) -> None:
    """What was pushed, as docker says it; quietly only the name."""
    line = f"{name.tag}: digest: {descriptor.digest} size: {descriptor.size}"
    sys.stdout.write(f"{name if quiet else line}\n")


def _one(session: Session, reference: Reference, platform: str | None) -> Batch:
    if reference.digest is not None:
        raise UsageError(
            f"{reference.familiar()} has a digest; a push needs a tag",
            hint=f"pybuild copy store:{reference.familiar()} docker://NAME",
        )
    name = reference.with_default_tag()
    descriptor = session.images.find(name)
    if descriptor is None:
        hint = _hint(session, name)
        raise NotFound(f"no image {name.familiar()!r} in the store", hint=hint)
    if platform:
        from oci import platforms

        entry = session.images.resolve(name.familiar())
        descriptor = session.images.choose(entry, platforms.parse(platform)).descriptor
    return descriptor, [name]


def _hint(session: Session, name: Reference) -> str:
    try:
        session.images.resolve(name.familiar())
    except NotFound as error:
        return error.hint
    return ""


def _all_tags(session: Session, reference: Reference) -> list[Batch]:
    """All images with names in a repository, each with all of them."""
    if reference.tag or reference.digest:
        raise UsageError(f"{reference.familiar()}: --all-tags takes a repository, without a tag or digest")
    found = []
    damaged: dict[Digest, OciError] = {}

    def note(pointer: Descriptor, error: OciError) -> None:
        damaged[pointer.digest] = error

    entries = session.images.entries(note)
    for each in session.images.layout.descriptors():
        if each.digest in damaged and name_of(each).startswith(f"{reference.repository}:"):
            raise damaged[each.digest]
    for entry in entries:
        names = [each for each in entry.names if each.repository == reference.repository and each.tag]
        if names:
            found.append((entry.descriptor, names))
    if not found:
        raise NotFound(f"no image in the store has a name in {reference.familiar()}")
    return found
