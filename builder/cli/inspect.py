"""`pybuild inspect`: all there is to know of a container or an image, in docker's JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from builder import origins
from builder.cli import listing, output, remote
from builder.cli.session import Session
from builder.errors import NotFound, RegistryFailed
from builder.images import Entry
from oci.errors import InvalidReference
from oci.image import images

if TYPE_CHECKING:
    from oci.model import Platform


@click.command(
    "inspect", help="Show all there is to know of containers and images: a JSON array in docker's shape."
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "-f", "--format", "form", metavar="FORM", help="json, or a template such as {{json .Config.Cmd}}."
)
@click.option(
    "-s", "--size", "sized", is_flag=True, help="How much containers wrote; of images it is always said."
)
@click.option("--type", "kind", type=click.Choice(["container", "image"]), help="Only containers, or images.")
@click.option("--remote", "there", is_flag=True, help="Images of registries, which stay there.")
@click.option("--platform", metavar="OS/ARCH", help="Of an index the image for this (default: this machine).")
@remote.with_access
@remote.OFFLINE
@click.pass_obj  # fmt: skip
def command(
    session: Session,
    /,
    names: tuple[str, ...],
    form: str | None,
    sized: bool,
    kind: str | None,
    there: bool,
    platform: str | None,
    **flags: Any,
) -> int:
    """Set by the decorator."""
    from oci import platforms

    template = None
    if form and form != "json":
        from builder.cli.templates import Template

        template = Template(form)
    code, found = 0, list[Mapping[str, Any]]()
    for name in names:
        try:
            if not there and kind != "image" and (ident := _container(session, name, kind)):
                from builder.cli import container_document

                found.append(container_document.document(session, ident, sized=sized))
            elif there:
                found.append(document(_remote(session, name, platform, flags)))
            else:
                wanted = platforms.parse(platform) if platform else None
                act = partial(_local, session, name, kind, wanted)
                found.append(session.again(act, access=remote.asked(session, flags, *_host(name))))
        except (NotFound, RegistryFailed) as error:
            code = output.report(error)
    if template:
        sys.stdout.write("".join(template.render(_typed(each)) + "\n" for each in found))
    elif form == "json":
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(json.dumps(found, indent=4, ensure_ascii=False) + "\n")
    return code


def _image(session: Session, name: str, kind: str | None) -> Entry:
    try:
        return session.images.resolve(name)
    except NotFound as error:
        if kind == "image":
            raise
        raise NotFound(f"no container and no image {name!r}", hint=error.hint) from None


def _container(session: Session, name: str, kind: str | None) -> str:
    """The id of the container that a name means; "" when it may be an image. Raises NotFound."""
    from builder import roster
    from builder.cli.container_filters import one_of

    try:
        return one_of(roster.listed(session.root), name).id
    except NotFound:
        if kind == "container":
            raise
        return ""


def _typed(shown: Mapping[str, Any]) -> Mapping[str, object]:
    if "HostConfig" not in shown:
        return typed(shown)
    from builder.cli import container_document

    return container_document.typed(shown)


def typed(shown: Mapping[str, Any]) -> Mapping[str, object]:
    """A document for a template: docker's fields are known also where an image lacks them."""
    from builder.cli.template_values import Nil, NilList, NilMap, Struct

    lists = ("Env", "Entrypoint", "Cmd", "OnBuild", "Shell")
    config = {
        **dict.fromkeys(("User", "WorkingDir", "StopSignal"), ""),
        **dict.fromkeys(lists, NilList()),
        **dict.fromkeys(("ExposedPorts", "Volumes", "Labels"), NilMap()),
        "Healthcheck": Nil(),
        "ArgsEscaped": False,
    }
    zeros = {"Variant": "", "OsVersion": "", "GraphDriver": Nil(), "Manifests": NilList()}
    times = {"LastTagTime": "0001-01-01 00:00:00 +0000 UTC"}
    inner = {"Config": Struct(shown["Config"], config), "Metadata": Struct(shown.get("Metadata", {}), times)}
    return Struct({**shown, **inner}, zeros)


def _local(session: Session, name: str, kind: str | None, platform: Platform | None) -> Mapping[str, Any]:
    """An image of the store."""
    entry = _image(session, name, kind)
    if platform:
        entry = session.images.choose(entry, platform)
    return document(entry) | _memory(session, entry) | _parts(session, entry)


def _host(name: str) -> tuple[str, ...]:
    """The registry that a name is of, if it is one."""
    from oci.reference import Reference

    try:
        return (Reference.parse(name).domain,)
    except InvalidReference:
        return ()


def _memory(session: Session, entry: Entry) -> dict[str, object]:
    """Where an image came from, and when a registry last said that its name means it."""
    known = origins.remembered(session.images.layout, entry.descriptor.digest)
    return {
        **({"Origins": known[origins.ORIGIN].split()} if origins.ORIGIN in known else {}),
        **({"Metadata": {"LastTagTime": known[origins.RESOLVED]}} if origins.RESOLVED in known else {}),
    }


def _parts(session: Session, entry: Entry) -> dict[str, object]:
    """The images of an index, and whether they are here."""
    if not entry.is_index:
        return {}
    blobs = session.images.layout.blobs
    return {
        "Manifests": [
            {"Digest": str(each.digest), "Platform": str(each.platform), "Available": each.digest in blobs}
            for each in images(blobs, entry.descriptor)
        ]
    }


def _remote(session: Session, name: str, platform: str | None, flags: dict[str, Any]) -> Entry:
    """An image of a registry: its documents, for as long as it takes to read them."""
    from tempfile import TemporaryDirectory

    from builder.registries import connect, told
    from oci import platforms
    from oci.blobs import BlobStore

    reference = remote.reference(name).with_default_tag()
    access = remote.asked(session, flags, reference.domain)
    wanted = platforms.parse(platform) if platform else platforms.host()
    with TemporaryDirectory(prefix="pybuild-") as place, told(reference):
        with connect(access, remote.warn) as client:
            image = client.pull_documents(reference, BlobStore(place), wanted)
    return Entry(image.descriptor, image, (reference,))


def document(entry: Entry) -> dict[str, object]:
    """What `docker inspect` says of an image, as far as it exists without a daemon."""
    config = json.loads(entry.image.config.content)
    history = entry.image.config.value.history
    repositories = dict.fromkeys(listing.repository(name) for name in entry.names)
    return {
        "Id": str(entry.id),
        "RepoTags": [name.familiar() for name in entry.names],
        "RepoDigests": [f"{each}@{entry.descriptor.digest}" for each in repositories],
        "Parent": "",
        "Comment": history[-1].comment if history else "",
        "Created": entry.created,
        "DockerVersion": config.get("docker_version", ""),
        "Author": config.get("author", ""),
        "Config": config.get("config") or {},
        "Architecture": config.get("architecture", ""),
        **({"Variant": config["variant"]} if config.get("variant") else {}),
        "Os": config.get("os", ""),
        "Size": entry.size,
        "VirtualSize": entry.size,
        "RootFS": {"Type": "layers", "Layers": config.get("rootfs", {}).get("diff_ids", [])},
        "Descriptor": {
            "mediaType": entry.descriptor.media_type,
            "digest": str(entry.descriptor.digest),
            "size": entry.descriptor.size,
        },
    }
