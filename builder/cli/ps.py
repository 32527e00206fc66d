"""`pybuild ps`: the containers of the store."""

from __future__ import annotations

import sys

import click

from builder import roster
from builder.cli import containers, text
from builder.cli.session import Session


@click.command("ps", help="List the containers that run, newest first.")
@click.option("-a", "--all", "everything", is_flag=True, help="Those that do not run too.")
@click.option("-q", "--quiet", is_flag=True, help="Only container ids.")
@click.option("-l", "--latest", is_flag=True, help="The newest one alone, whatever its state.")
@click.option(
    "-n", "--last", type=int, default=-1, metavar="COUNT", help="So many of the newest, in any state."
)
@click.option("-s", "--size", "sized", is_flag=True, help="Show what they wrote.")
@click.option("--no-trunc", is_flag=True, help="Show whole ids and commands.")
@click.option(
    "-f",
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="ancestor, before, exited, expose, id, label, name, network, publish, since, status or volume.",
)
@click.option("--format", "form", metavar="FORM", help="table, json, or a template such as {{.Names}}.")
@click.pass_obj  # fmt: skip
def command(
    session: Session,
    everything: bool,
    quiet: bool,
    latest: bool,
    last: int,
    sized: bool,
    no_trunc: bool,
    filters: tuple[str, ...],
    form: str | None,
) -> None:
    """Set by the decorator."""
    known = roster.listed(session.root)
    count = 1 if latest else last
    if filters:
        from builder.cli import container_filters

        wanted, stopped = container_filters.filters(session, filters, known)
    else:
        wanted, stopped = [], False
    shown = [
        each
        for each in known
        if (everything or stopped or count > 0 or each.alive) and all(fits(each) for fits in wanted)
    ]
    shown = shown[:count] if count > 0 else shown
    if quiet:
        if form not in (None, "table"):
            sys.stderr.write("warning: --format has no effect, because of --quiet\n")
        sys.stdout.write(
            "".join(f"{each.id if no_trunc else each.id[: containers.SHORT]}\n" for each in shown)
        )
    else:
        sys.stdout.write(_shown(session, shown, form or "table", sized=sized, full=no_trunc))


def _shown(session: Session, shown: list[roster.Listed], form: str, *, sized: bool, full: bool) -> str:
    if form == "table":
        columns = [*containers.COLUMNS, *(["Size"] if sized else [])]
        rows = [containers.row(session, each, full=full, sized=sized) for each in shown]
        heading = [containers.TITLES[column] for column in columns]
        return text.table([heading, *([row[column] for column in columns] for row in rows)])
    from builder.cli import templates
    from builder.cli.template_values import Struct

    sized = sized or ".Size" in form
    fields = [
        Struct(containers.row(session, each, full=full, sized=sized), {"Label": containers.label_of(each)})
        for each in shown
    ]
    return templates.show(fields, form, containers.TITLES, text.table)
