"""Dockerfiles as people write them build here, and what they make does what it should (tests/corpus)."""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

import pytest

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

_PATH = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "corpus", "run.py")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("corpus_run", _PATH)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


corpus = _load()
SAMPLES = corpus.samples()


@pytest.fixture(scope="module")
def shop(memory_dir: str) -> Any:
    directory = os.path.join(memory_dir, "corpus")
    os.mkdir(directory)
    return corpus.Shop(directory)


@pytest.mark.parametrize(
    "sample",
    [
        pytest.param(each, id=each.name, marks=[] if each.everyday else [pytest.mark.corpus])
        for each in SAMPLES
    ],
)
def test_builds_and_does_what_it_should(shop: Any, sample: Any) -> None:
    problems = shop.problems(sample)
    assert not problems, "\n".join(["", *problems])


def test_there_are_enough_and_each_is_checked() -> None:
    everyday = [each for each in SAMPLES if each.everyday]
    assert len(SAMPLES) >= 40 and len(everyday) >= len(SAMPLES) // 10
    for each in SAMPLES:
        assert each.about and each.checks and all(check.prints for check in each.checks), each.name
