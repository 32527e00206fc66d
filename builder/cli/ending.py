"""Commands that do one thing to each of several containers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from builder.cli import output
from builder.cli.session import Session
from builder.container.store import Containers
from builder.errors import BuildError
from oci.errors import OciError


def each(session: Session, words: Iterable[str], act: Callable[[str], str | None]) -> int:
    """Call `act` with the id that each word means, and print the word (or what `act` gives) as docker does.
    One that fails is reported, and the others are done all the same.
    """
    containers, code = Containers(session.state.root), 0
    for word in words:
        try:
            said = act(containers.find(word))
        except (BuildError, OciError, OSError) as error:
            code = max(code, output.report(error, debug=session.debug))
            continue
        sys.stdout.write(f"{said or word}\n")
    return code
