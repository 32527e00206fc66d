"""`pybuild run`: a program in a new container, in the foreground or, with `-d`, in the background."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from builder.cli import creating, limits, output, starting
from builder.cli.isolating import isolated
from builder.cli.session import Session
from builder.errors import BuildError, NotFound, UsageError
from oci.errors import OciError

if TYPE_CHECKING:
    from builder.container.model import Container

_NO_TERMINAL = 1
"""Docker's exit code for `-i -t` without a terminal."""


@click.command(
    "run",
    help="Run IMAGE's program, or ARG..., in a new container.",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("image", metavar="IMAGE")
@click.argument("args", nargs=-1, metavar="[ARG...]", type=click.UNPROCESSED)
@click.option("-d", "--detach", is_flag=True, help="In the background: print the container's id.")
@click.option(
    "--detach-keys", default="ctrl-p,ctrl-q", metavar="KEYS", help="Keys that leave it running, with -i -t."
)
@click.option("--sig-proxy/--no-sig-proxy", default=True, hidden=True)
@creating.options
@click.help_option("--help")
@click.pass_obj
def command(session: Session, /, image: str, args: tuple[str, ...], **flags: Any) -> int:
    """Set by the decorator."""
    limits.enter_scope(flags)
    if flags["auto_remove"] is None:
        flags["auto_remove"] = not _is_to_stay(flags)
    if flags["tty"] and flags["interactive"] and not flags["detach"] and not os.isatty(0):
        output.report(UsageError("the input device is not a TTY", hint="leave out -t, or -i"))
        return _NO_TERMINAL
    from builder.container.client import detach_keys

    try:
        gc.enable()
        isolated(session, flags["isolation"])
        keys = detach_keys(flags["detach_keys"])
        with starting.ready(session, image, flags) as ready:
            container = starting.created(session, image, ready, args, flags)
        return _run(session, container, ready, flags, keys)
    except (BuildError, OciError) as error:
        return starting.failed(session, error, output.RUN_FAILED)


def _is_to_stay(flags: dict[str, Any]) -> bool:
    """Whether somebody will ask for the container when it has ended, as far as the options tell."""
    return bool(flags["detach"] or flags["name"] or flags["cidfile"])


def _run(
    session: Session, container: Container, ready: starting.Ready, flags: dict[str, Any], keys: bytes
) -> int:
    from builder.container import lifecycle
    from builder.container.client import Streams

    try:
        connection, said = starting.started(session, container, ready, attach=not flags["detach"])
    except BaseException:
        if flags["auto_remove"]:
            with suppress(NotFound):  # its monitor may have done it
                lifecycle.remove(session.state, container.id, force=True, volumes=True)
        raise
    for warning in said["warnings"]:
        sys.stderr.write(f"warning: {warning}\n")
    if connection is None:
        sys.stdout.write(container.id + "\n")
        return 0
    request = container.request
    streams = Streams(
        stdin=request.interactive, terminal=request.terminal, signals=flags["sig_proxy"], detach=keys
    )
    return starting.joined(connection, streams, container)
