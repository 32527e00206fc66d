"""`pybuild lock`: what a Dockerfile's images, URLs and repositories mean, into its lock."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

import click

from builder.cli import lending, reading, remote, values
from builder.cli.progress import watching
from builder.cli.session import Session
from builder.cli.text import safe
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.locking import Locking


@click.command(
    "lock",
    help="Write <Dockerfile>.lock: the digests of base images and ADD URLs, the commits of repositories. "
    "What is in it stays, what is new is added, what is gone from the Dockerfile is dropped.",
)
@click.argument("context", metavar="PATH", default=".")
@reading.with_source
@click.option("--update", is_flag=True, help="Ask what everything means now, also what is in the lock.")
@click.option("--check", is_flag=True, help="Write nothing; give 1 when the lock is not as it should be.")
@click.option(
    "--build-context",
    "contexts",
    multiple=True,
    metavar="NAME=SOURCE",
    help="More contexts, as in the build.",
)
@click.option("--secret", "secrets", multiple=True, metavar="id=NAME[,src=FILE|,env=VARIABLE]",
              help="Credentials for URLs and repositories, as in the build.")  # fmt: skip
@click.option(
    "--ssh", multiple=True, metavar="NAME[=SOCKET|=KEY[,KEY]]", help="An ssh agent or keys for repositories."
)
@remote.OFFLINE
@remote.QUIET
@remote.AUTHFILE
@remote.TLS_VERIFY
@click.pass_obj  # fmt: skip
def command(session: Session, /, context: str, **flags: Any) -> int:
    """Set by the decorator."""
    from builder.locking import lock
    from builder.request import BuildRequest

    if flags["update"] and flags["check"]:
        raise UsageError("--update writes the lock, and --check writes nothing: they cannot both be")
    request = BuildRequest(
        **reading.source(context, flags),
        contexts=values.pairs("--build-context", flags["contexts"]),
        secrets=tuple(lending.secret(each) for each in flags["secrets"]),
        ssh=tuple(lending.agent(each) for each in flags["ssh"]),
        access=remote.access(
            session, authfile=flags["authfile"], tls_verify=flags["tls_verify"], offline=flags["offline"]
        ),
        root=session.root,
    )
    gc.enable()
    with watching("quiet" if flags["quiet"] else "auto", "Locking") as emit:
        found = lock(request, emit, update=flags["update"])
    if not flags["check"]:
        found.write()
    _tell(found, check=flags["check"], quiet=flags["quiet"])
    return 1 if flags["check"] and not found.is_current else 0


def _tell(found: Locking, *, check: bool, quiet: bool) -> None:
    """What changed, or should."""
    lines = []
    for name, before, after in found.changes():
        sign = "~" if before and after else "+" if after else "-"
        values_ = f"{before} -> {after}" if before and after else before or after
        lines.append(f"{sign} {name} {values_}\n")
    if not quiet or (check and not found.is_current):
        verdict = "is current" if found.is_current else "is out of date" if check else "is written"
        sys.stderr.write(safe("".join(lines)) + f"{found.path} {verdict}\n")
