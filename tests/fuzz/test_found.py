"""What fuzzing has found stays found: the seeds, and every input that once broke a target."""

from __future__ import annotations

import pytest
from harness import FOUND, MIB, check, load, names

INPUTS = [
    *((name, f"seed {number}") for name in names() for number in range(len(load(name).SEEDS))),
    *((path.parent.name, path.name) for path in sorted(FOUND.glob("*/*"))),
]


@pytest.mark.parametrize(("name", "which"), INPUTS, ids=lambda text: text)
def test_a_target_takes_it(name: str, which: str) -> None:
    module = load(name)
    if which.startswith("seed "):
        data: bytes = module.SEEDS[int(which[5:])]
    else:
        data = (FOUND / name / which).read_bytes()
    check(module, data)


@pytest.mark.parametrize("unit", [b"[", b"\n", b"a", b"*", b"0"])
@pytest.mark.parametrize("name", [name for name in names() if name != "dockerfile"])
def test_a_megabyte_of_one_thing_ends_soon(name: str, unit: bytes) -> None:
    """tests/builder/frontend/test_fuzz.py has more for the Dockerfile."""
    check(load(name), unit * MIB)


def test_every_folder_of_found_inputs_has_its_target() -> None:
    assert {path.name for path in FOUND.glob("*") if path.is_dir()} <= set(names())
