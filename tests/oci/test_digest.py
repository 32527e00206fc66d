"""Digests and chainIDs."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.digest import Digest, chain_id, chain_ids
from oci.errors import InvalidDigest


@given(st.binary(max_size=100), st.sampled_from(["sha256", "sha512"]))
def test_round_trip(content: bytes, algorithm: str) -> None:
    digest = Digest.of(content, algorithm)
    assert digest.hex == hashlib.new(algorithm, content).hexdigest()
    assert Digest.parse(str(digest)) == digest
    assert len(digest.short) == 12


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 64 + "\n",
        "sha512:" + "a" * 64,
        "md5:" + "a" * 32,
        "a" * 64,
        "sha256:../../../../etc/passwd" + "a" * 42,
        " sha256:" + "a" * 64,
        None,
    ],
)
def test_refuses(text: str) -> None:
    """SECURITY.md S81."""
    with pytest.raises(InvalidDigest, match="expected sha256"):
        Digest.parse(text)


@given(st.text())
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        assert str(Digest.parse(text)) == text
    except InvalidDigest:
        pass


def test_chain_id() -> None:
    one, two, three = (Digest.of(part) for part in (b"1", b"2", b"3"))
    assert chain_id([one]) == one
    assert chain_id([one, two]) == Digest.of(f"{one} {two}".encode())
    assert list(chain_ids([one, two, three]))[-1] == chain_id([one, two, three])
    with pytest.raises(ValueError, match="at least one"):
        chain_id([])
