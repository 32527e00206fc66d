"""`pybuild attach`: our streams joined to those of a running container."""

from __future__ import annotations

import os

import click

from builder.cli.session import Session
from builder.errors import UsageError


@click.command("attach", help="Join the streams of a running container; its exit code is ours.")
@click.argument("name", metavar="CONTAINER")
@click.option("--no-stdin", is_flag=True, help="Only look.")
@click.option("--detach-keys", default="ctrl-p,ctrl-q", metavar="KEYS", help="Keys that leave it running.")
@click.option("--sig-proxy/--no-sig-proxy", default=True, help="Pass signals on to it (default).")
@click.pass_obj
def command(session: Session, name: str, no_stdin: bool, detach_keys: str, sig_proxy: bool) -> int:
    """Set by the decorator."""
    from builder.cli import starting
    from builder.container import client, lifecycle
    from builder.container.store import Containers

    containers = Containers(session.state.root)
    container = containers.get(containers.find(name))
    if lifecycle.need_running(containers, container.id).status == "paused":
        raise UsageError(f"the container {container.name} is paused", hint="pybuild unpause lets it go on")
    request = container.request
    stdin = request.interactive and not no_stdin
    if stdin and request.terminal and not os.isatty(0):
        raise UsageError("the input device is not a TTY", hint="--no-stdin only looks")
    streams = client.Streams(
        stdin=stdin, terminal=request.terminal, signals=sig_proxy, detach=client.detach_keys(detach_keys)
    )
    return starting.joined(lifecycle.attach(session.state, container.id, stdin=stdin), streams, container)
