"""`pybuild history`: what made an image, the last step first."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import partial

import click

from builder.cli import listing, remote, text
from builder.cli.session import Session
from builder.images import Entry

MISSING = "<missing>"
_CREATED_BY = 45
_FRACTION = re.compile(r"\.\d+")


@click.command(
    "history", help="Show what made an image, the last step first. SIZE is that of the layer in the store."
)
@click.argument("name", metavar="IMAGE")
@click.option("-H", "--human/--no-human", default=True, help="Sizes and ages in words (the default).")
@click.option("--no-trunc", is_flag=True, help="Show whole ids and commands.")
@click.option("-q", "--quiet", is_flag=True, help="Only image ids.")
@click.option("--format", "form", metavar="FORM", help="table, json, or a template such as {{.CreatedBy}}.")
@remote.OFFLINE
@click.pass_obj
def command(
    session: Session, name: str, human: bool, no_trunc: bool, quiet: bool, form: str | None, offline: bool
) -> None:
    """Set by the decorator."""
    access = remote.access(session, offline=offline)
    entry = session.again(partial(session.images.resolve, name), access=access)
    rows = list(_rows(entry, human=human, full=no_trunc))
    if quiet:
        sys.stdout.write("".join(f"{row['ID']}\n" for row in rows))
    elif form and form != "table":
        from builder.cli import templates

        sys.stdout.write(templates.show(rows, form, listing.HISTORY_TITLES, text.table))
    else:
        created = "CreatedSince" if human else "CreatedAt"
        columns = ["ID", created, "CreatedBy", "Size", "Comment"]
        heading = [listing.HISTORY_TITLES[column] for column in columns]
        sys.stdout.write(text.table([heading, *([row[each] for each in columns] for row in rows)]))


def _rows(entry: Entry, *, human: bool, full: bool) -> Iterator[dict[str, str]]:
    layers = list(entry.image.layers)
    first = str(entry.id) if full else entry.id.short
    for line in reversed(entry.image.config.value.history):
        size = 0 if line.empty_layer or not layers else layers.pop().size
        created_by = line.created_by.replace("\t", " ")
        at = _FRACTION.sub("", line.created) or "N/A"
        yield {
            "ID": first,
            "CreatedAt": at,
            "CreatedSince": text.age(line.created) if human else at,
            "CreatedBy": created_by if full else text.shortened(created_by, _CREATED_BY),
            "Size": text.size(size) if human else str(size),
            "Comment": line.comment,
        }
        first = MISSING
