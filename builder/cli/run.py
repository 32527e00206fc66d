"""`pybuild run`: a program in a new container, in the foreground; the container is gone afterwards."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from builder.cli import limits, output, values
from builder.cli.isolating import ISOLATION, isolated
from builder.cli.session import Session
from builder.errors import BuildError, NotFound, UsageError
from builder.images import Entry, reachable
from oci.errors import OciError

if TYPE_CHECKING:
    from oci.model import Platform

_NO_TERMINAL = 1
"""Docker's exit code for `-i -t` without a terminal."""

_LATER = {
    "-d": ("--detach", True),
    "-p": ("--publish", False),
    "-v": ("--volume", False),
    "--mount": ("--mount", False),
    "--name": ("--name", False),
    "--privileged": ("--privileged", True),
    "--read-only": ("--read-only", True),
    "--cap-add": ("--cap-add", False),
    "--cap-drop": ("--cap-drop", False),
    "--restart": ("--restart", False),
    "--init": ("--init", True),
}
"""Options of docker run that come with the life of containers: long names, and whether they are flags."""


def _later(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    if value:
        raise click.UsageError(
            f"{option.opts[-1]} is not there yet: it comes with the whole life of containers", ctx
        )


@click.command(
    "run",
    help="Run IMAGE's program, or ARG..., in a new container in the foreground. It is gone afterwards.",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("image", metavar="IMAGE")
@click.argument("args", nargs=-1, metavar="[ARG...]", type=click.UNPROCESSED)
@click.option("-i", "--interactive", is_flag=True, help="Pass standard input on.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal of its own.")
@click.option("-e", "--env", "env", multiple=True, metavar="NAME[=VALUE]", help="Set a variable; repeatable.")
@click.option(
    "-u", "--user", default="", metavar="USER[:GROUP]", help="Who runs it (default: the image's USER)."
)
@click.option(
    "-w", "--workdir", default="", metavar="DIR", help="Where it runs (default: the image's WORKDIR)."
)
@click.option("--entrypoint", metavar="PROGRAM", help="In place of the image's ENTRYPOINT; empty for none.")
@click.option("-h", "--hostname", default="", metavar="NAME", help="The container's host name.")
@click.option(
    "--network",
    type=click.Choice(["default", "bridge", "none", "host"]),
    default="default",
    help="What it may reach.",
)
@click.option(
    "--security-opt",
    "security_opts",
    multiple=True,
    metavar="OPTION",
    help="no-new-privileges, seccomp=unconfined (needs --allow security.insecure).",
)
@click.option("--allow", multiple=True, metavar="ENTITLEMENT", help="Allow it security.insecure.")
@click.option("--add-host", "hosts", multiple=True, metavar="HOST:IP", help="One more line in /etc/hosts.")
@ISOLATION
@click.option("--platform", metavar="OS/ARCH", help="Of an index the image for this (default: this machine).")
@click.option("--rm", is_flag=True, help="Accepted: the container is always gone afterwards.")
@click.option(
    "--pull",
    type=click.Choice(["missing", "always", "never"]),
    default="missing",
    help="When to ask a registry for IMAGE (default: when the store has none).",
)
@limits.options(build=False)
@click.help_option("--help")
@click.pass_obj  # fmt: skip
def command(session: Session, /, image: str, args: tuple[str, ...], **flags: Any) -> int:
    """Set by the decorator."""
    limits.enter_scope(flags)
    if flags["tty"] and flags["interactive"] and not os.isatty(0):
        output.report(UsageError("the input device is not a TTY", hint="leave out -t, or -i"))
        return _NO_TERMINAL
    from builder.container.run import RunRequest, run
    from builder.events import discard
    from builder.registries import Access, Registries

    try:
        request = RunRequest(
            args=args,
            entrypoint=flags["entrypoint"],
            env=tuple(values.variables("--env", flags["env"]).items()),
            user=flags["user"],
            workdir=flags["workdir"],
            hostname=flags["hostname"],
            network="default" if flags["network"] == "bridge" else flags["network"],
            extra_hosts=values.hosts(flags["hosts"]),
            security_opts=values.security_opts(flags["security_opts"]),
            allow=frozenset(each for one in flags["allow"] for each in one.split(",")),
            interactive=flags["interactive"],
            terminal=flags["tty"],
            limits=limits.container(flags),
        )
        gc.enable()
        isolated(session, flags["isolation"])
        images = session.images

        def start() -> int:
            entry = _entry(session, image, flags["pull"], flags["platform"])
            with session.state.lease() as lease:
                lease.add(reachable(images.layout.blobs, [entry.descriptor]))
                with Registries(Access(config=session.config), images, discard) as registries:
                    fetch = registries.fetcher(entry.image)
                    return run(request, entry.image, session.state, images.layout.blobs, fetch)

        return session.again(start)
    except (BuildError, OciError) as error:
        output.report(error, debug=session.debug)
        return output.RUN_FAILED


def _entry(session: Session, name: str, pull: str, platform: str | None) -> Entry:
    """The image to run, with all its layers: the store's, or pulled as docker run does it."""
    from oci import platforms

    platform = platform or os.environ.get("DOCKER_DEFAULT_PLATFORM")
    wanted = platforms.parse(platform) if platform else None
    try:
        if pull == "always":
            raise NotFound("whatever is here")
        entry = session.images.resolve(name)
        if wanted is not None:
            entry = session.images.choose(entry, wanted)
    except NotFound:
        if pull == "never":
            raise
        entry = _pulled(session, name, wanted or platforms.host())
    _warn_if_foreign(entry, wanted or platforms.host(), asked=wanted is not None)
    session.complete(entry.image.descriptor)
    return entry


def _warn_if_foreign(entry: Entry, wanted: Platform, *, asked: bool) -> None:
    """Say that an image is for another machine, which nobody asked for."""
    from oci import platforms

    if not asked and platforms.best(wanted, [entry.image.platform]) is None:
        sys.stderr.write(
            f"warning: the image is for {entry.image.platform}, this machine is {wanted}; "
            f"--platform {entry.image.platform} says that it is meant\n"
        )


def _pulled(session: Session, name: str, platform: Platform) -> Entry:
    from builder.cli import remote

    reference = remote.reference(name)
    with remote.registries(session, remote.access(session), verb="Pulling") as registries:
        registries.pull(reference, platform)
    return session.images.choose(session.images.resolve(name), platform)


for _short, (_long, _flag) in _LATER.items():
    command.params.append(
        click.Option(list(dict.fromkeys((_short, _long))), is_flag=_flag, multiple=not _flag, hidden=True,
                     expose_value=False, callback=_later)
    )  # fmt: skip
