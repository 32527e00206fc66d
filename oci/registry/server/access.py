"""The access log: one line of JSON for every request, written at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from oci.registry.redact import redact
from oci.registry.server.request import Request

Write = Callable[[bytes], object]
_PARAMETERS = frozenset(
    {"digest", "digest-algorithm", "mount", "from", "n", "last", "artifactType", "tag"}
)  # fmt: skip


class AccessLog:
    """Tells `write` about every request; nothing if there is none. Credentials are never in it (S66): of
    headers only the agent is shown, of the query's values only those that the API has."""

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
            "target": _shown(request.target),
            "status": status,
            "received": request.body.received,
            "sent": sent,
            "seconds": round(time.monotonic() - began, 4),
            "agent": redact(request.headers.get("user-agent", ""), 300),
        }
        self._write(json.dumps(line).encode() + b"\n")


def _shown(target: str) -> str:
    path, mark, query = target.partition("?")
    if not path.startswith("/"):  # absolute-form, which may name a user
        path = "/" + path.partition("://")[2].partition("/")[2]
    shown = (part if part.partition("=")[0] in _PARAMETERS else "***" for part in query.split("&"))
    return path + mark + ("&".join(shown) if query else "")
