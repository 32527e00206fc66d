"""Platforms: one spelling, and what runs where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci import platforms
from oci.errors import InvalidPlatform
from oci.model import Platform


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/amd64", "linux/amd64"),
        ("Linux/X86_64", "linux/amd64"),
        ("linux/x86-64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/i686", "linux/386"),
        ("linux/ppc64el", "linux/ppc64le"),
        ("linux/s390x", "linux/s390x"),
        ("macos/arm64", "darwin/arm64"),
        (" linux/riscv64 ", "linux/riscv64"),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    platform = platforms.parse(text)
    assert str(platform) == normal
    assert platforms.normalise(platform) == platform == platforms.parse(normal)


def test_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "host", lambda: Platform("linux", "amd64"))
    assert str(platforms.parse("arm64")) == "linux/arm64"
    assert str(platforms.parse("armhf")) == "linux/arm/v7"
    assert str(platforms.parse("windows")) == "windows/amd64"
    assert str(platforms.parse("local")) == "linux/amd64"


@pytest.mark.parametrize(
    "text", ["", "/", "linux/", "/amd64", "a/b/c/d", "plan10", "linux amd64", "linux/a?b"]
)
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidPlatform, match="linux/arm64"):
        platforms.parse(text)


def test_host_is_normal() -> None:
    here = platforms.host()
    assert here.os == "linux"
    assert platforms.normalise(here) == here


@pytest.mark.parametrize(
    ("wanted", "order"),
    [
        ("linux/amd64", "amd64 386"),
        ("linux/amd64/v3", "amd64/v3 amd64/v2 amd64 386"),
        ("linux/arm/v7", "arm/v7 arm/v6 arm/v5"),
        ("linux/arm64", "arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        ("linux/s390x", "s390x"),
    ],
)
def test_fitting(wanted: str, order: str) -> None:
    fitting = platforms.fitting(platforms.parse(wanted))
    assert [str(platform) for platform in fitting] == [f"linux/{one}" for one in order.split()]


def test_best() -> None:
    offers = [
        None,
        *(Platform("linux", *one.split("/")) for one in ("arm/v6", "arm/v7", "arm64/v8", "arm64")),
    ]
    assert platforms.best(platforms.parse("linux/arm64"), offers) == 3
    assert platforms.best(platforms.parse("linux/arm/v7"), offers) == 2
    assert platforms.best(platforms.parse("linux/arm/v5"), offers) is None
    assert platforms.best(platforms.parse("windows/arm64"), offers) is None


def test_os_version_counts_only_where_wanted() -> None:
    old, new = (Platform("windows", "amd64", os_version=version) for version in ("10.0.1", "10.0.2"))
    assert platforms.matches(Platform("windows", "amd64"), old)
    assert not platforms.matches(new, old)


@given(st.text(max_size=20))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        platform = platforms.parse(text)
    except InvalidPlatform:
        return
    assert platforms.parse(str(platform)) == platform
