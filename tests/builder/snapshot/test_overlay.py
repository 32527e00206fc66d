"""The store of snapshots: what is kept, what is discarded, what is cleaned after a kill."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builder.snapshot.overlay import Snapshots
from oci.errors import InvalidArchive
from oci.tar import Entry, Kind, TarReader, TarWriter


@contextmanager
def layer(*entries: tuple[Entry, bytes], damaged: bool = False) -> Iterator[TarReader]:
    blocks: list[bytes] = []
    tar = TarWriter(blocks.append)
    for entry, data in entries:
        tar.add(entry, data)
    tar.finish()
    data = b"".join(blocks)
    yield TarReader(io.BytesIO(data[:-1100] if damaged else data))


def file(name: bytes, data: bytes = b"x") -> tuple[Entry, bytes]:
    return Entry(name, Kind.FILE, size=len(data), uid=os.getuid(), gid=os.getgid()), data


def tidy(root: Path) -> bool:
    """Nothing is left of work in progress."""
    return not os.listdir(root / ".trash") and os.listdir(root / ".live") == [".gate"]


def test_uncommitted_work_is_discarded(tmp_path: Path) -> None:
    with Snapshots(str(tmp_path)) as snapshots:
        with pytest.raises(RuntimeError), snapshots.prepare(["/"]) as active:
            Path(active.upper, "file").write_text("x")
            raise RuntimeError
        assert not os.path.exists(active.upper) and snapshots.names() == []
    assert tidy(tmp_path)


def test_committed_work_is_found_again(tmp_path: Path) -> None:
    with Snapshots(str(tmp_path)) as snapshots:
        with snapshots.prepare(["/"]) as active:
            Path(active.upper, "file").write_text("x")
            os.chmod(active.upper, 0o711)
            kept = active.commit("name")
        assert not os.path.exists(active.work)
        assert snapshots.existing("name") == kept.path
    with Snapshots(str(tmp_path)) as snapshots:
        assert Path(snapshots.existing("name"), "file").read_text() == "x"
        assert snapshots.existing("other") == ""
        snapshots.remove("name")
        assert snapshots.existing("name") == "" and not os.path.exists(kept.path)
        snapshots.remove("name")
    assert tidy(tmp_path)


def test_a_name_taken_meanwhile_keeps_the_first(tmp_path: Path) -> None:
    with Snapshots(str(tmp_path)) as snapshots:
        for text in ("first", "second"):
            with snapshots.prepare(["/"]) as active:
                Path(active.upper, "file").write_text(text)
                kept = active.commit("name")
        assert Path(kept.path, "file").read_text() == "first"
    assert tidy(tmp_path)


def test_another_boot_makes_snapshots_void(tmp_path: Path) -> None:
    """SECURITY.md R03."""
    with Snapshots(str(tmp_path)) as snapshots:
        snapshots.unpack("name", lambda: layer(file(b"a")))
    (tmp_path / "name" / "boot").write_text("another boot")
    with Snapshots(str(tmp_path)) as snapshots:
        assert snapshots.existing("name") == ""
        assert os.listdir(snapshots.unpack("name", lambda: layer(file(b"b")))) == ["b"]


@pytest.mark.parametrize("name", ["", ".live", "../x", "a/b", "sha256:abc", "a" * 300])
def test_names(tmp_path: Path, name: str) -> None:
    with Snapshots(str(tmp_path)) as snapshots, pytest.raises(ValueError, match="no snapshot name"):
        snapshots.existing(name)


def test_unpack_makes_a_layer_once(tmp_path: Path) -> None:
    calls = []

    def opening() -> object:
        calls.append(1)
        return layer(file(b"a/b"), file(b"c"))

    with Snapshots(str(tmp_path)) as one, Snapshots(str(tmp_path)) as two:
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda each=each: found.append(each.unpack("name", opening)))  # type: ignore[misc,arg-type]
            for each in (one, two, one, two)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(found)) == 1 and sorted(os.listdir(found[0])) == ["a", "c"] and calls == [1]


def test_a_damaged_layer_leaves_nothing(tmp_path: Path) -> None:
    with Snapshots(str(tmp_path)) as snapshots:
        with pytest.raises(InvalidArchive):
            snapshots.unpack("name", lambda: layer(file(b"a"), file(b"b"), damaged=True))
        assert snapshots.existing("name") == ""
    assert tidy(tmp_path) and not (tmp_path / "name").exists()


def test_unpack_edits_and_knows_what_is_below(tmp_path: Path) -> None:
    with Snapshots(str(tmp_path)) as snapshots:
        mine = {"uid": os.getuid(), "gid": os.getgid()}
        below = snapshots.unpack("below", lambda: layer((Entry(b"d", Kind.DIRECTORY, 0o711, **mine), b"")))
        top = snapshots.unpack(
            "top",
            lambda: layer(file(b"d/x"), file(b"y")),
            [below],
            lambda entry: None if entry.name == b"y" else entry,
        )
        assert os.listdir(top) == ["d"] and os.stat(f"{top}/d").st_mode & 0o777 == 0o711


KILLED = """
import os, sys, time
from builder.snapshot.overlay import Snapshots
snapshots = Snapshots(sys.argv[1])
with snapshots.prepare(["/"]) as active:
    open(active.upper + "/file", "w").close()
    os.makedirs(active.work + "/work/incompat")
    os.chmod(active.work + "/work", 0)
    print(active.upper, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_build_left_is_cleaned_by_the_next(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    upper = process.stdout.readline().strip()
    with Snapshots(str(tmp_path)):
        assert os.path.exists(upper)  # its process lives
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert os.path.exists(upper)
    with Snapshots(str(tmp_path)):
        assert not os.path.exists(upper)
    assert tidy(tmp_path)


def test_kinds_of_roots_keep_their_own(tmp_path: Path) -> None:
    """Files with other owners or other marks are other snapshots; nobody takes or removes another's."""
    with Snapshots(str(tmp_path)) as plain, Snapshots(str(tmp_path), stamp=" uid 0:5:1") as mapped:
        for snapshots in (plain, mapped):
            with snapshots.prepare([]) as active:
                active.commit("same")
        assert plain.names() == mapped.names() == ["same"]
        assert plain.existing("same") != mapped.existing("same")
        plain.remove("same")
        assert plain.names() == [] and mapped.names() == ["same"]
    with Snapshots(str(tmp_path), stamp=" uid 0:6:1") as other:
        assert other.names() == [] and other.existing("same") == ""
    with Snapshots(str(tmp_path), stamp=" uid 0:5:1") as mapped:
        assert mapped.existing("same")
