"""JSON that leaves no room for two readings."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.errors import InvalidDocument, LimitExceeded
from oci.strict_json import MAX_DOCUMENT, Fields, dumps, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_round_trip(value: object) -> None:
    assert loads(json.dumps(value).encode(), "x") == value
    assert loads(dumps(value), "x") == value


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"a":1,"a":1}', "'a' stands twice"),
        (b'{"x":{"a":1,"b":2,"a":3}}', "'a' stands twice"),
        (b"[NaN]", "NaN"),
        (b"[-Infinity]", "Infinity"),
        (b"{} {}", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff", "UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (rb'["\ud800"]', "UTF-8"),
        (rb'{"\udc00":1}', "UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "not valid JSON"),
        (b'{"a":-1e999}', "too large a number"),
        (b"[" * 201 + b"]" * 201, "deeper than 200"),
        (b'{"a":[' * 101 + b"1" + b"]}" * 101, "deeper than 200"),
    ],
)
def test_refuses(content: bytes, says: str) -> None:
    """SECURITY.md S82."""
    with pytest.raises(InvalidDocument, match=says) as caught:
        loads(content, "manifest")
    assert str(caught.value).startswith("manifest: ")


def test_what_may_be_deep_can_be_written_again() -> None:
    content = b"[" * 200 + b"1.5e3" + b"]" * 200
    assert loads(dumps(loads(content, "x")), "x") == loads(content, "x")


def test_pairs_of_surrogates_are_text() -> None:
    assert loads(rb'"\ud83d\ude00"', "x") == "\N{GRINNING FACE}"


def test_size_cap() -> None:
    text = b'"' + b"x" * (MAX_DOCUMENT - 2) + b'"'
    loads(text, "x")
    with pytest.raises(LimitExceeded, match=str(MAX_DOCUMENT)):
        loads(text + b" ", "x")


def test_nothing_is_escaped_that_need_not_be() -> None:
    assert dumps({"a": "<&>é\u2028"}) == '{"a":"<&>é\u2028"}'.encode()


@pytest.mark.parametrize(
    ("value", "call", "says"),
    [
        ({"a": 1}, "text", r"^doc\.a: expected a string, not 1"),
        ({"a": True}, "number", r"^doc\.a: expected a whole number, not true"),
        ({"a": 1.0}, "number", r"^doc\.a: expected a whole number, not 1\.0"),
        ({"a": 1 << 63}, "number", r"^doc\.a: expected a whole number"),
        ({}, "number", r"^doc\.a: expected a whole number, not nothing"),
        ({"a": "no"}, "flag", r"^doc\.a: expected true or false, not str"),
        ({"a": "x"}, "texts", r"^doc\.a: expected an array, not str"),
        ({"a": ["x", None]}, "texts", r"^doc\.a\[1\]: expected a string, not nothing"),
        ({"a": {"k": 1}}, "mapping", r"^doc\.a\['k'\]: expected a string"),
        ({"a": []}, "names", r"^doc\.a: expected an object, not list"),
        ({"a": [1]}, "objects", r"^doc\.a\[0\]: expected an object"),
        ({"a": "sha256:x"}, "digest", r"^doc\.a: 'sha256:x' is no digest"),
        ({}, "digest", r"^doc\.a: missing"),
        ({"a": ["sha1:x"]}, "digests", r"^doc\.a\[0\]: 'sha1:x' is no digest"),
    ],
)
def test_errors_name_the_place(value: object, call: str, says: str) -> None:
    with pytest.raises(InvalidDocument, match=says):
        getattr(Fields(value, "doc"), call)("a")


def test_null_is_absent() -> None:
    fields = Fields({"a": None}, "doc")
    assert fields.text("a") == ""
    assert fields.texts("a") is None
    assert fields.mapping("a") == {}
    assert fields.names("a") == ()
    assert fields.object("a") is None
    assert fields.objects("a") == ()
    assert fields.number("a", 7) == 7
    assert fields.flag("a") is False


@pytest.mark.parametrize("key", ["Digest", "DIGEST", "diGest"])
def test_keys_that_go_would_match(key: str) -> None:
    fields = Fields({"digest": "x", key: "y"}, "doc")
    fields.text("digest")
    assert fields.rest() == {key: "y"}
    with pytest.raises(InvalidDocument, match="only in case"):
        fields.rest(exact=True)


def test_go_folds_more_than_ascii() -> None:
    fields = Fields({"layer\u017f": []}, "doc")
    fields.objects("layers")
    with pytest.raises(InvalidDocument, match="only in case"):
        fields.rest(exact=True)
