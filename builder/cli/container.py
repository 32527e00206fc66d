"""`pybuild container ...`: docker's other names of the commands about containers, and `prune`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from builder.cli import text
from builder.cli.alias import Aliases, same
from builder.cli.session import Session

if TYPE_CHECKING:
    from builder.roster import Listed

_KNOWN = {
    **same("attach", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "pause", "port",
           "rename", "restart", "rm", "run", "start", "stop", "top", "unpause", "wait"),
    "inspect": ("inspect", "--type", "container"),
    **dict.fromkeys(("ls", "list", "ps"), ("ps",)),
}  # fmt: skip

command = Aliases("container", "The commands about containers, by docker's longer names; prune.", _KNOWN)


@command.command("prune", help="Remove all containers that do not run.")
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="until=TIME (made before), label=NAME[=VALUE] or label!=NAME[=VALUE].",
)
@click.pass_obj  # fmt: skip
def prune(session: Session, force: bool, filters: tuple[str, ...]) -> int:
    """Set by the decorator."""
    from builder import roster
    from builder.cli import containers, output, removing
    from builder.cli.isolating import isolated
    from builder.errors import BuildError, UsageError

    wanted = [_filter(each) for each in filters]
    if not force:
        sys.stderr.write("WARNING! This will remove all stopped containers.\n")
        sys.stderr.write("Are you sure you want to continue? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            sys.stderr.write("container prune has been cancelled\n")
            return 1
    isolated(session, None)
    code, freed = 0, 0
    gone: list[str] = []
    for each in roster.listed(session.state.root):
        if each.alive or not all(fits(each) for fits in wanted):
            continue
        written = containers.written_bytes(session, each)
        try:
            removing.remove(session, each.id)
        except (BuildError, OSError) as error:
            if not (isinstance(error, UsageError) and _runs(session, each.id)):  # started just now
                code = max(code, output.report(error, debug=session.debug))
            continue
        gone.append(each.id)
        freed += written
    if gone:
        sys.stdout.write("Deleted Containers:\n" + "".join(f"{each}\n" for each in gone) + "\n")
    sys.stdout.write(f"Total reclaimed space: {text.size(freed)}\n")
    return code


def _runs(session: Session, ident: str) -> bool:
    from builder.container.store import Containers

    return Containers(session.state.root).is_watched(ident)


def _filter(written: str) -> Callable[[Listed], bool]:
    from builder.cli.logs import moment
    from builder.errors import UsageError

    key, _, value = written.partition("=")
    if key == "until" and value:
        limit = moment("--filter until", value)
        if limit > moment("now", f"{time.time():.6f}"):
            raise UsageError(f"--filter {written}: that is in the future")
        return lambda each: each.created < limit
    if key in ("label", "label!") and value:
        name, has_value, content = value.partition("=")

        def fits(each: Listed) -> bool:
            labels = dict(each.config.get("labels") or [])
            return (name in labels and (not has_value or labels[name] == content)) is (key == "label")

        return fits
    raise UsageError(f"--filter {written!r} does not exist", hint="there are until, label and label!")
