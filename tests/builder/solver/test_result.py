"""Layers become directories beside each other, and what hangs on a layer below waits for it."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest

from builder import interrupts
from builder.errors import BuildError
from builder.snapshot.below import Lowers
from builder.snapshot.overlay import Snapshots
from builder.solver.result import LARGE, Part, Result, directories, done, settle
from oci.digest import Digest
from oci.layer import Layer
from oci.tar import Entry, Kind, TarReader, TarWriter

MINE = {"uid": os.getuid(), "gid": os.getgid()}
ROOT = Entry(b"", Kind.DIRECTORY, 0o711, **MINE), b""
DIRECTORY = Entry(b"d", Kind.DIRECTORY, 0o711, **MINE), b""


def part(name: str, size: int = LARGE) -> Part:
    some = Digest("sha256", "0" * 64)
    return Part(done(Layer("application/vnd.oci.image.layer.v1.tar", some, size, some, size)), name)


def file(name: bytes) -> tuple[Entry, bytes]:
    return Entry(name, Kind.FILE, size=1, **MINE), b"x"


@contextmanager
def read(*entries: tuple[Entry, bytes]) -> Iterator[TarReader]:
    blocks: list[bytes] = []
    tar = TarWriter(blocks.append)
    for entry, data in entries:
        tar.add(entry, data)
    tar.finish()
    yield TarReader(io.BytesIO(b"".join(blocks)))


LAYERS = {
    "lowest": (ROOT, DIRECTORY, file(b"d/a")),
    "parent": (file(b"d/b"),),
    "link": (DIRECTORY, (Entry(b"d/c", Kind.HARDLINK, link=b"d/a", **MINE), b"")),
}


def test_layers_above_wait_for_what_they_do_not_say(tmp_path: Path) -> None:
    begun = threading.Event()
    with Snapshots(str(tmp_path)) as snapshots:

        def unpack(part: Part, lowers: Lowers) -> str:
            begun.set() if part.name == "parent" else None
            if part.name == "lowest":
                assert begun.wait(60), "the layer above was not begun"
            return snapshots.unpack(part.name, lambda: read(*LAYERS[part.name]), lowers)

        top, middle, _lowest = directories(Result("", tuple(map(part, LAYERS))), unpack, 2)
        assert os.stat(f"{middle}/d").st_mode & 0o777 == 0o711
        assert os.stat(middle).st_mode & 0o777 == os.stat(top).st_mode & 0o777 == 0o711
        assert sorted(os.listdir(f"{top}/d")) == ["a", "c"] and os.path.samefile(f"{top}/d/a", f"{top}/d/c")


def test_the_error_of_a_layer_below_ends_those_that_wait(tmp_path: Path) -> None:
    with Snapshots(str(tmp_path)) as snapshots:

        def unpack(part: Part, lowers: Lowers) -> str:
            if part.name == "lowest":
                raise BuildError("no such layer")
            return snapshots.unpack(part.name, lambda: read(*LAYERS[part.name]), lowers)

        with pytest.raises(BuildError, match="no such layer"):
            directories(Result("", tuple(map(part, LAYERS))), unpack, 2)
        assert snapshots.names() == []


def test_small_layers_go_one_after_another(tmp_path: Path) -> None:
    order: list[str] = []

    def unpack(part: Part, lowers: Lowers) -> str:
        assert not callable(lowers) and len(lowers) == len(order)
        order.append(part.name)
        return part.name

    parts = tuple(part(name, LARGE - 1) for name in LAYERS)
    assert directories(Result("", parts), unpack, 2) == ("link", "parent", "lowest")


def test_who_waits_for_layers_hears_an_interrupt_that_was_dropped() -> None:
    never: Future[Layer | None] = Future()
    interrupts.ask(KeyboardInterrupt())
    try:
        with pytest.raises(KeyboardInterrupt):
            settle([never])
    finally:
        interrupts.forget()
    broken: Future[Layer | None] = Future()
    broken.set_exception(OSError("full"))
    with pytest.raises(OSError, match="full"):
        settle([never, done(None), broken])
    settle([done(None)])
