"""What earlier builds learned: step key -> the layer it made. Losing it loses only time.

Two kinds of rows share one table. A *record* stands under the key of a result. An *alias* stands under a
definition key and names the key of the result it led to; it also says that the definition was seen before, so
that checksums are worth computing before anything is written.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Protocol

from oci.data import dataclass
from oci.digest import Digest
from oci.errors import InvalidDigest
from oci.layer import Layer


class Rows(Protocol):
    """The table behind the cache (`builder.state`)."""

    def get(self, key: str) -> str | None: ...

    def put(self, key: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What a step made. `layer` None is an empty diff; `snapshot` names the directory it left, if any.

    `created` is the RFC 3339 time of its first execution, `clock` the clock its layer was written with
    (None
    without one), `seconds` how long it took.
    """

    layer: Layer | None
    created: str
    snapshot: str = ""
    clock: int | None = None
    seconds: float = 0.0


class Cache:
    """Records and aliases by key."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def record(self, key: str) -> StepRecord | None:
        """The record under `key`; a row that cannot be read is no record."""
        text = self._rows.get(key)
        if text is None:
            return None
        try:
            return _decode(json.loads(text))
        except (ValueError, KeyError, TypeError, InvalidDigest):
            return None

    def alias(self, definition: str) -> str | None:
        """The key that `definition` last led to; None when it was never seen."""
        return self._rows.get("alias:" + definition)

    def store(self, key: str, record: StepRecord) -> None:
        """Remember what the step under `key` made."""
        fields = asdict(record)
        if record.layer is not None:
            fields["layer"] |= {"digest": str(record.layer.digest), "diff_id": str(record.layer.diff_id)}
        self._rows.put(key, json.dumps(fields))

    def store_alias(self, definition: str, key: str) -> None:
        """Remember that `definition` led to `key`."""
        self._rows.put("alias:" + definition, key)


def now() -> str:
    """This moment as RFC 3339 in UTC, with nanoseconds as Docker writes them."""
    nanoseconds = time.time_ns()
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"


def at_clock(clock: int) -> str:
    """A clock's moment as RFC 3339 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock))


def _decode(fields: dict[str, object]) -> StepRecord:
    layer = fields["layer"]
    if isinstance(layer, dict):
        digests = {name: Digest.parse(layer[name]) for name in ("digest", "diff_id")}
        fields["layer"] = Layer(**{**layer, **digests})
    return StepRecord(**fields)  # type: ignore[arg-type]
