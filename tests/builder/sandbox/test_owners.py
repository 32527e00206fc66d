"""Owners kept beside files: what a note says, and which calls are handed over."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.sandbox import abi, seccomp
from builder.sandbox.owners import Owner, handed_over, note, noted, program, read_notes

IDS = st.integers(0, 0xFFFFFFFE)
DEVICES = st.one_of(
    st.just(()), st.tuples(st.sampled_from([b"c", b"b"]), st.integers(0, 4095), st.integers(0, 1048575))
)


@given(IDS, IDS, DEVICES)
def test_a_note_reads_back(uid: int, gid: int, node: tuple[bytes, int, int] | tuple[()]) -> None:
    read = Owner.parse(bytes(Owner(uid, gid, node)))
    assert (read.uid, read.gid, read.node) == (uid, gid, node)


@given(st.binary() | st.text(alphabet="0123456789:cb-x ").map(str.encode))
def test_any_bytes_are_an_owner(value: bytes) -> None:
    read = Owner.parse(value)
    assert 0 <= read.uid < 0xFFFFFFFF and 0 <= read.gid < 0xFFFFFFFF


@pytest.mark.parametrize(
    "value", [b"", b"1", b"-1:0", b"4294967295:0", b"1:2:3", b"1:2:p:3:4", b"1:2:c:3:", b" 1:2"]
)
def test_what_is_no_note_is_roots(value: bytes) -> None:
    assert Owner.parse(value).plain


def test_a_note_lies_at_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    assert noted(str(path)).plain
    note(str(path), Owner(7, 8))
    assert bytes(noted(str(path))) == b"7:8"
    (tmp_path / "link").symlink_to("file")
    assert noted(str(tmp_path / "link")).plain
    assert noted(str(tmp_path / "link"), follow=True).uid == 7
    note(str(path), Owner())
    note(str(path), Owner())
    assert noted(str(path)).plain


def test_the_last_line_counts() -> None:
    found = read_notes(b"12 1:2\n13 3:4\nrubbish\n12 5:6\n14 x\n")
    assert {number: (each.uid, each.gid) for number, each in found.items()} == {
        12: (5, 6),
        13: (3, 4),
        14: (0, 0),
    }


def answer(code: bytes, arch: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel would do: a filter's instructions on one call."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = list(struct.iter_unpack("=HBBI", code))
    at, word = 0, 0
    while True:
        operation, yes, no, operand = steps[at]
        at += 1
        match operation:
            case 0x20:
                (word,) = struct.unpack_from("=I", data, operand)
            case 0x54:
                word &= operand
            case 0x15:
                at += yes if word == operand else no
            case 0x06:
                return int(operand)
            case _:
                raise AssertionError(f"operation {operation:#x}")


NOTIFY, SUCCEED, ALLOW = 0x7FC00000, 0x00050000, 0x7FFF0000


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_calls_that_are_answered_elsewhere(machine: str) -> None:
    code = program(machine)
    for arch, numbers, _ in seccomp.tables(machine):
        for name, number in numbers.items():
            plain = name.removesuffix("32")
            if plain in ("chown", "lchown", "fchown", "fchownat"):
                expected = NOTIFY
            elif plain.startswith("set") and plain[3:] in (
                *("uid", "gid", "reuid", "regid", "resuid", "resgid", "groups", "fsuid", "fsgid"),
            ):
                expected = SUCCEED
            else:
                expected = ALLOW
            assert answer(code, arch, number) == expected, name
    assert answer(code, 0xDEAD, 0) == ALLOW


def test_only_devices_are_noted() -> None:
    code, arch, mknod, mknodat = program("x86_64"), seccomp.AUDIT_X86_64, 133, 259
    assert {abi.numbers(abi.X86_64)[name] for name in ("mknod", "mknodat")} == {mknod, mknodat}
    for kind, expected in (
        (0o020000, NOTIFY),
        (0o060000, NOTIFY),
        (0o010000, ALLOW),
        (0o100000, ALLOW),
        (0, ALLOW),
    ):
        assert answer(code, arch, mknod, (1, kind | 0o644)) == expected
        assert answer(code, arch, mknodat, (1, 1, kind | 0o644)) == expected


def test_every_number_has_one_name() -> None:
    found = handed_over("x86_64")
    assert len({(arch, number) for arch, number, _ in found}) == len(found)
    assert {name for _, _, name in found} >= {
        "chown",
        "lchown",
        "fchown",
        "fchownat",
        "mknod",
        "mknodat",
        "chown32",
    }
