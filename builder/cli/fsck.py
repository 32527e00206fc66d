"""`pybuild fsck`: is the store sound?"""

from __future__ import annotations

import gc
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from builder.cli import text
from builder.cli.session import Session

if TYPE_CHECKING:
    from builder.scrub import Scrub
    from builder.snapshot.overlay import Snapshots


@click.command("fsck", help="Verify everything in the store: blobs, names, unpacked layers, the build cache.")
@click.option(
    "--repair",
    is_flag=True,
    help="Put damaged blobs aside and take away what leads nowhere: it is fetched or made again when needed.",
)
@click.option(
    "--incremental", is_flag=True, help="Pass over blobs found sound within a week and not touched since."
)
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to show faults."
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing: the exit code tells.")
@click.pass_obj
def command(session: Session, repair: bool, incremental: bool, form: str, quiet: bool) -> int:
    """Set by the decorator."""
    from builder.scrub import Scrub

    gc.enable()
    faults = []
    with ExitStack() as stack:
        snapshots = _snapshots(session, stack)
        scrub = Scrub(session.state, session.images, snapshots, repair=repair, incremental=incremental)
        for fault in scrub.run():
            faults.append(fault)
            if form == "text" and not quiet:
                sys.stdout.write(f"{text.safe(str(fault))}\n")
    if form == "json" and not quiet:
        import json

        rows = [{"kind": f.kind, "what": f.what, "fault": f.fault, "mended": f.mended} for f in faults]
        sys.stdout.write(json.dumps(rows) + "\n")
    if not quiet:
        sys.stderr.write(_summary(scrub, len(faults)))
    return 1 if any(not fault.mended or fault.mended.startswith("left") for fault in faults) else 0


def _snapshots(session: Session, stack: ExitStack) -> Snapshots | None:
    """The unpacked layers, from where their owners can be read; None, with a word, where they cannot."""
    from builder.cli.isolating import isolated
    from builder.errors import SandboxError
    from builder.isolation import current
    from builder.snapshot.overlay import opened

    try:
        isolated(session, None)
    except SandboxError as error:
        sys.stderr.write(f"unpacked layers are left out: {text.safe(str(error))}\n")
        return None
    return stack.enter_context(opened(session.state.snapshots, current()))


def _summary(scrub: Scrub, faults: int) -> str:
    counts = scrub.counts
    passed = f" ({counts['passed over']} more passed over)" if counts["passed over"] else ""
    found = _counted(faults, "fault") if faults else "nothing wrong"
    looked = (_counted(counts["blob"], "blob") + passed, _counted(counts["name"], "name"))
    return f"{', '.join(looked)}, {_counted(counts['snapshot'], 'unpacked layer')}: {found}\n"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
