"""Progress as text that only grows, in BuildKit's words: for logs, CI and pipes.

    #5 [2/4] RUN make
    #5 0.123 a line it printed, 0.123 seconds after it began
    #5 DONE 0.3s

Steps that run at the same time take turns line by line; the number tells whose line it is.
"""

from __future__ import annotations

import threading
from typing import BinaryIO

from builder.cli import text
from builder.cli.lines import Lines, ending
from builder.events import Event, Exported, Note, StepDone, StepLog, StepStarted, Transfer, Warning_


class Plain:
    """Writes events to `out`. Every line that a step prints is written; nothing is clipped."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._steps: dict[str, _Step] = {}
        self._highest = 0
        self._exports = 0
        self._gone = False

    def emit(self, event: Event) -> None:
        """Show one event. May be called from any thread."""
        with self._lock:
            match event:
                case StepStarted():
                    self._start(event)
                case StepLog():
                    self._log(event)
                case StepDone():
                    self._done(event)
                case Transfer():
                    self._transfer(event)
                case Warning_():
                    self._write(warning(event))
                case Note():
                    self._write(f"note: {event.message}\n")
                case Exported():
                    self._exported(event)

    def close(self) -> None:
        """Write what steps left unfinished (they were cancelled)."""
        with self._lock:
            for step in self._steps.values():
                self._lines(step, step.lines.finish(), step.started)

    def _start(self, event: StepStarted) -> None:
        self._highest = max(self._highest, event.number)
        self._steps[event.digest] = _Step(event.number, event.time)
        self._write(f"\n#{event.number} {event.name}\n")

    def _log(self, event: StepLog) -> None:
        if step := self._steps.get(event.digest):
            self._lines(step, step.lines.take(event.data), event.time)

    def _done(self, event: StepDone) -> None:
        step = self._steps.pop(event.digest, None)
        if step is None:
            return
        self._lines(step, step.lines.finish(), event.time)
        end = ending(event) or f"DONE {event.seconds:.1f}s"
        self._write(f"#{step.number} {end}{': ' + event.error if end == 'ERROR' else ''}\n")

    def _lines(self, step: _Step, lines: bytes, now: float) -> None:
        if lines:
            prefix = b"#%d %.3f " % (step.number, max(0.0, now - step.started))
            self._write_bytes(prefix + lines[:-1].replace(b"\n", b"\n" + prefix) + b"\n")

    def _transfer(self, event: Transfer) -> None:
        if event.done:
            amount = f" {text.size(event.current)}" if event.current else ""
            self._write(f"=> {event.what}{amount} done\n")

    def _exported(self, event: Exported) -> None:
        if not self._exports:
            self._exports = self._highest + 1
            self._write(f"\n#{self._exports} exporting\n")
        self._write(f"#{self._exports} {event.message}\n")

    def _write(self, line: str) -> None:
        self._write_bytes(text.safe(line).encode("utf-8", "replace"))

    def _write_bytes(self, data: bytes) -> None:
        if self._gone:
            return
        try:
            self._out.write(data)
            self._out.flush()
        except OSError:
            self._gone = True  # nobody reads any more; the build goes on, its logs are in files


def warning(event: Warning_) -> str:
    """A warning as text: one line, and below it the lines it is about."""
    place = f" ({event.at})" if event.at else ""
    head = f"warning: {event.code}: {event.message}{place}\n"
    return head + "".join(f"   {line}\n" for line in event.excerpt.split("\n") if event.excerpt)


class _Step:
    __slots__ = ("lines", "number", "started")

    def __init__(self, number: int, started: float) -> None:
        self.number = number
        self.started = started
        self.lines = Lines()
