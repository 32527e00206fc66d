"""Values as Go's templates see them: objects with fixed fields, what is not there, functions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

Value = object


class Struct(dict[str, "Value"]):
    """An object with a fixed set of fields, as Go's structs: `zeros` are those that it may lack, and what a
    template sees then. JSON shows only those that are there.
    """

    __slots__ = ("zeros",)

    def __init__(self, value: Mapping[str, Value], zeros: Mapping[str, Value]) -> None:
        super().__init__(value)
        self.zeros = zeros


class NilList(list["Value"]):
    """A list that is not there: it has no element, and is null in JSON."""


class NilMap(dict[str, "Value"]):
    """A map that is not there: it has no key, and is null in JSON."""


class Nil:
    """A pointer to nothing: null in JSON, and false."""

    def __bool__(self) -> bool:
        return False


def go(value: Value) -> str:
    """A value as Go prints it."""
    match value:
        case None:
            return "<no value>"
        case Nil():
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case Mapping():
            return f"map[{' '.join(f'{key}:{go(value[key])}' for key in sorted(value))}]"
        case list() | tuple():
            return f"[{' '.join(map(go, value))}]"
    return str(value)


def _json(value: Value) -> str:
    found = None if isinstance(value, NilList | NilMap | Nil) else value
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))


def _index(value: Value, *keys: Value) -> Value:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else value[key]  # type: ignore[index]
    return value


_VERB = re.compile(r"%([-+0]*)(\d*)(?:\.(\d+))?([%svdqtxX])")


def _printf(form: str, *values: Value) -> str:
    """Go's verbs for texts, numbers and truth, with flags, width and precision."""
    rest = iter(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        return "%" if verb == "%" else _padded(_verb(verb, next(rest), precision), flags, int(width or 0))

    return _VERB.sub(one, form)


def _verb(verb: str, value: Value, precision: str | None) -> str:
    match verb:
        case "q":
            return json.dumps(value, ensure_ascii=False)
        case "d":
            return str(int(value))  # type: ignore[call-overload]
        case "x" | "X":
            text = f"{value:x}" if isinstance(value, int) else go(value).encode().hex()
            return text.upper() if verb == "X" else text
    return go(value)[: None if precision is None else int(precision)]


def _padded(text: str, flags: str, width: int) -> str:
    if "-" in flags:
        return text.ljust(width)
    return text.zfill(width) if "0" in flags else text.rjust(width)


def _slice(value: str | list[Value], *bounds: int) -> Value:
    """`slice X 1 3` is X[1:3]; as in Go, what lies beyond the end is a mistake."""
    start, end = (*bounds, *(0, len(value))[len(bounds) :])
    if not 0 <= start <= end <= len(value):
        raise IndexError
    return value[start:end]


def _first(wanted: bool) -> Callable[..., Value]:
    """`or` and `and`: the first value that is true, or false; else the last."""
    return lambda *values: next((each for each in values if bool(each) is wanted), values[-1])


FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "and": _first(False),
    "eq": lambda value, *others: any(value == each for each in others),
    "ge": lambda one, other: one >= other,
    "gt": lambda one, other: one > other,
    "index": _index,
    "join": lambda values, by: by.join(values),
    "json": _json,
    "le": lambda one, other: one <= other,
    "len": len,
    "lower": lambda text: text.lower(),
    "lt": lambda one, other: one < other,
    "ne": lambda one, other: one != other,
    "not": lambda value: not value,
    "or": _first(True),
    "print": lambda *values: "".join(map(go, values)),
    "printf": _printf,
    "println": lambda *values: " ".join(map(go, values)) + "\n",
    "slice": _slice,
    "split": lambda text, by: text.split(by),
    "title": lambda text: text.title(),
    "truncate": lambda text, length: text[:length],
    "upper": lambda text: text.upper(),
}
