"""Damage in a store that builds use: builds mend it on their way, fsck looks for it (R16, R17)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from builder.errors import BuildError
from builder.events import Warning_
from builder.export.base import OutputSpec
from builder.images import Images
from builder.isolation import current
from builder.scrub import Scrub
from builder.snapshot.overlay import opened
from builder.state import StateDir
from oci.digest import Digest
from oci.errors import OciError

if TYPE_CHECKING:
    from conftest import Workshop

pytestmark = pytest.mark.root

STEPS = "FROM base\nRUN touch /x\nCOPY a /\nRUN cat /a > /y\n"


def archive(shop: Workshop) -> tuple[OutputSpec, ...]:
    return (OutputSpec("oci", f"{shop.root}-out.tar"),)


def faults(root: str, *, repair: bool = False) -> list[str]:
    with StateDir(root) as state, opened(state.snapshots, current()) as snapshots:
        return [str(each) for each in Scrub(state, Images(state), snapshots, repair=repair).run()]


def damage(root: str, digest: Digest, how: str) -> None:
    with open(f"{root}/blobs/sha256/{digest.hex}", "r+b") as file:
        content = file.read()
        file.seek(0)
        if how == "flip":
            at = len(content) // 2
            file.write(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        file.truncate(0 if how == "empty" else len(content) // 2 if how == "cut" else len(content))


@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
def test_a_damaged_layer_of_a_step_is_made_again(shop: Workshop, how: str) -> None:
    shop.write("a", "text")
    first = shop.build(STEPS, clock=1, outputs=archive(shop))
    for layer in shop.image(first).layers[1:]:
        damage(shop.root, layer.digest, how)
        again = shop.build(STEPS, clock=1, outputs=archive(shop))
        assert again.image_id == first.image_id and len(shop.ran()) == 1
        assert any(isinstance(event, Warning_) and event.code == "Damaged" for event in shop.events)
    assert faults(shop.root) == []


def test_a_damaged_base_from_an_archive_says_so(shop: Workshop) -> None:
    built = shop.build("FROM base\nRUN touch /x\n")
    base = shop.image(built).layers[0].digest
    damage(shop.root, base, "flip")
    with pytest.raises((BuildError, OciError), match=str(base)):
        shop.build("FROM base\nENV A=1\n", outputs=archive(shop))
    assert os.listdir(f"{shop.root}/quarantine") == [f"sha256-{base.hex}"]


def test_unpacked_layers_are_held_against_their_blobs(shop: Workshop) -> None:
    shop.write("a", "text")
    shop.build(STEPS, tags=("app",))
    assert faults(shop.root) == []
    (copied,) = [name for name in os.listdir(f"{shop.root}/snapshots") if name.startswith("copy-")]
    with open(f"{shop.root}/snapshots/{copied}/fs/a", "w") as file:
        file.write("texx")
    assert "taken away" in faults(shop.root, repair=True)[0]
    (chain,) = [name for name in os.listdir(f"{shop.root}/snapshots") if name.startswith("chain-")]
    place = f"{shop.root}/snapshots/{chain}/fs"
    inner, aside = f"{place}/bin", f"{place}/nib"
    for change, undo in (
        (lambda: os.chmod(inner, 0o700), lambda: os.chmod(inner, 0o755)),
        (lambda: os.chown(inner, 3, 4), lambda: os.chown(inner, 0, 0)),
        (lambda: os.rename(inner, aside), lambda: os.rename(aside, inner)),
        (lambda: os.setxattr(inner, "user.a", b"b"), lambda: os.removexattr(inner, "user.a")),
        (lambda: os.mkdir(aside), lambda: os.rmdir(aside)),
    ):
        change()
        (fault,) = faults(shop.root)
        assert fault.startswith(f"snapshot {chain}: /"), fault
        undo()
    assert faults(shop.root) == []
    with open(f"{place}/bin/busybox", "r+b") as file:
        file.write(b"x")
    assert "has other content" in faults(shop.root)[0]
    with StateDir(shop.root) as state, state.lease():
        assert "left alone" in faults(shop.root, repair=True)[0]
    assert "taken away" in faults(shop.root, repair=True)[0]
    shop.build("FROM base\nRUN echo 2\n")
    assert faults(shop.root) == [] and os.path.isdir(place)


def test_what_a_run_left_is_held_against_its_layer(shop: Workshop) -> None:
    made = (
        "mkdir -p /d/e; echo 1 > /d/f; ln /d/f /d/g; ln -s f /d/h; mkfifo /p; chmod 600 /d/f; chown 3:4 /d/e"
    )
    shop.build(f"FROM base\nRUN {made}; rm /etc/passwd; rm -r /tmp; mkdir /tmp\n", tags=("app",))
    assert faults(shop.root) == []
    (step,) = [name for name in os.listdir(f"{shop.root}/snapshots") if not name.startswith(("chain-", "."))]
    place = f"{shop.root}/snapshots/{step}/fs/d"
    f, h, i, e = (f"{place}/{name}" for name in "fhie")
    for change, undo, said in (
        (lambda: os.chmod(f, 0o644), lambda: os.chmod(f, 0o600), "/d/f has mode 644"),
        (lambda: os.rename(h, i), lambda: os.rename(i, h), "is missing"),
        (lambda: os.chown(e, 0, 0), lambda: os.chown(e, 3, 4), "belongs to 0:0"),
    ):
        change()
        (fault,) = faults(shop.root)
        assert fault.startswith(f"snapshot {step}: ") and said in fault
        undo()
    with open(f"{place}/f", "w") as file:
        file.write("2\n")
    assert "taken away" in faults(shop.root, repair=True)[0]
    shop.build("FROM base\nRUN true\n")
    assert faults(shop.root) == []


def test_directories_outlive_a_damaged_layer(shop: Workshop) -> None:
    """Nothing can be said about a directory whose layer is damaged, so it is left."""
    built = shop.build("FROM base\nRUN touch /x\n", tags=("app",))
    base = shop.image(built).layers[0].digest
    for how in ("flip", "cut"):
        damage(shop.root, base, how)
        (fault,) = faults(shop.root)
        assert fault.startswith(f"blob {base}: damaged")
    assert faults(shop.root, repair=True)[0].startswith("blob sha256:")
    assert [name for name in os.listdir(f"{shop.root}/snapshots") if name.startswith("chain-")]


def test_the_command(shop: Workshop) -> None:
    import subprocess

    shop.build("FROM base\nRUN touch /x\n")
    line = [sys.executable, "-m", "builder.cli.main", "--root", shop.root, "fsck"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0 and "2 unpacked layers: nothing wrong" in done.stderr, done
