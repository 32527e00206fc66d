"""`pybuild run`: a program in a new container, in the foreground."""

from __future__ import annotations

import click

from builder.cli import output, values
from builder.cli.session import Session
from builder.errors import BuildError, UsageError
from oci.errors import OciError


@click.command(
    "run",
    help="Run a program in a new container, which is gone afterwards.",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@click.argument("image", metavar="IMAGE")
@click.argument("args", nargs=-1, metavar="[ARG...]", type=click.UNPROCESSED)
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, hidden=True)
@click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; repeatable.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Run as this user of the image.")
@click.option("-w", "--workdir", default="", metavar="DIR", help="Start in this directory.")
@click.option("--entrypoint", metavar="PROGRAM", help="Instead of the image's ENTRYPOINT.")
@click.option("--hostname", default="", metavar="NAME", help="The container's host name.")
@click.option("--add-host", "hosts", multiple=True, metavar="HOST:IP", help="One more line in /etc/hosts.")
@click.option(
    "--network",
    type=click.Choice(["default", "bridge", "none", "host"]),
    default="default",
    help="What it may reach.",
)
@click.option("--rm", is_flag=True, hidden=True, expose_value=False)
@click.pass_obj  # fmt: skip
def command(
    session: Session,
    image: str,
    args: tuple[str, ...],
    interactive: bool,
    tty: bool,
    env: tuple[str, ...],
    user: str,
    workdir: str,
    entrypoint: str | None,
    hostname: str,
    hosts: tuple[str, ...],
    network: str,
) -> int:
    """Set by the decorator."""
    from builder.container.run import RunRequest, run

    if tty:
        raise UsageError("-t is not there yet: terminals come with the life of containers", hint="-i works")
    request = RunRequest(
        args=args,
        entrypoint=entrypoint,
        env=tuple(values.build_args(env).items()),
        user=user,
        workdir=workdir,
        hostname=hostname,
        network="none" if network == "none" else "host" if network == "host" else "default",
        extra_hosts=values.hosts(hosts),
        interactive=interactive,
    )
    try:
        found = session.images.resolve(image)
        return run(request, found.image, session.state, session.images.layout.blobs)
    except (BuildError, OciError) as error:
        output.report(error, debug=session.debug)
        return 125  # Docker's: the container could not be started
