"""`pybuild start`: containers that were created or have ended run (again)."""

from __future__ import annotations

import gc
import os
import sys

import click

from builder.cli import ending, starting
from builder.cli.isolating import ISOLATION, isolated
from builder.cli.session import Session
from builder.errors import BuildError, UsageError
from oci.errors import OciError


@click.command("start", help="Start containers that were created, or have ended.")
@click.argument("names", nargs=-1, required=True, metavar="CONTAINER...")
@click.option("-a", "--attach", is_flag=True, help="Show what it prints, and end with its exit code.")
@click.option("-i", "--interactive", is_flag=True, help="Attach standard input too.")
@click.option("--detach-keys", default="ctrl-p,ctrl-q", metavar="KEYS", help="Keys that leave it running.")
@ISOLATION
@click.pass_obj
def command(
    session: Session,
    names: tuple[str, ...],
    attach: bool,
    interactive: bool,
    detach_keys: str,
    isolation: str | None,
) -> int:
    """Set by the decorator."""
    if (attach or interactive) and len(names) > 1:
        raise UsageError("only one container at a time can be attached to")
    gc.enable()
    isolated(session, isolation)
    if not (attach or interactive):
        return ending.each(session, names, lambda ident: again(session, ident))
    try:
        return _attached(session, names[0], interactive, detach_keys)
    except (BuildError, OciError) as error:
        return starting.failed(session, error, 1)


def again(session: Session, ident: str) -> None:
    """Start a container in the background, unless it runs."""
    from builder.container.store import Containers

    containers = Containers(session.state.root)
    container = containers.get(ident)
    if containers.state(ident).alive:
        return  # as docker: it runs, which is what was asked for
    _, said = starting.started(session, container, starting.ready_again(session, container), attach=False)
    for warning in said["warnings"]:
        sys.stderr.write(f"warning: {warning}\n")


def _attached(session: Session, name: str, interactive: bool, keys: str) -> int:
    from builder.container.client import Streams, detach_keys
    from builder.container.store import Containers

    containers = Containers(session.state.root)
    container = containers.get(containers.find(name))
    request = container.request
    stdin = interactive and request.interactive
    if stdin and request.terminal and not os.isatty(0):
        raise UsageError("the input device is not a TTY", hint="leave out -i")
    ready = starting.ready_again(session, container)
    connection, _ = starting.started(session, container, ready, attach=True)
    assert connection is not None
    streams = Streams(stdin=stdin, terminal=request.terminal, detach=detach_keys(keys))
    return starting.joined(connection, streams, container)
