"""`pybuild volume`: directories that outlive containers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from builder.cli import output, text, values
from builder.cli.session import Session
from builder.errors import BuildError, UsageError

if TYPE_CHECKING:
    from builder.container.volumes import Meta, Volumes

_TITLES = {"Driver": "DRIVER", "Name": "VOLUME NAME", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT",
           "Labels": "LABELS", "Size": "SIZE"}  # fmt: skip
_UNKNOWN = dict.fromkeys(("Availability", "Group", "Links", "Size", "Status"), "N/A")
_ANONYMOUS = "com.docker.volume.anonymous"
"""Docker's label of volumes without a name."""

_TRUE, _FALSE = ("true", "1"), ("false", "0")
Filter = Callable[["Meta"], bool]


@click.group("volume", help="Directories that outlive containers.", no_args_is_help=True)
def command() -> None:
    """Set by the decorator."""


@command.command("create", help="Make a volume; without NAME it gets one. One that is there already stays.")
@click.argument("name", required=False, default="")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label; repeatable.")
@click.option("-d", "--driver", default="local", metavar="local", help="Accepted: there is no other.")
@click.pass_obj  # fmt: skip
def create(session: Session, name: str, labels: tuple[str, ...], driver: str) -> None:
    """Set by the decorator."""
    if driver != "local":
        raise UsageError(f"there is no volume driver {driver!r}", hint="there is local")
    found = dict(
        values.pairs("--label", [each if "=" in each else f"{each}=" for each in labels], empty=True)
    )
    sys.stdout.write(f"{_volumes(session).create(name, found, anonymous=not name).name}\n")


@command.command("ls", help="List the volumes.")
@click.option("-q", "--quiet", is_flag=True, help="Only names.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE",
              help="dangling, driver, label or name.")  # fmt: skip
@click.option("--format", "form", metavar="FORM", help="table, json, or a template such as {{.Name}}.")
@click.pass_obj
def ls(session: Session, quiet: bool, filters: tuple[str, ...], form: str | None) -> None:
    """Set by the decorator."""
    volumes = _volumes(session)
    wanted = [_filter(each, session) for each in filters]
    found = [volumes.inspect(name) for name in volumes.names()]
    rows = [_row(meta) for meta in found if all(fits(meta) for fits in wanted)]
    if quiet:
        sys.stdout.write("".join(f"{row['Name']}\n" for row in rows))
    elif form and form != "table":
        from builder.cli import templates

        sys.stdout.write(templates.show(rows, form, _TITLES, text.table))
    else:
        columns = ("Driver", "Name")
        lines = ([row[column] for column in columns] for row in rows)
        sys.stdout.write(text.table([[_TITLES[column] for column in columns], *lines]))


@command.command("inspect", help="Show all there is to know of volumes, as JSON.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-f", "--format", "form", metavar="FORM", help="json, or a template such as {{.Mountpoint}}.")
@click.pass_obj
def inspect(session: Session, names: tuple[str, ...], form: str | None) -> int:
    """Set by the decorator."""
    code = 0
    documents: list[dict[str, object]] = []
    for name in names:
        try:
            documents.append(_document(_volumes(session).inspect(name)))
        except BuildError as error:
            code = output.report(error)
    if form and form != "json":
        from builder.cli.templates import Template

        template = Template(form)
        sys.stdout.write("".join(template.render(each) + "\n" for each in documents))
    elif form:
        sys.stdout.write("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in documents))
    else:
        sys.stdout.write(json.dumps(documents, indent=4, ensure_ascii=False) + "\n")
    return code


@command.command("rm", help="Remove volumes that no container uses, with all that is in them.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-f", "--force", is_flag=True, help="No error if not there.")
@click.pass_obj
def rm(session: Session, names: tuple[str, ...], force: bool) -> int:
    """Set by the decorator."""
    volumes = _entered(session)
    code = 0
    for name in names:
        if force and not volumes.existing(name):
            continue
        try:
            volumes.remove(name, _users(session))
        except BuildError as error:
            code = max(code, output.report(error))
            continue
        sys.stdout.write(f"{name}\n")
    return code


@command.command(
    "prune", help="Remove volumes that were made without a name, or with -a all, that no container uses."
)
@click.option("-a", "--all", "everything", is_flag=True, help="Those with a name too.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option("--filter", "filters", multiple=True, metavar="KEY=VALUE", help="label, label! or all.")
@click.pass_obj
def prune(session: Session, everything: bool, force: bool, filters: tuple[str, ...]) -> int:
    """Set by the decorator."""
    everything |= any(each.partition("=") == ("all", "=", word) for each in filters for word in _TRUE)
    wanted = [_filter(each, session, prune=True) for each in filters if not each.startswith("all=")]
    volumes = _entered(session)
    if not force and not _agreed("" if everything else "anonymous "):
        return 0
    removed, freed = volumes.prune(
        _users(session), everything=everything, wanted=lambda meta: all(fits(meta) for fits in wanted)
    )
    lines = ["Deleted Volumes:", *removed, "", ""] if removed else [""]
    sys.stdout.write("\n".join(lines).removeprefix("\n") + f"Total reclaimed space: {text.size(freed)}\n")
    return 0


def _volumes(session: Session) -> Volumes:
    from builder.container.volumes import Volumes

    return Volumes(session.state.root)


def _entered(session: Session) -> Volumes:
    """The volumes, to be removed: what containers wrote may belong to ids that only their namespace has."""
    from builder.cli.isolating import isolated

    isolated(session, None)
    return _volumes(session)


def _users(session: Session) -> Callable[[str], Sequence[str]]:
    """Who uses a volume, by its name."""
    from builder.container.store import users_of

    return lambda name: users_of(session.state.root, name)


def _agreed(which: str) -> bool:
    """Whether the person at the keyboard wants that."""
    sys.stdout.write(f"WARNING! This will remove {which}volumes not used by at least one container.\n")
    sys.stdout.write("Are you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _row(meta: Meta) -> dict[str, str]:
    labels = ",".join(f"{key}={value}" for key, value in sorted(_labels(meta).items()))
    return {"Driver": "local", "Labels": labels, "Mountpoint": meta.path, "Name": meta.name, "Scope": "local",
            **_UNKNOWN}  # fmt: skip


def _document(meta: Meta) -> dict[str, object]:
    return {
        "CreatedAt": meta.created,
        "Driver": "local",
        "Labels": _labels(meta) or None,
        "Mountpoint": meta.path,
        "Name": meta.name,
        "Options": None,
        "Scope": "local",
    }


def _labels(meta: Meta) -> dict[str, str]:
    return {**meta.labels, **({_ANONYMOUS: ""} if meta.anonymous else {})}


def _filter(written: str, session: Session, *, prune: bool = False) -> Filter:
    """What `--filter KEY=VALUE` asks for. Raises UsageError for keys that do not exist."""
    key, equals, value = written.partition("=")
    if not equals:
        raise UsageError(f"--filter {written!r} is no KEY=VALUE", hint="e.g. --filter label=app=web")
    label, has_value, content = value.partition("=")

    def labelled(meta: Meta) -> bool:
        labels = _labels(meta)
        return label in labels and (not has_value or labels[label] == content)

    match key:
        case "label":
            return labelled
        case "label!" if prune:
            return lambda meta: not labelled(meta)
        case "dangling" if not prune:
            if value.lower() not in (*_TRUE, *_FALSE):
                raise UsageError(f"--filter {written!r}: expected dangling=true or dangling=false")
            users, free = _users(session), value.lower() in _TRUE
            return lambda meta: (not users(meta.name)) == free
        case "name" if not prune:
            return lambda meta: value in meta.name
        case "driver" if not prune:
            return lambda meta: value == "local"
    known = "label, label! and all" if prune else "dangling, driver, label and name"
    raise UsageError(f"--filter {key!r} does not exist", hint=f"there are {known}")
