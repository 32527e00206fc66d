"""`pybuild cp`: files into a container, and out of it."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

import click

from builder.cli import text
from builder.cli.isolating import isolated
from builder.cli.session import Session
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.container.copying import Copied, Side

_WRONG = "one of the two is CONTAINER:PATH, the other a path here or -"


@click.command(
    "cp",
    help="Copy files out of a container (CONTAINER:SRC DEST) or into it (SRC CONTAINER:DEST). - in place of "
    "the path here is a tar archive on standard output or input.",
)
@click.argument("source", metavar="[CONTAINER:]SRC")
@click.argument("target", metavar="[CONTAINER:]DEST")
@click.option("-a", "--archive", is_flag=True, help="Keep owners by number (else: root inside, you outside).")
@click.option("-L", "--follow-link", "follow", is_flag=True, help="Copy what SRC leads to if it is a link.")
@click.option("-q", "--quiet", is_flag=True, help="Do not tell on a terminal how much was copied.")
@click.pass_obj
def command(session: Session, source: str, target: str, archive: bool, follow: bool, quiet: bool) -> None:
    """Set by the decorator."""
    (from_word, from_path), (to_word, to_path) = split(source), split(target)
    if bool(from_word) == bool(to_word):
        both = "files are not copied from container to container" if from_word else "no container is named"
        raise UsageError(f"{both}: {_WRONG}", hint="a name here that has a colon is written ./NAME")
    word, inside = (from_word, from_path) if from_word else (to_word, to_path)
    outside = to_path if from_word else from_path
    if not inside or not outside:
        raise UsageError(f"a path is missing: {_WRONG}")
    if outside == "-" and from_word and os.isatty(1):
        raise UsageError("an archive does not go to a terminal", hint="name a path, or pipe it on")
    gc.enable()
    done = _copied(session, word, inside, outside, out=bool(from_word), archive=archive, follow=follow)
    for note in done.notes:
        sys.stderr.write(f"warning: {note}\n")
    if not quiet and os.isatty(2) and outside != "-":
        sys.stderr.write(f"Successfully copied {text.size(done.size)} to {target}\n")


def split(argument: str) -> tuple[str, str]:
    """A container's name, "" for none, and a path. What begins with a slash or a point is a path here."""
    word, colon, path = argument.partition(":")
    if not colon or argument.startswith(("/", ".")):
        return "", argument
    if not word:
        raise UsageError(f"{argument!r}: a container's name is missing before the colon")
    return word, path


def _copied(
    session: Session, word: str, inside: str, outside: str, *, out: bool, archive: bool, follow: bool
) -> Copied:
    from builder.cli.containing import shown
    from builder.container import copying
    from builder.container.copying import Side

    isolated(session, None)
    with session.state.lease(), shown(session, word, write=not out) as (root, alive):
        there = Side(root, os.fsencode(inside), f"{word}:{inside}", True)
        if outside == "-" and out:
            return copying.send(there, _write, alive, follow=follow)
        if outside == "-":
            from oci.compress import open_compressed
            from oci.tar import TarReader

            return copying.receive(
                TarReader(open_compressed(sys.stdin.buffer)), there, alive, archive=archive
            )
        here = _here(outside)
        try:
            source, target = (there, here) if out else (here, there)
            return copying.copy(source, target, alive, follow=follow, archive=archive)
        finally:
            os.close(here.root)


def _here(path: str) -> Side:
    """A path of ours, from the root: what `..` and links mean is found out there."""
    from builder.container.copying import Side

    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    whole = os.path.join(os.getcwd(), path)
    return Side(root, os.fsencode(whole), path, False)


def _write(block: bytes) -> None:
    from oci.durable import write_all

    write_all(1, block)
