"""Options of `docker build` and `buildah build` that wait for a later version, for which pybuild has another
way, or that have nothing to do here. Each is known, so that nobody is left guessing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import click

_LATER = {
    "--cache-from": "cache import and export",
    "--cache-to": "cache import and export",
    "--attest": "attestations",
    "--provenance": "attestations",
    "--sbom": "attestations",
    "--policy": "policies",
}
"""What an option of docker build waits for."""

_DNS = "steps ask the name servers of this machine; --add-host gives a name an address"
_CAPABILITIES = "a step has docker's capabilities, or with RUN --security=insecure all of the builder's"
_USERNS = "--isolation rootless gives steps a user namespace, with the ids of /etc/subuid and /etc/subgid"
_RUNTIME = "steps run in pybuild's own sandbox: there is no OCI runtime, and no hooks"
_OTHERWISE: Mapping[tuple[str, ...], str] = {
    ("-v", "--volume"): "--build-context NAME=DIR, and RUN --mount=type=bind,from=NAME,target=... there",
    ("--cap-add",): _CAPABILITIES,
    ("--cap-drop",): _CAPABILITIES,
    ("--dns",): _DNS,
    ("--dns-option",): _DNS,
    ("--dns-search",): _DNS,
    ("--userns",): _USERNS,
    ("--userns-uid-map",): _USERNS,
    ("--userns-gid-map",): _USERNS,
    ("--userns-uid-map-user",): _USERNS,
    ("--userns-gid-map-group",): _USERNS,
    ("--from",): "--build-context BASE=docker-image://IMAGE puts an image in the place of a base",
    ("--logfile",): "2>FILE; the whole output of every step is in the store, below logs/",
    ("--hooks-dir",): _RUNTIME,
    ("--runtime",): _RUNTIME,
}  # fmt: skip
"""What to do instead of an option that takes a value."""

_SWITCHES: Mapping[str, str] = {
    "--save-stages": "-t STAGE=NAME keeps the image of a stage; the cache has the steps of all",
}
_NOTHING: Mapping[str, str] = {
    "--unsetannotation": "annotations of a base are not inherited",
}
"""Options with a value that have no effect, and why."""

_ACCEPTED = (
    ("--rm/--no-rm",),
    ("--force-rm",),
    ("--compress",),
    ("-D", "--debug"),
    ("--layers/--no-layers",),
    ("--rewrite-timestamp",),
)
"""Switches that say how it is anyway."""

_OFF = ("false", "0", "")


def known(command: click.Command) -> None:
    """Let `command` know all of these options; none of them is in its help."""
    add = command.params.append
    for name in _LATER:
        add(click.Option([name], multiple=True, hidden=True, expose_value=False, callback=_later))
    for names, text in _OTHERWISE.items():
        add(click.Option(names, multiple=True, hidden=True, expose_value=False, callback=_instead(text)))
    for name, text in _SWITCHES.items():
        add(click.Option([name], is_flag=True, hidden=True, expose_value=False, callback=_instead(text)))
    for name, text in _NOTHING.items():
        add(click.Option([name], multiple=True, hidden=True, expose_value=False, callback=_without(text)))
    for names in _ACCEPTED:
        add(click.Option(names, is_flag=True, hidden=True, expose_value=False))
    add(click.Option(["--builder"], hidden=True, expose_value=False))


def _later(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    """Say what an option waits for; switching it off is fine."""
    name = option.opts[0]
    for each in value:
        words = each.lower().split(",")
        if each.lower() not in _OFF and "disabled=true" not in words:
            raise click.UsageError(f"{name} is not there yet: it comes with {_LATER[name]}", ctx)


def _instead(text: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def tell(ctx: click.Context, option: click.Parameter, value: Any) -> None:
        if value:
            raise click.UsageError(f"{option.opts[-1]} is not there; {text}", ctx)

    return tell


def _without(text: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def tell(ctx: click.Context, option: click.Parameter, value: Any) -> None:
        if value:
            sys.stderr.write(f"note: {option.opts[0]} has no effect: {text}\n")

    return tell
