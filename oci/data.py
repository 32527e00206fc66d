"""`dataclass` as the standard library has it, for a third of its start-up time.

The standard library compiles six functions for each class, and every command pays half a millisecond for
each of up to a hundred classes before it begins. Here only `__init__` is compiled; the other methods are
closures over the fields. They mean the same, and what is rare (`order`, say) the standard library does
itself. Its functions (`replace`, `fields`, `asdict`) work on these classes, and type checkers see its own
decorator. A frozen class and its bases must all be made by one or by the other.
"""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, FrozenInstanceError
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass
else:

    def dataclass(cls=None, /, **options):
        """See `dataclasses.dataclass`."""
        if cls is None:
            return lambda cls: dataclass(cls, **options)
        if not _OURS.issuperset(options):
            return dataclasses.dataclass(cls, **options)
        return _made(cls, **options)


__all__ = ["dataclass"]

_OURS = frozenset({"frozen", "slots", "eq", "kw_only"})

Field = dataclasses.Field[Any]


def _made(cls: type, *, frozen: bool = False, eq: bool = True, **options: bool) -> type:
    """`cls` with its fields found (and made slots) by the standard library, and methods by us."""
    own = cls.__dict__
    keeps_hash = own.get("__hash__", own.get("__eq__")) is not None
    cls = dataclasses.dataclass(init=False, repr=False, eq=False, **options)(cls)
    fields = dataclasses.fields(cls)
    params = cls.__dataclass_params__  # type: ignore[attr-defined]
    # It is not told that they are frozen: it would then refuse to derive from them without compiling methods.
    params.init, params.repr, params.eq = True, True, eq
    methods: dict[str, object] = {"__init__": _init(cls, fields), "__repr__": _repr(fields)}
    if eq:
        methods["__eq__"] = _eq(fields)
    if frozen:
        methods |= _frozen(cls, fields)
    for name, method in methods.items():
        if name not in own:
            setattr(cls, name, method)
    if eq and not keeps_hash:
        cls.__hash__ = _hash(fields) if frozen else None  # type: ignore[method-assign, assignment]
    return cls


def _init(cls: type, fields: tuple[Field, ...]) -> object:
    """`__init__`, which sets fields past a `__setattr__` that refuses: a slot by its own descriptor."""
    names: dict[str, object] = {"MISSING": MISSING}
    head, body = ["self"], []
    for field in sorted((each for each in fields if each.init), key=lambda each: bool(each.kw_only)):
        if field.kw_only and "*" not in head:
            head.append("*")
        default = field.default if field.default_factory is MISSING else MISSING
        if default is MISSING and field.default_factory is MISSING:
            head.append(field.name)
        else:
            names[f"default_{field.name}"] = default
            head.append(f"{field.name}=default_{field.name}")
    for field in fields:
        if (line := _setting(cls, field, names)) is not None:
            body.append(line)
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    text = f"def __init__({', '.join(head)}):\n " + "\n ".join(body or ["pass"])
    exec(text, names)
    function: Any = names["__init__"]
    function.__qualname__, function.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    return function


def _setting(cls: type, field: Field, names: dict[str, object]) -> str | None:
    """The line that gives a field its value; None for one that has none at first."""
    value = field.name
    if field.default_factory is not MISSING:
        names[f"make_{field.name}"] = field.default_factory
        value = f"make_{field.name}()"
        if field.init:
            value = f"{value} if {field.name} is MISSING else {field.name}"
    elif not field.init:
        return None
    slot = getattr(cls, field.name, None)
    if type(slot).__name__ == "member_descriptor":
        names[f"set_{field.name}"] = slot.__set__  # type: ignore[union-attr]
        return f"set_{field.name}(self, {value})"
    names["put"] = object.__setattr__
    return f"put(self, {field.name!r}, {value})"


def _compared(names: list[str]) -> Callable[[Any], object]:
    """What of an object is compared: its fields in order, quickly."""
    return attrgetter(*names) if names else lambda _: ()


def _eq(fields: tuple[Field, ...]) -> object:
    key = _compared([each.name for each in fields if each.compare])

    def __eq__(self: object, other: object) -> bool:
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    return __eq__


def _hash(fields: tuple[Field, ...]) -> object:
    hashed = [each.name for each in fields if (each.compare if each.hash is None else each.hash)]
    key = _compared(hashed)

    def __hash__(self: object) -> int:
        return hash(key(self))

    return __hash__


def _repr(fields: tuple[Field, ...]) -> object:
    shown = [each.name for each in fields if each.repr]

    def __repr__(self: object) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{self.__class__.__qualname__}({values})"

    return __repr__


def _frozen(cls: type, fields: tuple[Field, ...]) -> dict[str, object]:
    """Methods of an object whose fields stay; copies and pickles of one with slots need two of them."""
    names = frozenset(each.name for each in fields)

    def __setattr__(self: object, name: str, value: object) -> None:
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)  # type: ignore[arg-type]

    def __delattr__(self: object, name: str) -> None:
        if type(self) is cls or name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)  # type: ignore[arg-type]

    def __getstate__(self: object) -> list[object]:
        return [getattr(self, each.name) for each in fields]

    def __setstate__(self: object, state: list[object]) -> None:
        for each, value in zip(fields, state, strict=True):
            object.__setattr__(self, each.name, value)

    methods: dict[str, object] = {"__setattr__": __setattr__, "__delattr__": __delattr__}
    if "__slots__" in cls.__dict__:
        methods |= {"__getstate__": __getstate__, "__setstate__": __setstate__}
    return methods
