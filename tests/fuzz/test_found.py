"""What fuzzing has found stays found: the seeds, and every input that once broke a target."""

from __future__ import annotations

import pytest
from harness import FOUND, check, load, names

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


def test_every_folder_of_found_inputs_has_its_target() -> None:
    assert {path.name for path in FOUND.glob("*") if path.is_dir()} <= set(names())
