"""`oci.data.dataclass` against the standard library's, whose meaning it promises."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from dataclasses import field
from typing import Any

import pytest

from oci import data

Decorate = Callable[..., Any]


def plain(dataclass: Decorate, **options: bool) -> Any:
    @dataclass(**options)
    class Plain:
        a: int
        b: str = "b"
        c: list[int] = field(default_factory=list)
        d: int = field(default=4, compare=False)
        e: int = field(default=5, repr=False)
        f: int = field(default=6, hash=False)

    return Plain


def derived(dataclass: Decorate, **options: bool) -> Any:
    @dataclass(**options)
    class Base:
        a: int
        b: int = 2

    @dataclass(**options)
    class Derived(Base):
        c: int = 3

    return Derived


def keyword(dataclass: Decorate, **options: bool) -> Any:
    @dataclass(**options, kw_only=True)
    class Keyword:
        a: int
        b: int = 2

    return Keyword


def made_later(dataclass: Decorate, **options: bool) -> Any:
    @dataclass(**options)
    class MadeLater:
        a: int
        b: int = field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "b", self.a + 1)

    return MadeLater


def own_methods(dataclass: Decorate, **options: bool) -> Any:
    @dataclass(**options)
    class Own:
        a: int

        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return 7

        def __repr__(self) -> str:
            return "own"

    return Own


def no_fields(dataclass: Decorate, **options: bool) -> Any:
    @dataclass(**options)
    class Nothing:
        pass

    return Nothing


MAKERS = (plain, derived, keyword, made_later, own_methods, no_fields)
OPTIONS: tuple[dict[str, bool], ...] = (
    {"frozen": True, "slots": True},
    {"frozen": True},
    {"slots": True},
    {},
    {"eq": False, "frozen": True},
)


def said(action: Callable[[], object]) -> object:
    """What a call gives, or the error it ends in."""
    try:
        return action()
    except Exception as error:
        return type(error), str(error).replace("Plain.", "")


def facts(cls: Any) -> dict[str, object]:
    """All that can be asked of a class and two of its objects."""
    words = {} if cls.__name__ == "Nothing" else {"a": 1}
    one, two = cls(**words), cls(**words)
    found: dict[str, object] = {
        "parameters": [(each.name, each.kind) for each in inspect.signature(cls).parameters.values()],
        "repr": repr(one).replace(cls.__qualname__, ""),
        "equal": one == two,
        "other": one == 1,
        "hashable": said(lambda: hash(one) == hash(two)) if cls.__hash__ is not None else "no",
        "fields": [(each.name, getattr(one, each.name)) for each in dataclasses.fields(one)],
        "slots": getattr(cls, "__slots__", None),
        "match": cls.__match_args__,
        "dict": dataclasses.asdict(one),
        "positional": said(lambda: dataclasses.asdict(cls(1, 2))),
        "unknown": said(lambda: cls(**words, nothing=1))[0],  # type: ignore[index]
    }
    if words:
        found["set"] = said(lambda: setattr(one, "a", 9))
        found["deleted"] = said(lambda: delattr(two, "a"))
        found["replaced"] = dataclasses.asdict(dataclasses.replace(cls(**words), a=3))
        found["missing"] = said(cls)[0]  # type: ignore[index]
    copied = copy.copy(cls(**words))
    return found | {"copied": dataclasses.asdict(copied), "same class": type(copied) is cls}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("maker", MAKERS, ids=lambda each: each.__name__)
def test_means_what_the_standard_library_means(maker: Callable[..., Any], options: dict[str, bool]) -> None:
    assert facts(maker(data.dataclass, **options)) == facts(maker(dataclasses.dataclass, **options))


def test_default_lists_are_not_shared() -> None:
    cls = plain(data.dataclass, frozen=True, slots=True)
    assert cls(1).c is not cls(1).c


def test_what_is_compared_and_what_is_not() -> None:
    cls = plain(data.dataclass, frozen=True, slots=True)
    assert cls(1, c=[], d=1) == cls(1, c=[], d=2)
    assert cls(1) != cls(2)


def test_the_rare_is_left_to_the_standard_library() -> None:
    @data.dataclass(frozen=True, order=True)
    class Ordered:
        a: int

    assert Ordered(1) < Ordered(2)


@data.dataclass(frozen=True, slots=True)
class Pickled:
    """At the module's level, where pickle finds it."""

    a: int
    b: str = "b"


def test_pickles() -> None:
    assert pickle.loads(pickle.dumps(Pickled(3))) == Pickled(3)
