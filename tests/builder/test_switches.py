"""Build arguments that switch something of the builder."""

from __future__ import annotations

import pytest

from builder.errors import UsageError
from builder.switches import KEEP_GIT, is_on


@pytest.mark.parametrize(
    ("value", "on"), [("1", True), ("true", True), ("T", True), ("0", False), ("False", False), ("", False)]
)
def test_a_switch_is_on_or_off(value: str, on: bool) -> None:
    assert is_on({KEEP_GIT: value}, KEEP_GIT) is on


def test_a_switch_that_is_not_given_is_off() -> None:
    assert not is_on({}, KEEP_GIT)


def test_a_switch_is_nothing_else() -> None:
    with pytest.raises(UsageError, match=f"{KEEP_GIT}=maybe: it is true or false"):
        is_on({KEEP_GIT: "maybe"}, KEEP_GIT)
