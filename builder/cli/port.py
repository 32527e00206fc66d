"""`pybuild port`: where a container's ports are published."""

from __future__ import annotations

import sys

import click

from builder import roster
from builder.cli import container_filters, containers
from builder.cli.session import Session
from builder.errors import NotFound, UsageError


@click.command("port", help="List the published ports of a container, or where one of them is.")
@click.argument("name", metavar="CONTAINER")
@click.argument("port", required=False, metavar="[PORT[/tcp|/udp]]")
@click.pass_obj
def command(session: Session, name: str, port: str | None) -> None:
    """Set by the decorator."""
    each = container_filters.one_of(roster.listed(session.root), name)
    bound = containers.ports(each)
    if port is None:
        shown = sorted(bound, key=lambda one: (one.container_port, one.protocol, one.host_ip, one.host_port))
        sys.stdout.write("".join(f"{one.inside} -> {containers.outside(one)}\n" for one in shown))
        return
    number, _, protocol = port.partition("/")
    if not number.isdecimal() or protocol.lower() not in ("", "tcp", "udp"):
        raise UsageError(f"{port!r} is no port", hint="e.g. 80 or 53/udp")
    inside = f"{int(number)}/{protocol.lower() or 'tcp'}"
    found = [one for one in bound if one.inside == inside]
    if not found:
        raise NotFound(
            f"no public port {inside!r} published for {each.name}", hint=f"pybuild port {each.name}"
        )
    sys.stdout.write("".join(f"{containers.outside(one)}\n" for one in found))
