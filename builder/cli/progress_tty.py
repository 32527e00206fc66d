"""Progress as a live view: a line for each step, under the running ones the last lines they printed.

What a step prints is kept only as far as it can be seen, and drawn a few times a second: a step that prints a
gigabyte is not slowed down by it. All text is made harmless before it is drawn (SECURITY.md R26).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from builder.cli import text
from builder.cli.colours import colours
from builder.cli.lines import cleaned, ending
from builder.events import (
    Emit,
    Event,
    Exported,
    Note,
    StepDone,
    StepLog,
    StepStarted,
    TerminalTaken,
    Transfer,
    Warning_,
)

_PER_SECOND = 8
_TAIL_BYTES = 4096
_TAIL_LINES = 6


@contextmanager
def live(verb: str = "Building") -> Iterator[Emit]:
    """A live view on standard error until the block ends; its last state stays on the screen."""
    console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=False)
    view = View(verb)
    with Live(
        view, console=console, refresh_per_second=_PER_SECOND, redirect_stdout=False, redirect_stderr=False
    ) as drawing:

        def emit(event: Event) -> None:
            if isinstance(event, TerminalTaken):
                view.finish()
                drawing.stop()
            view.emit(event)

        try:
            yield emit
        finally:
            view.finish()


class _Row:
    """One line: a step, a transfer, a message."""

    __slots__ = ("end", "error", "excerpt", "name", "seconds", "started", "tail")

    def __init__(self, name: str, started: float) -> None:
        self.name = name
        self.started = started
        self.seconds: float | None = None
        self.end = ""
        self.error = ""
        self.tail = b""
        self.excerpt = ""


class View:
    """The state of a build as rich draws it."""

    def __init__(self, verb: str = "Building") -> None:
        self._verb = verb
        self._colours = colours()
        self._lock = threading.Lock()
        self._began = time.time()
        self._rows: dict[str, _Row] = {}
        self._steps = 0
        self._done = 0
        self._finished = False

    def emit(self, event: Event) -> None:
        """Take one event; drawing is another thread's work."""
        with self._lock:
            match event:
                case StepLog():
                    if row := self._rows.get(event.digest):
                        row.tail = (row.tail + event.data[-_TAIL_BYTES:])[-_TAIL_BYTES:]
                case StepStarted():
                    self._steps += 1
                    self._rows[event.digest] = _Row(event.name, event.time)
                case StepDone():
                    self._step_done(event)
                case Transfer():
                    self._transfer(event)
                case Exported():
                    row = self._rows[f"exported {len(self._rows)}"] = _Row(event.message, event.time)
                    row.seconds = 0.0
                case Note():
                    row = self._rows[f"note {len(self._rows)}"] = _Row(event.message, event.time)
                    row.seconds, row.end = 0.0, "NOTE"
                case Warning_():
                    place = f" ({event.at})" if event.at else ""
                    row = self._rows[f"warning {len(self._rows)}"] = _Row(
                        f"{event.code}: {event.message}{place}", self._began
                    )
                    row.seconds, row.end, row.excerpt = 0.0, "WARN", event.excerpt

    def finish(self) -> None:
        """Stop the clocks: the next drawing is the last."""
        with self._lock:
            self._finished = True
            now = time.time()
            for row in self._rows.values():
                if row.seconds is None:
                    row.seconds, row.end = now - row.started, "CANCELED"

    def _step_done(self, event: StepDone) -> None:
        if row := self._rows.get(event.digest):
            self._done += 1
            row.seconds, row.error = event.seconds, event.error
            row.end = ending(event)
            if row.end != "ERROR":
                row.tail = b""

    def _transfer(self, event: Transfer) -> None:
        row = self._rows.setdefault(f"transfer {event.id}", _Row("", event.time))
        amount = f" {text.size(event.current)}" if event.current or event.total else ""
        row.name = event.what + amount + (f" / {text.size(event.total)}" if event.total else "")
        row.seconds = event.time - row.started if event.done else None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            lines = self._lines(options.max_width)
            height = None if self._finished else max(3, console.height - 1)
        if height is not None and len(lines) > height:
            lines = [lines[0], *lines[len(lines) - height + 1 :]]
        yield Text("\n").join(lines)

    def _lines(self, width: int) -> list[Text]:
        state = f"{self._done}/{self._steps}"
        if any(row.end == "ERROR" for row in self._rows.values()):
            state = "failed"
        elif self._finished and self._done == self._steps:
            state = "finished"
        steps = f" ({state})" if self._steps or self._verb == "Building" else ""
        lines = [Text(f"[+] {self._verb} {time.time() - self._began:.1f}s{steps}", "bold")]
        for row in self._rows.values():
            lines.append(_line(row, width, self._colours))
            if self._finished and row.excerpt:
                # Until then the steps need the screen.
                lines += [_clipped(f"    {each}", width) for each in row.excerpt.split("\n")]
            if row.seconds is None or row.end == "ERROR":
                lines += _tail(row, width)
        return lines


def _line(row: _Row, width: int, styles: Mapping[str, str]) -> Text:
    elapsed = time.time() - row.started if row.seconds is None else row.seconds
    clock = f"{max(0.0, elapsed):.1f}s"
    what = {"ERROR": "error", "WARN": "warning", "CANCELED": "cancel"}.get(row.end, "run")
    style = styles[what] if row.end or row.seconds is not None else ""
    line = Text(f" => {row.end + ' ' if row.end else ''}{_one_line(row.name)}", style, no_wrap=True)
    line.truncate(max(1, width - len(clock) - 1), overflow="ellipsis", pad=True)
    return line.append(f" {clock}")


def _tail(row: _Row, width: int) -> list[Text]:
    shown = cleaned(row.tail).decode().rstrip("\n").split("\n")[-_TAIL_LINES:] if row.tail else []
    lines = []
    for each in shown:
        lines.append(_clipped(f" => => {each}", width))
    return lines


def _clipped(text_: str, width: int) -> Text:
    line = Text(text.safe(text_).expandtabs(8), "dim", no_wrap=True)
    line.truncate(width, overflow="ellipsis")
    return line


def _one_line(name: str) -> str:
    return text.safe(name.replace("\n", " ").replace("\t", " "))
