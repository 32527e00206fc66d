"""`pybuild exec`: one more program in a running container."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from builder.cli import output, values
from builder.cli.session import Session
from builder.errors import BuildError, UsageError

_NO_TERMINAL = 1


@click.command(
    "exec",
    help="Run a program in a running container, confined as the container is.",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("name", metavar="CONTAINER")
@click.argument("argv", nargs=-1, required=True, metavar="PROGRAM [ARG...]", type=click.UNPROCESSED)
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal of its own.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait for it.")
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="A variable; repeatable.")
@click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Variables, one per line.")
@click.option(
    "-u", "--user", default="", metavar="USER[:GROUP]", help="Who runs it (default: the container's)."
)
@click.option("-w", "--workdir", default="", metavar="DIR", help="Where it runs (default: the container's).")
@click.option("--privileged", is_flag=True, help="Confine it less: every capability, no filter.")
@click.option("--detach-keys", default="ctrl-p,ctrl-q", metavar="KEYS", help="Keys that leave it running.")
@click.pass_obj
def command(session: Session, /, name: str, argv: tuple[str, ...], **flags: Any) -> int:
    """Set by the decorator."""
    if flags["tty"] and flags["interactive"] and not flags["detach"] and not os.isatty(0):
        output.report(UsageError("the input device is not a TTY", hint="leave out -t, or -i"))
        return _NO_TERMINAL
    try:
        return _execute(session, name, argv, flags)
    except BuildError as error:
        output.report(error, debug=session.debug)
        return 1


def _execute(session: Session, name: str, argv: tuple[str, ...], flags: dict[str, Any]) -> int:
    from builder.cli import creating
    from builder.container import client, lifecycle
    from builder.container.operation import ExecRequest
    from builder.container.store import Containers
    from builder.container.terminal import size_of

    containers = Containers(session.state.root)
    ident = containers.find(name)
    lifecycle.need_running(containers, ident)
    env = creating.env_files(flags["env_files"]) | values.variables("--env", flags["env"])
    request = ExecRequest(
        argv=argv,
        env=tuple(env.items()),
        user=flags["user"],
        workdir=flags["workdir"],
        interactive=flags["interactive"],
        terminal=flags["tty"],
        privileged=flags["privileged"],
    )
    keys = client.detach_keys(flags["detach_keys"])
    connection = lifecycle.execute(session.state, ident, request, size_of(0, 1, 2), detached=flags["detach"])
    streams = client.Streams(
        stdin=flags["interactive"] and not flags["detach"],
        terminal=flags["tty"],
        signals=False,
        detach=keys,
    )
    end = client.attached(connection, streams) or {}
    if end.get("error"):
        sys.stderr.write(f"pybuild: {end['error']}\n")
    return int(end.get("status", 0))
