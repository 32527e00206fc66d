"""`--on-failure=shell`: a shell in the step that failed, on the terminal that standard input is."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from builder.errors import BuildError, SandboxError, UsageError
from builder.events import Emit, TerminalTaken, stamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from builder.sandbox.spec import Exit
    from builder.solver.failed import FailedStep

HINT = "--on-failure=shell enters this step"
_NO_PROGRAM = (126, 127)


def entering(wanted: str | None, emit: Emit) -> Callable[[FailedStep], None] | None:
    """What to do with a failed step, for `build`."""
    return (lambda failed: _enter(failed, emit)) if wanted else None


def needs_terminal(wanted: str | None) -> None:
    """Raises UsageError where a shell could not be used."""
    if wanted and not os.isatty(0):
        raise UsageError(
            f"--on-failure={wanted} needs a terminal on standard input",
            hint="leave it out where nobody is there to type: in CI, in pipes",
        )


def suggest(error: BuildError) -> None:
    """Add the hint that the step can be entered, where that is so."""
    if error.enterable and os.isatty(0):
        error.hint = f"{error.hint}; {HINT}" if error.hint else HINT


def _enter(failed: FailedStep, emit: Emit) -> None:
    from builder.cli.output import show

    signal.setitimer(signal.ITIMER_REAL, 0)  # `--timeout` is the build's, and all of it has ended
    emit(TerminalTaken(failed.step.digest, stamp()))
    where = f"{failed.error.at}: " if failed.error.at else ""
    show(f"{where}{failed.error}")
    show("entering the step as it was then: `exit` leaves it, and nothing that is done there is kept")
    try:
        for program in failed.programs():
            if _ran(failed, program):
                return
    except SandboxError as error:
        show(f"the step cannot be entered: {error}")
        return
    show(f"the step cannot be entered: it has no shell: {_neither(failed.programs())}")


def _neither(programs: tuple[str, ...]) -> str:
    return (
        f"{programs[0]} cannot be run in it"
        if len(programs) == 1
        else f"neither {' nor '.join(programs)} can be run in it"
    )


def _ran(failed: FailedStep, program: str) -> bool:
    """Run one shell to its end; False when there is no such program in the step."""
    from builder.container.terminal import attach, own_terminal, size_of

    with own_terminal() as ours, failed.entered(program, size_of(ours)) as running:
        ended: Exit | None = attach(running, ours, ours)
    return ended is None or not ended.error or ended.status not in _NO_PROGRAM
