"""Our images beside those of Docker's BuildKit, and beside golden trees: one test for each case of
equality/cases.

`python tests/interop/equality/compare.py` runs the same comparison by hand; equality/README.md explains it.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator

import pytest
from equality.case import Case
from equality.compare import CASES, Bench
from equality.rows import ELSEWHERE, ROWS
from judges.dockerd import Docker
from judges.pybuild import Pybuild

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

pytestmark = [pytest.mark.interop, pytest.mark.root]


@pytest.fixture(scope="session")
def bench(
    request: pytest.FixtureRequest, memory_dir: str, docker: Docker, pybuild: Pybuild
) -> Iterator[Bench]:
    """The cases that were selected, under way two at a time while the first tests wait for theirs."""
    directory = os.path.join(memory_dir, "equality")
    os.mkdir(directory)
    made = Bench(directory, docker, pybuild)
    made.load_bases()
    chosen = [item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")]
    made.start([case for case in chosen if isinstance(case, Case)])
    yield made
    made.close()


def _parameters() -> Iterator[object]:
    """Every third case of every topic is for all runs; the others belong to `make test-corpus`."""
    for number, case in enumerate(CASES):
        yield pytest.param(case, id=case.name, marks=[pytest.mark.corpus] if number % 3 else [])


@pytest.mark.parametrize("case", list(_parameters()))
def test_image_equals_its_reference(bench: Bench, case: Case) -> None:
    problems = bench.verdict(case).problems
    assert not problems, "\n".join(["", *problems])


def test_every_case_has_a_name_of_its_own_and_a_judge() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 200
    assert sum(bool(case.fails) for case in CASES) >= 25
    for case in CASES:
        if case.reference == "golden":
            assert case.why, f"{case.name} does not say why Docker cannot be its judge"
            assert case.fails or case.tree is not None, f"{case.name} expects nothing"


@pytest.mark.parametrize("row", list(ROWS))
def test_every_row_of_the_language_has_cases(row: str) -> None:
    for pattern in ROWS[row]:
        assert any(fnmatch.fnmatchcase(case.name, pattern) for case in CASES), pattern
    assert bool(ROWS[row]) is not (row in ELSEWHERE)
    assert row not in ELSEWHERE or os.path.exists(os.path.join(CHECKOUT, ELSEWHERE[row]))
