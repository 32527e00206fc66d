"""Names that would be options, if anything were to join them (SECURITY.md S21)."""

from __future__ import annotations

import os
import random
import string
from typing import Any

import pytest

from builder.sandbox.run import Launcher
from builder.sandbox.spec import Bind, File, Layers, Overlay, Tmpfs

pytestmark = pytest.mark.root

PIECES = [
    ",", ":", "\\", "\n", " ", "=", '"', "'", "%s", "\t", "\udcff", "é", "upperdir=/", "lowerdir=/etc", ",rw",
    ",workdir=", "::", "\\:", "\\,", "#", "..,", "-o", "@", "\\040", "userxattr", "mode=777", "\x7f", "$(id)",
]  # fmt: skip


def name(dice: random.Random) -> str:
    """A file name of such pieces; never `.` or `..`, at most 255 bytes."""
    parts = [dice.choice([*PIECES, dice.choice(string.ascii_letters)]) for _ in range(dice.randint(1, 12))]
    return "".join(parts).replace("/", "\u2044")[:60] + "x"


@pytest.mark.parametrize("overlay_by", [1, 2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_s21_any_name_is_only_a_name(world: Any, top: str, seed: int, overlay_by: int) -> None:
    """Of layers, upper and work directories, sources, targets, sub-directories; by each way to mount."""
    dice = random.Random(seed)
    layers = [world.image(f"{number}{name(dice)}") for number in range(dice.randint(1, 5))]
    for number, layer in enumerate(layers):
        os.mkdir(f"{layer}/layer{number}")
    above = world.path(name(dice))
    for part in ("upper", "work"):
        os.makedirs(f"{above}/{part}")
    source, below = world.path(name(dice)), name(dice)
    os.makedirs(f"{source}/{below}/seen")
    targets = [f"/t{number}{name(dice)}" for number in range(4)]
    mounts = (
        Bind(source, targets[0], path=below),
        Layers(targets[1], (layers[0], source), below),
        Tmpfs(targets[2], 1 << 20, 0o700),
        File(targets[3], b"content"),
    )
    script = 'ls -d /layer* | wc -l; ls "$1" "$2"; stat -c %a "$3"; cat "$4"; echo > /new'
    with Launcher(top + "/stubs", overlay_by=overlay_by) as launcher:
        world.launcher = launcher
        root = Overlay(tuple(layers), above + "/upper", above + "/work")
        exit_, output = world.run("sh", "-c", script, "sh", *targets, root=root, mounts=mounts)
    assert exit_.status == 0, (exit_, output)
    lines = output.splitlines()
    assert lines[0] == str(len(layers))
    assert lines.count("seen") == 2
    assert lines[-2:] == ["700", "content"]
    assert os.listdir(above + "/upper") == ["new"]
