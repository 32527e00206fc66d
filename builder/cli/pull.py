"""`pybuild pull`: images from a registry into the store."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from builder.cli import remote
from builder.cli.isolating import isolated
from builder.cli.session import Session
from builder.errors import UsageError
from oci.model import Descriptor
from oci.reference import Reference

if TYPE_CHECKING:
    from builder.registries import Registries
    from oci.model import Platform


@click.command("pull", help="Pull images from registries into the store, whole.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--platform", metavar="OS/ARCH", help="For which platform (default: this machine).")
@click.option("--all-platforms", is_flag=True, help="All of an index, for every platform.")
@click.option("-a", "--all-tags", is_flag=True, help="All tags of the repositories NAME.")
@click.option("--unpack", is_flag=True, help="Unpack the layers too, for the first RUN or run to find them.")
@remote.QUIET
@remote.with_access
@click.pass_obj  # fmt: skip
def command(session: Session, /, names: tuple[str, ...], **flags: Any) -> None:
    """Set by the decorator."""
    from oci import platforms

    if flags["platform"] and flags["all_platforms"]:
        raise UsageError("--platform and --all-platforms cannot both be")
    if flags["unpack"] and flags["all_platforms"]:
        raise UsageError("--unpack takes one platform's image, not --all-platforms")
    asked = flags["platform"] or os.environ.get("DOCKER_DEFAULT_PLATFORM")
    wanted = platforms.parse(asked) if asked else platforms.host()
    references = [remote.reference(name) for name in names]
    access = remote.asked(session, flags, *(each.domain for each in references))
    if flags["unpack"]:
        isolated(session, None)
    gc.enable()
    lines: list[tuple[str, str]] = []
    try:
        with remote.registries(session, access, verb="Pulling", quiet=flags["quiet"]) as registries:
            for each in references:
                for name in _tagged(registries, each) if flags["all_tags"] else [each.with_default_tag()]:
                    before = session.images.find(name)
                    found = _whole(session, registries, name, None if flags["all_platforms"] else wanted)
                    after = session.images.find(name) or found
                    new = before is None or before.digest not in (found.digest, after.digest)
                    if not flags["all_platforms"]:
                        _compare(session, name, found, wanted)
                    if flags["unpack"]:
                        _unpack(session, registries, found)
                    lines.append((f"{name}\n", "" if flags["quiet"] else _told(name, str(found.digest), new)))
    finally:
        for result, text in lines:  # when the view of the transfers has ended
            sys.stdout.write(result)
            sys.stdout.flush()
            sys.stderr.write(text)


def _whole(session: Session, registries: Registries, name: Reference, wanted: Platform | None) -> Descriptor:
    """Pull; what is here but damaged is fetched too (R16)."""
    from builder.errors import BuildError
    from builder.events import Warning_
    from builder.healing import forget_unreadable, put_aside, unsound
    from builder.soundness import Soundness
    from oci.errors import OciError

    sound = Soundness(session.state, session.images.layout.blobs)
    while True:
        try:
            found = registries.pull(name, wanted)
            bad = unsound(session.images, sound, found)
        except (OciError, BuildError) as error:
            if (aside := put_aside(session.images, error)) is None:
                raise
            bad = [aside.digest]
        if not bad:
            return found
        forget_unreadable(session.images)
        for digest in bad:
            registries.emit(Warning_("Damaged", f"the blob {digest} was damaged and is put aside"))


def _compare(session: Session, name: Reference, found: Descriptor, wanted: Platform) -> None:
    """Say it when an image that is the only one of its name is for another platform than was asked for."""
    from oci import platforms
    from oci.errors import NotAnImage

    try:
        platform = session.images.for_platform(found).platform
    except NotAnImage:
        return
    if platforms.best(wanted, [platform]) is None:
        remote.warn(f"{name.familiar()} is for {platform}, not for {wanted}: there is no other image")


def _unpack(session: Session, registries: Registries, found: Descriptor) -> None:
    from builder.container.unpack import unpack

    image = session.images.for_platform(found)
    unpack(image, session.state, session.images.layout.blobs, registries.fetcher(image))


def _tagged(registries: Registries, reference: Reference) -> list[Reference]:
    from builder.registries import told

    if reference.tag or reference.digest:
        raise UsageError(f"{reference.familiar()}: --all-tags takes a repository, without a tag or digest")
    with told(reference):
        return [reference.with_tag(tag) for tag in registries.client.tags(reference)]


def _told(name: Reference, digest: str, new: bool) -> str:
    state = "Downloaded newer image for" if new else "Image is up to date for"
    return f"Digest: {digest}\nStatus: {state} {name.familiar()}\n"
