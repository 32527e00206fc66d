"""The options of `run` and `create`, and what they ask for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from builder.cli import limits, values
from builder.cli.isolating import ISOLATION
from builder.cli.session import Session
from builder.errors import NotFound, UsageError
from builder.images import Entry

if TYPE_CHECKING:
    from builder.container.model import RunRequest
    from builder.container.volume_options import Volume
    from oci.model import Platform

F = TypeVar("F", bound=Callable[..., Any])

_LATER = {
    "--restart": False,
    "--init": True,
    "--link": False,
    "--device": False,
    "--gpus": False,
}
"""Options of docker run that are not there yet, and whether they are flags."""


def _later(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    if value and value != ("no",):
        raise click.UsageError(f"{option.opts[-1]} is not there yet", ctx)


_OPTIONS = (
    click.option("-i", "--interactive", is_flag=True, help="Keep standard input open, and pass it on."),
    click.option("-t", "--tty", is_flag=True, help="Give it a terminal of its own."),
    click.option("--name", default="", metavar="NAME", help="The container's name (default: two words)."),
    click.option("--rm/--keep", "auto_remove", default=None,
                 help="Remove the container when it has ended, or keep it."),
    click.option("-e", "--env", "env", multiple=True, metavar="NAME[=VALUE]", help="A variable; repeatable."),
    click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Variables, one per line."),
    click.option("-p", "--publish", "ports", multiple=True, metavar="[[IP:]PORT:]PORT[/udp]",
                 help="Have a port of the container on the host; repeatable."),
    click.option("-P", "--publish-all", is_flag=True, help="Publish every port that the image exposes."),
    click.option("-v", "--volume", "volumes", multiple=True, metavar="[SOURCE:]DIR[:ro]",
                 help="Mount a directory of the host or a volume; repeatable."),
    click.option("--mount", "mounts", multiple=True, metavar="type=...,src=...,dst=...",
                 help="Mount a bind, volume or tmpfs; repeatable."),
    click.option("--tmpfs", "tmpfs", multiple=True, metavar="DIR[:size=...]",
                 help="Mount a tmpfs; repeatable."),
    click.option("-u", "--user", default="", metavar="USER[:GROUP]",
                 help="Who runs it (default: the image's USER)."),
    click.option("-w", "--workdir", default="", metavar="DIR",
                 help="Where it runs (default: the image's WORKDIR)."),
    click.option("--entrypoint", metavar="PROGRAM",
                 help="In place of the image's ENTRYPOINT; empty for none."),
    click.option("-h", "--hostname", default="", metavar="NAME", help="The container's host name."),
    click.option("--network", "--net", type=click.Choice(["default", "bridge", "none", "host"]),
                 default="default",
                 help="What it may reach."),
    click.option("--add-host", "hosts", multiple=True, metavar="HOST:IP",
                 help="One more line in /etc/hosts."),
    click.option("-l", "--label", "labels", multiple=True, metavar="NAME[=VALUE]",
                 help="A label; repeatable."),
    click.option("--read-only", is_flag=True, help="Let it write to mounts alone."),
    click.option("--privileged", is_flag=True,
                 help="Confine it less, as docker does: every capability, no filter."),
    click.option("--cap-add", multiple=True, metavar="CAPABILITY", help="One capability more; repeatable."),
    click.option("--cap-drop", multiple=True, metavar="CAPABILITY", help="One fewer, or ALL; repeatable."),
    click.option("--security-opt", "security_opts", multiple=True, metavar="OPTION",
                 help="no-new-privileges, seccomp=unconfined (needs --allow security.insecure)."),
    click.option("--allow", multiple=True, metavar="ENTITLEMENT", help="Allow it security.insecure."),
    click.option("--ulimit", "ulimits", multiple=True, metavar="NAME=SOFT[:HARD]",
                 help="Limits of its processes."),
    click.option("--shm-size", default="64m", metavar="SIZE", help="Size of /dev/shm."),
    click.option("--stop-signal", default="", metavar="SIGNAL",
                 help="What stop sends first (default: the image's)."),
    click.option("--stop-timeout", type=float, metavar="SECONDS", help="How long stop waits (default: 10)."),
    click.option("--cidfile", metavar="FILE", help="Write the container's id there."),
    ISOLATION,
    click.option("--platform", metavar="OS/ARCH",
                 help="Of an index the image for this (default: this machine)."),
    click.option("--pull", type=click.Choice(["missing", "always", "never"]), default="missing",
                 help="When to ask a registry for IMAGE (default: when the store has none)."),
)  # fmt: skip


def options(command: F) -> F:
    """Decorates a command with them."""
    for name, flag in _LATER.items():
        command = click.option(
            name, is_flag=flag, multiple=not flag, hidden=True, expose_value=False, callback=_later
        )(command)
    command = limits.options(build=False)(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def request(flags: dict[str, Any], args: tuple[str, ...], entry: Entry) -> RunRequest:
    """What was asked for. Raises UsageError."""
    from builder.container.model import STOP_TIMEOUT_S, RunRequest
    from builder.container.operation import known_capabilities
    from builder.container.ports import exposed, parse
    from builder.container.signals import number_of

    if flags["stop_signal"]:
        number_of(flags["stop_signal"], option="--stop-signal")
    ports = parse(flags["ports"])
    if flags["publish_all"]:
        ports = (*ports, *exposed(entry.image.config.value.config.exposed_ports, ports))
    timeout = flags["stop_timeout"]
    return RunRequest(
        args=args,
        entrypoint=flags["entrypoint"],
        env=tuple((env_files(flags["env_files"]) | values.variables("--env", flags["env"])).items()),
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
        ulimits=values.ulimits(flags["ulimits"]),
        shm_size=values.size("--shm-size", flags["shm_size"]),
        privileged=flags["privileged"],
        read_only=flags["read_only"],
        added=known_capabilities("--cap-add", flags["cap_add"]),
        dropped=known_capabilities("--cap-drop", flags["cap_drop"]),
        ports=ports,
        volumes=_volumes(flags),
        labels=tuple(values.pairs("--label", flags["labels"], empty=True).items()),
        stop_signal=flags["stop_signal"],
        stop_timeout_s=STOP_TIMEOUT_S if timeout is None else timeout,
        auto_remove=bool(flags["auto_remove"]),
    )


def _volumes(flags: dict[str, Any]) -> tuple[Volume, ...]:
    from builder.container.volumes import parse, parse_mounts, parse_tmpfs

    def warn(text: str) -> None:
        sys.stderr.write(f"warning: {text}\n")

    return (
        *parse(flags["volumes"], warn),
        *parse_mounts(flags["mounts"]),
        *parse_tmpfs(flags["tmpfs"]),
    )


def env_files(paths: Iterable[str]) -> dict[str, str]:
    """The variables in files of `NAME[=VALUE]` lines; `#` begins a comment. Raises UsageError."""
    found: dict[str, str] = {}
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.strip() for line in file]
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--env-file {path}: {error}") from None
        found |= values.variables("--env-file", [each for each in lines if each and each[0] != "#"])
    return found


def entry(session: Session, name: str, pull: str, platform: str | None) -> Entry:
    """The image to run, with all its layers: the store's, or pulled as docker run does it."""
    from oci import platforms

    platform = platform or os.environ.get("DOCKER_DEFAULT_PLATFORM")
    wanted = platforms.parse(platform) if platform else None
    try:
        if pull == "always":
            raise NotFound("whatever is here")
        found = session.images.resolve(name)
        if wanted is not None:
            found = session.images.choose(found, wanted)
    except NotFound:
        if pull == "never":
            raise
        found = _pulled(session, name, wanted or platforms.host())
    _warn_if_foreign(found, wanted or platforms.host(), asked=wanted is not None)
    session.complete(found.image.descriptor)
    return found


def write_cidfile(path: str | None, ident: str) -> None:
    """Write a container's id where that is wanted; a file that is there already is an error, as with
    docker.
    """
    if path:
        try:
            with open(path, "x", encoding="ascii") as file:
                file.write(ident)
        except FileExistsError:
            raise UsageError(
                f"--cidfile {path}: it is there already", hint="remove it, or name another file"
            ) from None


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
