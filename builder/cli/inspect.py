"""`pybuild inspect`: all there is to know of an image, in docker's JSON."""

from __future__ import annotations

import json
import sys

import click

from builder.cli import listing, output
from builder.cli.session import Session
from builder.errors import NotFound
from builder.images import Entry


@click.command("inspect", help="Show all there is to know of images: a JSON array in docker's shape.")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-f", "--format", "form", metavar="FORM", help="json, or a template such as {{json .Config.Cmd}}."
)
@click.option("-s", "--size", is_flag=True, help="Accepted: the size is always shown.")
@click.option("--type", "kind", type=click.Choice(["image"]), help="Only images, for now.")
@click.pass_obj
def command(session: Session, names: tuple[str, ...], form: str | None, size: bool, kind: str | None) -> int:
    """Set by the decorator."""
    template = None
    if form and form != "json":
        from builder.cli.templates import Template

        template = Template(form)
    code, found = 0, []
    for name in names:
        try:
            found.append(document(session.images.resolve(name)))
        except NotFound as error:
            code = output.report(error)
    if template:
        sys.stdout.write("".join(template.render(each) + "\n" for each in found))
    elif form == "json":
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(json.dumps(found, indent=4, ensure_ascii=False) + "\n")
    return code


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
