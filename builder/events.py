"""What happens during a build, as data. One stream feeds every progress view and the Python API.

An `Emit` is called from any thread; a receiver must not block for long and must not raise.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from oci.data import dataclass


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step begins. `number` counts from 1 in the order in which steps begin; `name` is the line people
    read.

    `stage` and `position` are the parts of `[stage 2/5]`; `log_path` is the step's complete raw log, when
    it has one.
    """

    digest: str
    number: int
    name: str
    time: float
    stage: str = ""
    log_path: str = ""


@dataclass(frozen=True, slots=True)
class StepLog:
    """Raw bytes that a step printed, in order."""

    digest: str
    data: bytes
    time: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What the processes of a step used: CPU seconds, bytes of memory, bytes of block devices.

    `memory` is the peak of the largest process; `memory_all`, of all together with their page cache, is known
    (not 0) where a limit on memory holds.
    """

    cpu_user_s: float
    cpu_system_s: float
    memory: int
    memory_all: int
    read: int
    written: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step ended: `cached` when nothing was executed, `error` when it failed, `seconds` its wall-clock
    time. `usage` is that of a step that ran a program."""

    digest: str
    time: float
    seconds: float
    cached: bool = False
    error: str = ""
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """Progress of bytes that move: unpacking a base, writing a layer, an export. `total` 0 is unknown."""

    id: str
    what: str
    current: int
    total: int
    time: float
    done: bool = False


@dataclass(frozen=True, slots=True)
class Warning_:
    """Something that people should know and that stops nothing. `at` is `file:line` or empty."""

    code: str
    message: str
    at: str = ""
    excerpt: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth a line, and no reason to worry."""

    message: str
    time: float


@dataclass(frozen=True, slots=True)
class Exported:
    """An output or a name was written: the line people see."""

    message: str
    time: float


@dataclass(frozen=True, slots=True)
class TerminalTaken:
    """A program takes the terminal for itself: whoever draws on it stops. `digest` is the step it runs in.
    Nothing of the build happens afterwards."""

    digest: str
    time: float


Event = StepStarted | StepLog | StepDone | Transfer | Warning_ | Note | Exported | TerminalTaken
Emit = Callable[[Event], None]


def stamp() -> float:
    """This moment, as events carry it."""
    return time.time()


def discard(event: Event) -> None:
    """An `Emit` that drops everything."""
