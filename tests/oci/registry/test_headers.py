from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.registry import headers
from oci.registry.headers import Challenge
from oci.registry.redact import redact, shown_url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ('Basic realm="x"', (Challenge("basic", {"realm": "x"}),)),
        ("Basic", (Challenge("basic", {}),)),
        (
            'Bearer realm="https://a/t",service="s",scope="repository:x:pull,push"',
            (
                Challenge(
                    "bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:x:pull,push"}
                ),
            ),
        ),
        (
            'Basic realm="b", Bearer realm="https://a/t" , service=s',
            (
                Challenge("basic", {"realm": "b"}),
                Challenge("bearer", {"realm": "https://a/t", "service": "s"}),
            ),
        ),
        (r'BEARER Realm="a\"b"', (Challenge("bearer", {"realm": 'a"b'}),)),
        ("Negotiate, Basic realm=x", (Challenge("negotiate", {}), Challenge("basic", {"realm": "x"}))),
        ("=,=", ()),
    ],
)
def test_challenges(text: str, expected: tuple[Challenge, ...]) -> None:
    assert headers.challenges(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Tue, 14 Nov 2023 22:13:30 GMT", 10.0),
        ("Tue, 14 Nov 2023 22:13:10 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("Tue, 99 Nov 2023 22:13:30 GMT", None),
    ],
)
def test_retry_after(text: str, expected: float | None) -> None:
    """SECURITY.md R12."""
    assert headers.retry_after(text, 1_700_000_000.0) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ('</v2/x/tags/list?n=1&last=a>; rel="next"', "/v2/x/tags/list?n=1&last=a"),
        ("<a>; rel=prev, <b>; rel=next", "b"),
        ('<a>; title="x, y"; rel="last next"', "a"),
        ("<a>", ""),
    ],
)
def test_next_link(text: str, expected: str) -> None:
    assert headers.next_link(text) == expected


def test_ranges() -> None:
    assert headers.received("0-99") == 100
    assert headers.received("bytes=0-99") == 100
    assert headers.received("0-0") == 0
    assert headers.received("5-9") is None
    assert headers.content_range("bytes 5-9/10") == (5, 9, 10)
    assert headers.content_range("bytes 5-9/*") == (5, 9, None)
    assert headers.content_range("5-9") is None


@given(st.text(max_size=200))
def test_any_header_can_be_read(text: str) -> None:
    headers.challenges(text)
    headers.retry_after(text, 0.0)
    headers.next_link(text)
    headers.received(text)
    headers.content_range(text)


@pytest.mark.parametrize(
    "text", [" " * 60_000, "a" * 60_000, "<" * 60_000, "<a>;" * 15_000, ', "' * 20_000, 'a="\\' * 15_000]
)
def test_long_headers_take_no_time(text: str) -> None:
    begin = time.thread_time()
    headers.challenges(text)
    headers.next_link(text)
    redact(text)
    assert time.thread_time() - begin < 10


@pytest.mark.parametrize(
    "text",
    [
        "https://user:CANARY@host/x",
        "GET /v2/x?sig=CANARY",
        "https://host/blob?X-Amz-Signature=CANARY&a=b is gone",
        "Authorization: Bearer CANARYCANARY",
        "authorization=CANARY",
        "Basic Q0FOQVJZOkNBTkFSWQCANARY==",
        '{"token":"CANARY"}',
        '{"password": "CANARY with space"}',
        "access_token=CANARY&x=y",
        "identitytoken: CANARY",
    ],
)
def test_secrets_are_not_shown(text: str) -> None:
    assert "CANARY" not in redact(text)
    assert "CANARY" not in shown_url(text.split()[-1]) or "://" not in text


def test_what_is_shown_is_one_short_line() -> None:
    assert redact("a\n\x1b[31mb\u202ec") == "a [31mb c"
    assert len(redact("x" * 5000)) <= 600
    assert shown_url("https://u:p@host:5000/v2/x?y=z#f") == "https://host:5000/v2/x"
