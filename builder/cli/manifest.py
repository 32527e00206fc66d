"""`pybuild manifest`: manifests and indexes by themselves."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from builder.cli import remote
from builder.cli.push import tell
from builder.cli.session import Session
from builder.errors import NotFound, RegistryFailed, UsageError
from oci.errors import RegistryError
from oci.reference import Reference

STORE = "store:"
_NO_TAGS = (400, 405, 501)
"""What registries answer that do not delete tags (distribution-spec: Deleting tags: 400 or 405)."""


@click.group("manifest", help="Show, make and push manifests and indexes.", no_args_is_help=True)
def command() -> None:
    """Set by the decorator."""


@command.command("inspect", help="Show the manifest or index NAME of a registry, or store:NAME of the store.")
@click.argument("name", metavar="NAME | store:NAME")
@click.option("--raw", is_flag=True, help="The very bytes, unformatted.")
@click.option("-v", "--verbose", is_flag=True, help="Its digest, size and media type as well.")
@remote.with_access
@click.pass_obj  # fmt: skip
def inspect(session: Session, /, name: str, raw: bool, verbose: bool, **flags: Any) -> None:
    """Set by the decorator."""
    from builder.registries import connect, told

    if name.startswith(STORE):
        found = session.images.named(name.removeprefix(STORE))
        content = session.images.layout.blobs.document(found)
    else:
        reference = remote.reference(name)
        with told(reference), connect(remote.asked(session, flags, reference.domain), remote.warn) as client:
            found, content = client.fetch_manifest(reference)
    if raw:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        return
    document = json.loads(content)
    if verbose:
        pointer = {"mediaType": found.media_type, "digest": str(found.digest), "size": found.size}
        document = {"Name": name, "Descriptor": pointer, "Manifest": document}
    sys.stdout.write(json.dumps(document, indent=3, ensure_ascii=False) + "\n")


@command.command(
    "create",
    help="Make an index called LIST in the store of images, each of the store or of a registry. Of images in "
    "a registry only the documents are fetched; of an index all its images are taken.",
)
@click.argument("name", metavar="LIST")
@click.argument("members", nargs=-1, required=True, metavar="IMAGE...")
@click.option("-a", "--amend", "--append", is_flag=True, help="Add to the images that LIST has already.")
@click.option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="Of the index.")
@click.option("--docker", is_flag=True, help="Docker's media types in place of OCI's.")
@click.option("--dry-run", is_flag=True, help="Print the index, and make none.")
@remote.with_access
@click.pass_obj  # fmt: skip
def create(session: Session, /, name: str, members: tuple[str, ...], **flags: Any) -> None:
    """Set by the decorator."""
    from builder.cli import values
    from builder.indexes import make

    target = remote.reference(name).with_default_tag()
    if target.digest is not None:
        raise UsageError(f"{name}: an index is given a tag; its digest is its content")
    annotations = values.pairs("--annotation", flags["annotations"], empty=True)
    hosts = {remote.reference(each).domain for each in members}
    access = remote.asked(session, flags, *hosts)
    with remote.registries(session, access, verb="Reading", quiet=True) as registries:
        found = make(
            session.images,
            registries,
            target,
            [remote.reference(each) for each in members],
            amend=flags["amend"],
            annotations=annotations,
            docker=flags["docker"],
            dry_run=flags["dry_run"],
        )
    sys.stdout.write(f"{found.content.decode() if flags['dry_run'] else found.digest}\n")


@command.command(
    "delete",
    help="Delete NAME's tag in its registry or, of NAME@DIGEST, the manifest with all its tags.",
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@remote.with_access
@click.pass_obj  # fmt: skip
def delete(session: Session, /, names: tuple[str, ...], **flags: Any) -> None:
    """Set by the decorator."""
    from builder.registries import connect, told

    references = [remote.reference(name) for name in names]
    for each in references:
        if not each.tag and each.digest is None:
            raise UsageError(
                f"{each.familiar()} has neither a tag nor a digest: which one is to go?",
                hint=f"pybuild tags {each.familiar()} lists what is there",
            )
    access = remote.asked(session, flags, *(each.domain for each in references))
    with connect(access, remote.warn) as client:
        for each in references:
            with told(each), _digests_only(each):
                client.delete(each)
            sys.stdout.write(f"Deleted {each.familiar()}\n")


@contextmanager
def _digests_only(reference: Reference) -> Iterator[None]:
    """Many registries delete no tags by themselves, and say so in strange ways."""
    try:
        yield
    except RegistryError as error:
        if reference.digest is not None or error.status not in _NO_TAGS:
            raise
        name = f"{reference.repository}@DIGEST"
        hint = f"this registry may delete manifests only, with all their tags: pybuild manifest delete {name}"
        raise RegistryFailed(str(error), hint=hint) from error


@command.command(
    "push", help="Push the index LIST of the store, with all its images, to its registry or DST."
)
@click.argument("name", metavar="LIST")
@click.argument("target", required=False, metavar="[DST]")
@click.option("-p", "--purge", is_flag=True, help="Remove LIST from the store afterwards.")
@remote.QUIET
@remote.with_access
@click.pass_obj  # fmt: skip
def push(session: Session, /, name: str, target: str | None, **flags: Any) -> None:
    """Set by the decorator."""
    source = remote.reference(name).with_default_tag()
    there = remote.reference(target).with_default_tag() if target else source
    descriptor = session.images.find(source)
    if descriptor is None:
        raise NotFound(
            f"no index {source.familiar()!r} in the store", hint="pybuild manifest create makes it"
        )
    access = remote.asked(session, flags, there.domain)
    gc.enable()
    with ExitStack() as stack:
        registries = stack.enter_context(
            remote.registries(session, access, verb="Pushing", quiet=flags["quiet"])
        )
        registries.push(session.images.layout.blobs, descriptor, [there])
    tell(there, descriptor, quiet=flags["quiet"])
    if flags["purge"]:
        session.images.remove(str(source))
