"""Every folder of examples/ builds, and does what its page says. (examples/hello is `make demo`.)"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from builder import BuildRequest, Built, build
from builder.errors import StepFailed
from builder.images import Images
from builder.secrets import Secret
from builder.state import StateDir
from oci.reference import Reference

if TYPE_CHECKING:
    from conftest import Workshop

pytestmark = pytest.mark.root

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
Example = Callable[..., Built]


@pytest.fixture
def example(shop: Workshop) -> Example:
    """Builds an example, whose base is that of the other tests."""
    with StateDir(shop.root) as state, state.lease():
        images = Images(state)
        found = images.find(Reference.parse("base"))
        assert found is not None
        images.tag(Reference.parse("demo/busybox"), found)

    def run(name: str, **more: object) -> Built:
        values = {"context": str(EXAMPLES / name), "root": shop.root, "network": "none", **more}
        return build(BuildRequest(**values), shop.events.append)  # type: ignore[arg-type]

    return run


def output(shop: Workshop, built: Built) -> str:
    """What the image's program prints."""
    args = ["--root", shop.root, "run", "--network", "none", str(built.image_id)]
    done = subprocess.run(
        [sys.executable, "-m", "builder.cli.main", *args], capture_output=True, text=True, cwd=EXAMPLES.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_example_is_tried() -> None:
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    for name in os.listdir(EXAMPLES):
        assert name == "hello" or f'example("{name}"' in text, f"examples/{name} has no test"


def test_include(shop: Workshop, example: Example) -> None:
    assert output(shop, example("include")) == "this is one\nthis is two\n"
    shop.events.clear()
    example("include")
    assert shop.ran() == []


def test_a_failure_inside_an_included_file(shop: Workshop) -> None:
    shop.write("parts/bad", "RUN true\nRUN false\n")
    with pytest.raises(StepFailed) as caught:
        shop.build("# pybuild=include\nFROM base\nINCLUDE parts/bad\n")
    assert str(caught.value.at) == "parts/bad:2" and caught.value.at
    assert "included by Dockerfile:3: INCLUDE parts/bad" in caught.value.at.excerpt()


def test_env_file(shop: Workshop, example: Example) -> None:
    built = example("env-file")
    assert output(shop, built) == '"Hello", $USER\n'
    history = [each.created_by for each in shop.image(built).config.value.history]
    assert 'ENV GREETING="Hello" NAME=$USER' in history


def test_shell_strict(shop: Workshop, example: Example) -> None:
    with pytest.raises(StepFailed) as caught:
        example("shell-strict")
    assert str(caught.value.at).endswith("Dockerfile:3") and "not reached" not in shop.output()


def test_secret_key(shop: Workshop, example: Example) -> None:
    for value, ran in ((b"one", 1), (b"three", 1), (b"one", 0)):
        shop.events.clear()
        example("secret-key", secrets=(Secret("token", value=value, counts=True),))
        assert len(shop.ran()) == ran, value


def test_lock(shop: Workshop, example: Example, tmp_path: Path) -> None:
    copied = tmp_path / "lock"
    shutil.copytree(EXAMPLES / "lock", copied)
    line = [sys.executable, "-m", "builder.cli.main", "--root", shop.root, "lock", str(copied)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=EXAMPLES.parent)
    assert done.returncode == 0 and "+ docker.io/demo/busybox:latest sha256:" in done.stderr, done.stderr
    built = example("lock", context=str(copied), locked=True)
    assert output(shop, built) == "locked\n"
    with StateDir(shop.root) as state:
        images = Images(state)
        images.tag(Reference.parse("demo/busybox"), images.resolve(str(built.image_id)).descriptor)
    assert example("lock", context=str(copied), locked=True).image_id == built.image_id
    assert example("lock", context=str(copied)).image_id != built.image_id


def test_device(shop: Workshop, example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder.solver.devices.PLACES", (str(EXAMPLES / "device"),))
    built = example("device", allow=frozenset({"device=acme.com/zeros"}), outputs=shop.tar())
    assert shop.files(built)["four-zeros"].size == 4


def test_shell_strict_in_several_shells(shop: Workshop) -> None:
    loose = "FROM base\nRUN <<EOF\nfalse\ntrue\nEOF\n"
    shop.build(loose)
    with pytest.raises(StepFailed):
        shop.build(loose, enable=frozenset({"shell-strict"}))
    for text in (
        "FROM base\nRUN <<EOF\n#!/bin/sh\nfalse\ntrue\nEOF\n",
        "FROM base\nRUN <<EOF\necho x | cat > /x\nfalse\ntrue\nEOF\n",
    ):
        with pytest.raises(StepFailed):
            shop.build(text, enable=frozenset({"shell-strict"}))
    shop.build("FROM base\nRUN <<EOF\nset +e\nfalse\ntrue\nEOF\n", enable=frozenset({"shell-strict"}))
