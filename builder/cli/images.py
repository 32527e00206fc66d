"""`pybuild images`: what is in the store."""

from __future__ import annotations

import sys

import click

from builder.cli import listing, text
from builder.cli.session import Session
from oci.errors import OciError
from oci.model import Descriptor


@click.command(
    "images", help="List the images of the store, newest first. SIZE is what they take in the store."
)
@click.argument("name", required=False, metavar="[REPOSITORY[:TAG]]")
@click.option("-a", "--all", "everything", is_flag=True, help="Accepted: there are no hidden images.")
@click.option("-q", "--quiet", is_flag=True, help="Only image ids; a template goes before it.")
@click.option("--digests", is_flag=True, help="Show the digests of manifests.")
@click.option("--no-trunc", is_flag=True, help="Show whole ids.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE",
              help="dangling, label, reference, before or since.")  # fmt: skip
@click.option(
    "--format", "form", metavar="FORM", help="table, raw, json, or a template such as {{.Repository}}."
)
@click.pass_obj
def command(
    session: Session,
    name: str | None,
    everything: bool,
    quiet: bool,
    digests: bool,
    no_trunc: bool,
    filters: tuple[str, ...],
    form: str | None,
) -> None:
    """Set by the decorator."""
    wanted = listing.filters(filters, session.images)
    if name:
        wanted += listing.filters([f"reference={name}"], session.images)
    rows = listing.named(session.images.entries(_damaged))
    chosen = [each for each in rows if all(fits(each) for fits in wanted)]
    sys.stdout.write(_shown(chosen, form or "table", quiet=quiet, digests=digests, full=no_trunc))


def _shown(rows: list[listing.Named], form: str, *, quiet: bool, digests: bool, full: bool) -> str:
    fields = [listing.row(entry, name, full=full) for entry, name in rows]
    if form == "raw":
        return "".join(_raw(row, quiet=quiet, digests=digests) for row in fields)
    if form != "table":
        from builder.cli import templates

        if form.startswith("table ") and digests and "{{.Digest}}" not in form:
            form += "\t{{.Digest}}"
        return templates.show(fields, form, listing.TITLES, text.table)
    if quiet:
        return "".join(f"{row['ID']}\n" for row in fields)
    columns = ["Repository", "Tag", *(["Digest"] if digests else []), "ID", "CreatedSince", "Size"]
    heading = [listing.TITLES[column] for column in columns]
    return text.table([heading, *([row[column] for column in columns] for row in fields)])


def _raw(row: dict[str, str], *, quiet: bool, digests: bool) -> str:
    """A line for each field, as docker has it."""
    if quiet:
        return f"image_id: {row['ID']}\n"
    fields = {
        "repository": row["Repository"],
        "tag": row["Tag"],
        **({"digest": row["Digest"]} if digests else {}),
        "image_id": row["ID"],
        "created_at": row["CreatedAt"],
        "virtual_size": row["Size"],
    }
    return "".join(f"{key}: {value}\n" for key, value in fields.items()) + "\n"


def _damaged(descriptor: Descriptor, error: OciError) -> None:
    digest = descriptor.digest
    sys.stderr.write(f"warning: image {digest.short} is damaged: {text.safe(str(error))}\n")
