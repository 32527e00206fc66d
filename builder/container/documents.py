"""Data classes as JSON documents and back: what is remembered of a container.

A field that a document lacks has its default, one that nobody knows is passed over: an older and a newer
pybuild read each other's.
"""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from typing import Any, TypeVar

T = TypeVar("T")


def encoded(value: object) -> Any:
    """`value` in JSON's types: data classes as objects without the fields that have their default."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: encoded(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if getattr(value, field.name) != _default(field)
        }
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [encoded(each) for each in value]
    return value


def decoded(kind: type[T], document: Any) -> T:
    """The data class `kind` out of its document. Raises ValueError for what is none."""
    if not isinstance(document, dict):
        raise ValueError(f"a {kind.__name__} is an object")
    hints = _hints(kind)
    try:
        return kind(**{name: _value(hints[name], each) for name, each in document.items() if name in hints})
    except (TypeError, KeyError) as error:
        raise ValueError(f"no {kind.__name__}: {error}") from None


def _default(field: dataclasses.Field[Any]) -> object:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _hints(kind: type) -> dict[str, Any]:
    """The fields' types, of which some are imported for type checkers alone."""
    from builder.container import model
    from builder.container.ports import Port
    from builder.container.volume_options import Volume
    from builder.limiting import Limiting
    from builder.sandbox.spec import Limits

    names = vars(model) | {"Port": Port, "Volume": Volume, "Limiting": Limiting, "Limits": Limits}
    return typing.get_type_hints(kind, vars(sys.modules[kind.__module__]), names)


def _value(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return (
            None
            if value is None
            else _value(next(each for each in arguments if each is not type(None)), value)
        )
    if origin is tuple:
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_value(each, one) for each, one in zip(kinds, value, strict=True))
    if origin is frozenset:
        return frozenset(value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return decoded(hint, value)
    return value
