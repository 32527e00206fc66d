"""What the commands that talk to registries share: their options, and what they make of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from builder.cli.progress import watching
from builder.cli.session import Session
from builder.errors import UsageError
from oci.errors import InvalidReference
from oci.reference import Reference

if TYPE_CHECKING:
    from builder.events import Emit, Event
    from builder.registries import Access, Registries

Command = Callable[..., Any]

DOCKER = "docker://"
"""How a registry's images may be written, as in skopeo; without it is meant the same."""

TLS_VERIFY = click.option(
    "--tls-verify",
    type=click.BOOL,
    default=None,
    metavar="true|false",
    help="false: accept any certificate, and plain http.",
)
AUTHFILE = click.option(
    "--authfile", default="", metavar="FILE", help="The only file to look for credentials in."
)
CREDS = click.option("--creds", default="", metavar="USER[:PASSWORD]", help="In place of those of a login.")
CERT_DIR = click.option(
    "--cert-dir",
    default="",
    metavar="DIR",
    help="Certificates for the registry: *.crt are authorities, *.cert and *.key a client's.",
)
OFFLINE = click.option("--offline", is_flag=True, help="Ask nothing of the network.")
QUIET = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")


def with_access(command: Command) -> Command:
    """Add the options that say how registries are reached."""
    return AUTHFILE(CREDS(CERT_DIR(TLS_VERIFY(command))))


def asked(session: Session, flags: Mapping[str, Any], *hosts: str) -> Access:
    """How registries are reached, by the options of `with_access`, perhaps with `OFFLINE`; `--creds` is for
    `hosts` alone."""
    return access(
        session,
        authfile=flags["authfile"],
        cert_dir=flags["cert_dir"],
        tls_verify=flags["tls_verify"],
        offline=flags.get("offline", False),
        credentials=tuple((host, flags["creds"]) for host in dict.fromkeys(hosts)),
    )


def access(
    session: Session,
    *,
    authfile: str = "",
    cert_dir: str = "",
    tls_verify: bool | None = None,
    offline: bool = False,
    credentials: tuple[tuple[str, str], ...] = (),
    retries: int | None = None,
    retry_delay_s: float = 0.0,
) -> Access:
    """How registries are reached; `credentials` are (host, user[:password]), of which empty ones are none.

    A password that is left out is asked for, once for each text. Raises UsageError without a terminal.
    """
    from builder.registries import Access

    texts = dict.fromkeys(text for _, text in credentials if text)
    if any(text.partition(":")[2] for text in texts):
        warn("a password on the command line can be read by every user of this machine (ps)")
    pairs = {text: _credential(text) for text in texts}
    given = tuple((host, *pairs[text]) for host, text in credentials if text)
    return Access(
        config=session.config,
        authfile=authfile,
        cert_dir=_directory(cert_dir),
        credentials=given,
        tls_verify=tls_verify,
        offline=offline,
        retries=retries,
        retry_delay_s=retry_delay_s,
    )


@contextmanager
def registries(session: Session, access: Access, *, verb: str, quiet: bool = False) -> Iterator[Registries]:
    """Registries for one command, its transfers shown on standard error and its blobs kept while it runs."""
    from builder.registries import Registries

    with shown(verb, quiet) as emit, session.state.lease():
        session.images.layout.blobs.clean()
        with Registries(access, session.images, emit) as found:
            yield found


@contextmanager
def shown(verb: str, quiet: bool = False) -> Iterator[Emit]:
    """What happens, on standard error; quietly only what people must know."""
    if quiet:
        yield _only_warnings
        return
    with watching("auto", verb) as emit:
        yield emit


def _only_warnings(event: Event) -> None:
    from builder.events import Warning_

    if isinstance(event, Warning_):
        warn(event.message)


def reference(text: str) -> Reference:
    """An image of a registry, as people write it. Raises UsageError."""
    try:
        return Reference.parse(text.removeprefix(DOCKER))
    except InvalidReference as error:
        raise UsageError(str(error)) from None


def host_of(text: str) -> str:
    """A registry as people write it, perhaps as a URL; "" is Docker Hub. Raises UsageError."""
    name = text.partition("://")[2] if text.startswith(("http://", "https://")) else text
    name = name.rstrip("/").removesuffix("/v1").removesuffix("/v2")
    if name in ("", "docker.io", "index.docker.io", "registry-1.docker.io"):
        return "docker.io"
    try:
        domain = Reference.parse(f"{name}/some/image").domain
    except InvalidReference:
        domain = ""
    if domain != name:
        raise UsageError(
            f"{text!r} is no registry", hint="HOST[:PORT], with a dot or a port in it, or localhost"
        )
    return domain


def warn(text: str) -> None:
    """Tell people something."""
    sys.stderr.write(f"warning: {text}\n")


def _credential(text: str) -> tuple[str, str]:
    """User and password; neither is in the text of an error, for it may be the password itself."""
    user, colon, password = text.partition(":")
    if not user or (colon and not password):
        raise UsageError("--creds: expected USER[:PASSWORD]")
    if password:
        return user, password
    if not sys.stdin.isatty():
        raise UsageError(
            "--creds: there is no password, and no terminal to ask on",
            hint="USER:PASSWORD, or pybuild login --password-stdin",
        )
    return user, str(click.prompt("Password", hide_input=True, err=True))


def _directory(path: str) -> str:
    if path and not os.path.isdir(path):
        raise UsageError(f"--cert-dir {path!r} is no directory")
    return path
