"""JSON as the image-spec's documents need it: strict to read, stable to write, errors that name the place.

Two readers that understand one document differently are how one image becomes two (CVE-2021-41190), so
whatever leaves room for that is refused here: duplicate keys, `NaN`, lone surrogates (RFC 7493, I-JSON), and
keys that Go would match though they differ in case.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isinf
from typing import Any

from oci.digest import Digest
from oci.errors import InvalidDigest, InvalidDocument, LimitExceeded

MAX_DOCUMENT = 4 << 20
"""The largest manifest, index or config anyone reads or writes, in bytes."""

MAX_DEPTH = 200
"""How deep arrays and objects may nest: what is read must be written again, whatever stack is left then."""

_LARGEST = (1 << 63) - 1


def loads(content: bytes, what: str) -> Any:
    """The value of JSON text. `what` names the document in errors.

    Raises LimitExceeded beyond MAX_DOCUMENT and InvalidDocument on anything I-JSON does not allow.
    """
    if len(content) > MAX_DOCUMENT:
        raise LimitExceeded(f"{what}: {len(content)} bytes; a document may have {MAX_DOCUMENT}")
    try:
        text = content.decode("utf-8")
        value = json.loads(
            text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite
        )
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _check_depth(value)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate has no UTF-8
    except UnicodeError as error:
        raise InvalidDocument(f"{what}: not UTF-8: {error}") from None
    except RecursionError:
        raise InvalidDocument(f"{what}: nested too deeply") from None
    except ValueError as error:
        raise InvalidDocument(f"{what}: not valid JSON: {error}") from None
    return value


def dumps(value: object) -> bytes:
    """Compact UTF-8, keys in the order given. Unlike Go's default, `<`, `>` and `&` stay themselves."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r} stands twice in one object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if isinf(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _check_depth(value: Any) -> None:
    level = _containers([value])
    for _ in range(MAX_DEPTH):
        level = [inner for each in level for inner in _containers(each)]
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _containers(value: dict[str, Any] | list[Any]) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value
    return [item for item in items if isinstance(item, dict | list)]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def kept(known: dict[str, object], extra: Mapping[str, object]) -> dict[str, object]:
    """`known`, then what we do not know but must not lose, sorted: equal values give equal bytes."""
    return {**known, **{key: extra[key] for key in sorted(extra) if key not in known}}


class Fields:
    """A JSON object being read field by field; `rest` is what nobody asked for.

    Absent and `null` mean the same, as they do to Go. Errors are InvalidDocument with the JSON path.
    """

    __slots__ = ("_asked", "_value", "path")

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise InvalidDocument(f"{path}: expected an object, not {_kind(value)}")
        self._value: dict[str, Any] = value
        self._asked: set[str] = set()
        self.path = path

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def at(self, key: str) -> str:
        """The path of `key`, for messages."""
        return f"{self.path}.{key}"

    def get(self, key: str) -> Any:
        """The bare value, None when absent."""
        self._asked.add(key)
        return self._value.get(key)

    def rest(self, *, exact: bool = False) -> dict[str, Any]:
        """The fields nobody asked for; `exact` refuses those that Go would take for a known one."""
        rest = {key: value for key, value in self._value.items() if key not in self._asked}
        if exact and rest:
            known = {key.casefold(): key for key in self._asked}
            for key in rest:
                if key.casefold() in known:
                    raise InvalidDocument(
                        f"{self.at(key)}: differs from {known[key.casefold()]!r} only in case; "
                        "readers would disagree on what it means"
                    )
        return rest

    def text(self, key: str, *, need: bool = False) -> str:
        """A string, "" when absent; `need` refuses both."""
        value = self.get(key)
        if value is None or value == "":
            if need:
                raise InvalidDocument(f"{self.at(key)}: missing")
            return ""
        return _text(value, self.at(key))

    def number(self, key: str, default: int | None = None) -> int:
        """A whole number that fits 64 bits; without a default it must be there."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not -_LARGEST <= value <= _LARGEST:
            raise InvalidDocument(f"{self.at(key)}: expected a whole number, not {_kind(value)}")
        return value

    def flag(self, key: str) -> bool:
        """A boolean, False when absent."""
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            raise InvalidDocument(f"{self.at(key)}: expected true or false, not {_kind(value)}")
        return bool(value)

    def texts(self, key: str) -> tuple[str, ...] | None:
        """An array of strings; None when absent, which is not the same as empty."""
        value = self.get(key)
        if value is None:
            return None
        return tuple(
            _text(item, f"{self.at(key)}[{i}]") for i, item in enumerate(_array(value, self.at(key)))
        )

    def mapping(self, key: str) -> dict[str, str]:
        """An object whose values are strings; empty when absent."""
        value = self.get(key)
        if value is None:
            return {}
        items = Fields(value, self.at(key))._value.items()
        return {name: _text(item, f"{self.at(key)}[{name!r}]") for name, item in items}

    def names(self, key: str) -> tuple[str, ...]:
        """The keys of an object used as a set (Go's `map[string]struct{}`), sorted; empty when absent."""
        value = self.get(key)
        return () if value is None else tuple(sorted(Fields(value, self.at(key))._value))

    def object(self, key: str) -> Fields | None:
        """A nested object, None when absent."""
        value = self.get(key)
        return None if value is None else Fields(value, self.at(key))

    def objects(self, key: str) -> tuple[Fields, ...]:
        """An array of objects; empty when absent."""
        value = self.get(key)
        if value is None:
            return ()
        return tuple(
            Fields(item, f"{self.at(key)}[{i}]") for i, item in enumerate(_array(value, self.at(key)))
        )

    def digest(self, key: str) -> Digest:
        """A digest that must be there."""
        return _digest(self.text(key, need=True), self.at(key))

    def digests(self, key: str) -> tuple[Digest, ...]:
        """An array of digests; empty when absent."""
        return tuple(_digest(item, f"{self.at(key)}[{i}]") for i, item in enumerate(self.texts(key) or ()))


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise InvalidDocument(f"{path}: expected a string, not {_kind(value)}")
    return value


def _array(value: object, path: str) -> Iterable[object]:
    if not isinstance(value, list):
        raise InvalidDocument(f"{path}: expected an array, not {_kind(value)}")
    return value


def _digest(text: str, path: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDigest as error:
        raise InvalidDocument(f"{path}: {error}") from None


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    return json.dumps(value) if isinstance(value, bool | int | float) else type(value).__name__
