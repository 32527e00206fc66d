"""Words for people, and text from elsewhere made harmless."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.cli import text


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0B"), (999, "999B"), (1000, "1kB"), (1536, "1.54kB"), (77_800_000, "77.8MB"),
        (999_999, "1000kB"), (1_140_000, "1.14MB"), (123_456_789_012, "123GB"), (10**18, "1000PB"),
    ],
)  # fmt: skip
def test_sizes_are_dockers(count: int, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.5, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"),
        (119, "About a minute"), (120, "2 minutes"), (3600, "About an hour"), (7200, "2 hours"),
        (47 * 3600, "47 hours"), (48 * 3600, "2 days"),
        (13 * 86400, "13 days"), (14 * 86400, "2 weeks"), (59 * 86400, "8 weeks"), (60 * 86400, "2 months"),
        (700 * 86400, "23 months"), (800 * 86400, "2 years"), (-5, "Less than a second"),
    ],
)  # fmt: skip
def test_durations_are_dockers(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T00:00:10.5Z", 10.5),
        ("1970-01-01T00:00:10.123456789Z", 10.123456),
        ("1970-01-01T01:00:10+01:00", 10.0),
        ("1970-01-01T01:00:10.123456789+01:00", 10.123456),
        ("", None),
        ("yesterday", None),
        ("0001-01-01T00:00:00Z", -62135596800.0),
    ],
)
def test_moments(written: str, moment: float | None) -> None:
    assert text.seconds_of(written) == moment


def test_ages() -> None:
    assert text.age("1970-01-01T00:00:10Z", now=130) == "2 minutes ago"
    assert text.age("") == "N/A" and text.stamp("nothing") == "N/A"


@given(st.text())
def test_nothing_steers_a_terminal(value: str) -> None:
    """SECURITY.md R26."""
    shown = text.safe(value)
    assert not any((ord(char) < 32 and char not in "\t\n") or 0x7F <= ord(char) < 0xA0 for char in shown)
    assert not {"\u202e", "\u2066", "\u200b", "\ufeff"} & set(shown)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b2J", "\\x9b2J"),
        ("a\u202eb", "a\\u202eb"),
        ("déjà 漢字 👩\u200d🔬", "déjà 漢字 👩\u200d🔬"),
    ],
)
def test_safe(value: str, shown: str) -> None:
    assert text.safe(value) == shown


def test_tables_are_dockers() -> None:
    assert text.table([["NAME", "TAG", "SIZE"], ["a-long-name", "1", "3MB"]]) == (
        "NAME          TAG       SIZE\na-long-name   1         3MB\n"
    )
    assert "\x1b" not in text.table([["A", "B"], ["\x1b[2J", "x\ny"]])
