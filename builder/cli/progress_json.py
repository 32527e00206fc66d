"""Progress for programs: one JSON object for each event, on a line of its own, on standard error.

`type` is step-started, step-log, step-done, transfer, warning, exported or terminal-taken; the other names
are the fields of `builder.events`. What a step printed is raw bytes: `data` is base64.
"""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from typing import BinaryIO

from builder.events import (
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

_TYPES = {
    StepStarted: "step-started",
    StepLog: "step-log",
    StepDone: "step-done",
    Transfer: "transfer",
    Warning_: "warning",
    Note: "note",
    Exported: "exported",
    TerminalTaken: "terminal-taken",
}


class JsonLines:
    """Writes events to `out`, each at once."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def emit(self, event: Event) -> None:
        """Write one event. May be called from any thread."""
        line = json.dumps(document(event), ensure_ascii=False, separators=(",", ":"))
        with self._lock:
            try:
                self._out.write(line.encode("utf-8", "backslashreplace") + b"\n")
                self._out.flush()
            except OSError:
                pass  # nobody reads any more; the build goes on


def document(event: Event) -> dict[str, object]:
    """An event as plain JSON values."""
    fields = {name: getattr(event, name) for name in event.__slots__}
    if isinstance(event, StepLog):
        fields["data"] = b64encode(event.data).decode("ascii")
    if isinstance(event, StepDone) and event.usage is not None:
        fields["usage"] = {name: getattr(event.usage, name) for name in event.usage.__slots__}
    return {"type": _TYPES[type(event)], **fields}
