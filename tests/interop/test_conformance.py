"""A step is at least as confined as a container of Docker's, line by line (SECURITY.md S23 to S27)."""

from __future__ import annotations

import os
import platform

import pytest
from conformance import listing
from conformance.listing import LOOSER, LOOSER_, Lines, collect, differences
from judges.dockerd import Docker

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        platform.machine() not in listing._TABLES, reason="the machine is none whose calls are named"
    ),
]

PAGE = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "conformance.md")


@pytest.fixture(scope="module")
def both(memory_dir: str, docker: Docker) -> tuple[Lines, Lines]:
    folder = os.path.join(memory_dir, "conformance")
    os.mkdir(folder)
    return collect(folder, docker)


def test_s23_to_s27_no_line_is_looser_than_dockers(both: tuple[Lines, Lines]) -> None:
    found = list(differences(*both))
    assert [each for each in found if each.verdict == LOOSER_ and not each.explained] == []


def test_every_difference_is_explained(both: tuple[Lines, Lines]) -> None:
    assert [each for each in differences(*both) if not each.explained] == []


def test_s24_the_calls_of_the_requirement_are_refused_by_both(both: tuple[Lines, Lines]) -> None:
    names = "keyctl add_key request_key bpf mount unshare open_by_handle_at userfaultfd setns perf_event_open"
    for lines in both:
        calls = {key.split()[0]: value for key, value in lines["call"].items()}
        assert {calls[name] for name in names.split()} == {"EPERM"}


def test_the_probe_saw_both_sides_whole(both: tuple[Lines, Lines]) -> None:
    for lines in both:
        assert {kind: len(lines[kind]) for kind in ("call", "argument", "limit")} == {
            "call": 479,
            "argument": 71,
            "limit": 16,
        }
        assert len(lines["mount"]) > 15 and len(lines["path"]) > 50 and len(lines["dev"]) > 12


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("status", "CapEff", "00000000a82425fb"),
        ("status", "Seccomp", "0"),
        ("mount", "/proc", "proc rw,nosuid,nodev,relatime"),
        ("dev", "/dev/sda", "b 8:0 0600"),
        ("dev", "/dev/null", "c 1:3 0777"),
        ("path", "/proc/sys/kernel/core_pattern", "readable writable"),
        ("path", "/proc/keys", "readable read-only"),
        ("limit", "memlock", "-1 -1"),
        ("call", "keyctl (250)", "reached"),
        ("argument", "clone 0x10000000", "reached"),
    ],
)
def test_a_looser_line_is_seen(both: tuple[Lines, Lines], kind: str, key: str, value: str) -> None:
    ours = {name: dict(lines) for name, lines in both[0].items()}
    if key.startswith("keyctl"):
        (key,) = (each for each in ours["call"] if each.startswith("keyctl "))
    ours[kind][key] = value
    (found,) = (each for each in differences(ours, both[1]) if (each.kind, each.key) == (kind, key))
    assert (found.verdict, found.explained) == (LOOSER_, "")


def test_the_page_explains_the_same() -> None:
    with open(PAGE, encoding="utf-8") as file:
        rows = [line for line in file if "| looser |" in line]
    assert rows
    assert all(any(why in row for why in LOOSER.values()) for row in rows)
