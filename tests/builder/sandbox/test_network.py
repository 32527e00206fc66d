"""The parts of networking that are bytes: attributes, resolv.conf, overlapping networks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.sandbox.gateway import overlap
from builder.sandbox.netlink import attr, attributes, nest
from builder.sandbox.network import resolv_conf


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40))))
def test_attributes_round_trip(pairs: list[tuple[int, bytes]]) -> None:
    packed = b"".join(attr(kind, payload) for kind, payload in pairs)
    assert list(attributes(packed)) == pairs
    assert [kind for kind, _ in attributes(nest(7, packed))] == [7]


@given(st.binary(max_size=100))
def test_attributes_of_anything_end(payload: bytes) -> None:
    assert sum(len(value) for _, value in attributes(payload)) <= len(payload)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b"nameserver 192.0.2.1\n", b"nameserver 192.0.2.1\n"),
        (b"nameserver 127.0.0.1\nnameserver 192.0.2.1\nsearch a\n", b"nameserver 192.0.2.1\nsearch a\n"),
        (b"nameserver fe80::1%eth0\nnameserver ::1\noptions edns0", b"options edns0\n"),
        (b"nameserver\nnameserver what\n# nameserver 127.0.0.1\n", b"# nameserver 127.0.0.1\n"),
        (b"", b""),
    ],
)
def test_resolvers_a_step_can_reach(tmp_path: Path, text: bytes, kept: bytes) -> None:
    (tmp_path / "resolv.conf").write_bytes(text)
    assert resolv_conf(str(tmp_path / "resolv.conf"), str(tmp_path / "none")) == kept


def test_behind_the_stub_of_systemd(tmp_path: Path) -> None:
    (tmp_path / "stub").write_bytes(b"nameserver 127.0.0.53\nsearch a\n")
    (tmp_path / "real").write_bytes(b"nameserver 192.0.2.7\nsearch b\n")
    assert (
        resolv_conf(os.fspath(tmp_path / "stub"), os.fspath(tmp_path / "real"))
        == b"nameserver 192.0.2.7\nsearch b\n"
    )
    assert resolv_conf(os.fspath(tmp_path / "stub"), os.fspath(tmp_path / "no")) == b"search a\n"
    assert resolv_conf(os.fspath(tmp_path / "no"), os.fspath(tmp_path / "no")) == b""


@pytest.mark.parametrize(
    ("to", "length", "overlaps"),
    [
        ((10, 213, 0, 0), 24, True),
        ((10, 213, 0, 77), 32, True),
        ((10, 0, 0, 0), 8, True),
        ((10, 213, 1, 0), 24, False),
        ((172, 17, 0, 0), 16, False),
        ((10, 212, 0, 0), 15, True),
    ],
)
def testoverlap(to: tuple[int, ...], length: int, overlaps: bool) -> None:
    assert overlap(bytes((10, 213, 0)), bytes(to), length) is overlaps
