"""Whiteout names."""

from __future__ import annotations

import pytest

from oci import whiteout
from oci.errors import InvalidArchive


def test_names_both_ways() -> None:
    assert whiteout.whiteout(b"etc") == b".wh.etc"
    assert whiteout.target(b".wh.etc") == b"etc"
    assert whiteout.is_whiteout(b".wh.x")
    assert not whiteout.is_whiteout(b"x.wh.")


@pytest.mark.parametrize("name", [b".wh.", b".wh..", b".wh..."])
def test_a_whiteout_must_name_a_file(name: bytes) -> None:
    with pytest.raises(InvalidArchive, match="names no file"):
        whiteout.target(name)


@pytest.mark.parametrize("name", [b"", b".", b"..", b".wh.a"])
def test_what_cannot_be_whited_out(name: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be whited out"):
        whiteout.whiteout(name)


def test_bookkeeping_of_aufs_is_no_opaque_mark() -> None:
    assert whiteout.is_bookkeeping(b".wh..wh.plnk")
    assert not whiteout.is_bookkeeping(whiteout.OPAQUE)
