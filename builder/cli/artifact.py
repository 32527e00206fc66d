"""`pybuild artifact`: files in a registry that are no images, such as signatures and lists of parts."""

from __future__ import annotations

import gc
import json
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from builder.cli import remote, text
from builder.cli.push import tell
from builder.cli.session import Session
from builder.errors import UsageError

if TYPE_CHECKING:
    from oci.artifact import File
    from oci.model import Descriptor, Manifest
    from oci.reference import Reference
    from oci.registry.client import Client


@click.group("artifact", help="Push and pull files that are no images.", no_args_is_help=True)
def command() -> None:
    """Set by the decorator."""


@command.command(
    "push",
    help="Push files and directories as the artifact NAME; without a tag it is known by its digest alone. A "
    "file's name in it is FILE, or the last part of a FILE that is elsewhere; its TYPE is "
    "application/octet-stream unless given.",
)
@click.argument("name", metavar="NAME[:TAG]")
@click.argument("files", nargs=-1, metavar="[FILE[:TYPE]]...")
@click.option("--type", "kind", default="", metavar="TYPE", help="What the artifact is, a media type.")
@click.option("--config", default="", metavar="FILE[:TYPE]", help="Its config, in place of the empty one.")
@click.option(
    "--subject", default="", metavar="NAME | DIGEST", help="What it is about, in the same repository."
)
@click.option("--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="Of the manifest.")
@remote.QUIET
@remote.with_access
@click.pass_obj  # fmt: skip
def push(session: Session, /, name: str, files: tuple[str, ...], **flags: Any) -> None:
    """Set by the decorator."""
    from builder.cli import values
    from builder.registries import told
    from oci.artifact import UNKNOWN, is_media_type, pack

    target = remote.reference(name)
    if target.digest is not None:
        raise UsageError(f"{name}: an artifact is given a tag or none; its digest is its content")
    config = _typed(flags["config"]) if flags["config"] else None
    kind = flags["kind"] or ("" if config else UNKNOWN)
    if kind and not is_media_type(kind):
        raise UsageError(f"--type {kind!r} is no media type", hint="e.g. application/spdx+json")
    annotations = values.pairs("--annotation", flags["annotations"], empty=True)
    chosen = _files(files)
    about = _subject(flags["subject"], target)
    access = remote.asked(session, flags, target.domain)
    gc.enable()
    blobs = session.images.layout.blobs
    with remote.registries(session, access, verb="Pushing", quiet=flags["quiet"]) as registries:
        subject = None
        if about is not None:
            with told(about):
                subject = registries.client.resolve(about)
        with blobs.staging() as staging:
            made = pack(staging, chosen, kind, config=config, subject=subject, annotations=annotations)
            registries.push(staging, made, [target])
    if target.tag:
        tell(target, made, quiet=flags["quiet"])
    else:
        sys.stdout.write(f"{target.with_digest(made.digest)}\n")


@command.command(
    "pull", help="Write the files of the artifact NAME into a directory; those that are there are replaced."
)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option("-o", "--output", default=".", metavar="DIR", help="Where to (default: the working directory).")
@remote.QUIET
@remote.with_access
@click.pass_obj  # fmt: skip
def pull(session: Session, /, name: str, output: str, **flags: Any) -> None:
    """Set by the decorator."""
    from builder.registries import told
    from oci.artifact import titles, unpack

    reference = remote.reference(name).with_default_tag()
    access = remote.asked(session, flags, reference.domain)
    gc.enable()
    blobs = session.images.layout.blobs
    with remote.registries(session, access, verb="Pulling", quiet=flags["quiet"]) as registries:
        with told(reference):
            manifest = _manifest(registries.client, reference)
        files = list(titles(manifest))
        with blobs.staging() as staging:
            registries.fetch(reference, [layer for layer, _ in files], staging)
            unpack(staging, files, output)
    for _, title in files:
        sys.stdout.write(f"{text.safe(os.path.join(output, os.fsdecode(title)) or '.')}\n")
    if not files:
        sys.stderr.write(f"{reference.familiar()} has no files: none of its layers has a title\n")


@command.command(
    "list", help="List what refers to NAME: signatures, lists of parts, whatever has it as subject."
)
@click.argument("name", metavar="NAME[:TAG|@DIGEST]")
@click.option("--type", "kind", default="", metavar="TYPE", help="Only artifacts of this type.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How.")
@remote.with_access
@click.pass_obj  # fmt: skip
def list_(session: Session, /, name: str, kind: str, form: str, **flags: Any) -> None:
    """Set by the decorator."""
    from builder.registries import connect, told
    from oci.model.descriptor import descriptor_value

    reference = remote.reference(name).with_default_tag()
    access = remote.asked(session, flags, reference.domain)
    with told(reference), connect(access, remote.warn) as client:
        found = client.referrers(reference, kind)
    if form == "json":
        sys.stdout.write(json.dumps([descriptor_value(each) for each in found], indent=3) + "\n")
        return
    for each in found:
        sys.stdout.write(f"{each.digest}  {text.safe(each.artifact_type) or '-'}\n")


def _files(texts: tuple[str, ...]) -> list[File]:
    """`FILE[:TYPE]`. Raises UsageError for two files of one name."""
    found: dict[str, File] = {}
    for word in texts:
        file = _typed(word)
        path = file.path
        title = os.path.normpath(path)
        if title.startswith(("/", "..")):
            title = os.path.basename(os.path.abspath(path))
        if not title:
            raise UsageError(f"{path!r} has no name to give it in the artifact")
        if title in found:
            raise UsageError(f"{path!r} and {found[title].path!r} would both be called {title!r}")
        found[title] = replace(file, title=title)
    return list(found.values())


def _typed(word: str) -> File:
    """`FILE[:TYPE]`."""
    from oci.artifact import File, is_media_type

    path, colon, kind = word.rpartition(":")
    return File(path, kind) if colon and path and is_media_type(kind) else File(word)


def _subject(given: str, target: Reference) -> Reference | None:
    """What an artifact is about: a name of its repository, or a digest there. Raises UsageError."""
    from oci.digest import Digest
    from oci.errors import InvalidDigest

    if not given:
        return None
    try:
        return replace(target, tag="", digest=Digest.parse(given))
    except InvalidDigest:
        about = remote.reference(given).with_default_tag()
    if about.repository != target.repository:
        raise UsageError(
            f"--subject {given}: not in the repository {target.repository}",
            hint="what refers to an image lies in its repository; pybuild copy brings the image there",
        )
    return about


def _manifest(client: Client, reference: Reference) -> Manifest:
    from oci.model import Manifest, parse

    found: Descriptor
    found, content = client.fetch_manifest(reference)
    document = parse(content, found.media_type)
    if isinstance(document, Manifest):
        return document
    listed = ", ".join(str(each.digest) for each in document.manifests[:3])
    raise UsageError(f"{reference.familiar()} is an index", hint=f"name one of its manifests: {listed}")
