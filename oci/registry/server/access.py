"""The access log: one line of JSON for every request, written at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from oci.registry.server.request import Request

Write = Callable[[bytes], object]


class AccessLog:
    """Tells `write` about every request; nothing if there is none. Credentials are never in it."""

    def __init__(self, write: Write | None) -> None:
        self._write = write

    def tell(self, request: Request, status: int, sent: int, began: float) -> None:
        """A request that was answered, or whose connection ended first (status 0). `began` is monotonic."""
        if self._write is None:
            return
        now = time.time()
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z",
            "remote": request.remote,
            "user": request.user,
            "method": request.method,
            "target": request.target,
            "status": status,
            "received": request.body.received,
            "sent": sent,
            "seconds": round(time.monotonic() - began, 4),
            "agent": request.headers.get("user-agent", ""),
        }
        self._write(json.dumps(line).encode() + b"\n")
