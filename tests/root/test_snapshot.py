"""Snapshots on real overlay mounts: what a step leaves in its upper directory comes back as it was."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.snapshot.diff import changes, write_upper
from builder.snapshot.overlay import Snapshots
from builder.snapshot.view import DirectoryLayer, View
from oci.apply import apply
from oci.tar import Entry, Kind, TarReader

pytestmark = pytest.mark.root

Shape = dict[bytes, tuple[object, ...]]


@pytest.fixture
def room() -> Iterator[str]:
    """A directory that may hold overlay uppers, quick to make inodes in."""
    path = tempfile.mkdtemp(dir="/dev/shm")
    yield path
    shutil.rmtree(path)


@contextmanager
def mounted(lowers: tuple[str, ...], upper: str, work: str, at: str) -> Iterator[str]:
    os.makedirs(at, exist_ok=True)
    options = (
        f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work},index=off,metacopy=off,redirect_dir=off"
    )
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", at], check=True)


def shape(root: str) -> Shape:
    """Everything about a tree but times: what two equal trees have in common."""
    found: Shape = {}
    first: dict[tuple[int, int], bytes] = {}
    for here, directories, files in os.walk(os.fsencode(root)):
        for name in [b".", *directories, *files]:
            full = os.path.normpath(os.path.join(here, name))
            st = os.lstat(full)
            if stat.S_ISSOCK(st.st_mode):
                continue
            path = os.path.relpath(full, os.fsencode(root))
            what: object = st.st_rdev
            if stat.S_ISREG(st.st_mode):
                what = Path(os.fsdecode(full)).read_bytes(), first.setdefault((st.st_dev, st.st_ino), path)
            elif stat.S_ISLNK(st.st_mode):
                what = os.readlink(full)
            xattrs = sorted(
                name for name in os.listxattr(full, follow_symlinks=False) if "overlay" not in name
            )
            found[path] = (st.st_mode, st.st_uid, st.st_gid, what, tuple(xattrs))
    return found


class Pipe:
    """The bytes of a tar, to be read back."""

    def __init__(self) -> None:
        self.data = b""

    def __call__(self, block: bytes) -> None:
        self.data += block

    def read(self, size: int, /) -> bytes:
        head, self.data = self.data[:size], self.data[size:]
        return head


def step(
    room: str, base: Callable[[str], None], action: Callable[[str], None]
) -> tuple[dict[bytes, Entry], Shape, Shape]:
    """Run `action` on an overlay over `base`: its layer's entries, the merged tree, and the layer applied
    to a copy.
    """
    lower, upper, copy = (os.path.join(room, name) for name in ("lower", "upper", "copy"))
    for path in (lower, upper, copy, f"{room}/work"):
        os.mkdir(path)
    base(lower)
    subprocess.run(["cp", "-a", f"{lower}/.", copy], check=True)
    with mounted((lower,), upper, f"{room}/work", f"{room}/merged") as merged:
        action(merged)
        expected = shape(merged)
    pipe = Pipe()
    entries = {change.entry.name: change.entry for change in changes(upper, (lower,))}
    if write_upper(upper, (lower,), pipe):
        apply(TarReader(pipe), copy, style="plain")
    shown = View([DirectoryLayer(lower), DirectoryLayer(upper)]).walk()
    assert sorted(path or b"." for path, _ in shown) == sorted(expected)
    return entries, expected, shape(copy)


def write(path: str, text: str = "") -> None:
    with open(path, "w") as file:
        file.write(text)


class TestRealOverlays:
    def test_everything_a_step_may_do(self, room: str) -> None:
        """SECURITY.md R20."""

        def base(root: str) -> None:
            for name in ("keep", "gone", "emptied", "again", "to-file", "sub/deep"):
                os.makedirs(f"{root}/{name}")
                write(f"{root}/{name}/old", name)
            write(f"{root}/to-dir", "x")
            write(f"{root}/mode", "x")
            os.symlink("keep", f"{root}/link")

        def action(root: str) -> None:
            shutil.rmtree(f"{root}/gone")
            os.unlink(f"{root}/emptied/old")
            shutil.rmtree(f"{root}/again")
            os.mkdir(f"{root}/again")
            write(f"{root}/again/new", "n")
            shutil.rmtree(f"{root}/to-file")
            write(f"{root}/to-file", "now a file")
            os.unlink(f"{root}/to-dir")
            os.mkdir(f"{root}/to-dir")
            write(f"{root}/to-dir/in", "i")
            os.chmod(f"{root}/mode", 0o4711)
            os.chown(f"{root}/keep", 5, 6)
            write(f"{root}/one", "linked")
            os.link(f"{root}/one", f"{root}/sub/two")
            os.link(f"{root}/one", f"{root}/three")
            os.unlink(f"{root}/link")
            os.symlink("/etc/passwd", f"{root}/link")
            os.mkfifo(f"{root}/fifo", 0o600)
            os.mknod(f"{root}/device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            os.setxattr(f"{root}/one", "user.note", b"hello")
            os.setxattr(f"{root}/sub", "user.note", b"dir")
            capability = bytes.fromhex("0100000200040000000000000000000000000000")
            write(f"{root}/ping", "p")
            os.setxattr(f"{root}/ping", "security.capability", capability)

        entries, expected, applied = step(room, base, action)
        assert applied == expected
        assert b".wh.gone" in entries and b"emptied/.wh.old" in entries
        assert b"again/.wh..wh..opq" in entries and b"to-dir/.wh..wh..opq" not in entries
        assert [name for name, entry in entries.items() if entry.kind is Kind.HARDLINK] == [
            b"sub/two",
            b"three",
        ]
        assert entries[b"one"].xattrs == ((b"user.note", b"hello"),)
        assert entries[b"ping"].xattrs[0][0] == b"security.capability"
        assert list(entries) == sorted(entries, key=lambda name: name.split(b"/"))

    def test_whiteouts_that_share_an_inode_are_no_hardlinks(self, room: str) -> None:
        def base(root: str) -> None:
            os.mkdir(f"{root}/d")
            for name in "abcdef":
                write(f"{root}/d/{name}")

        entries, expected, applied = step(
            room, base, lambda root: [os.unlink(f"{root}/d/{name}") for name in "abcdef"] and None
        )
        assert applied == expected
        assert {entry.kind for name, entry in entries.items() if b".wh." in name} == {Kind.FILE}
        assert len(entries) == 7

    def test_a_new_directory_is_not_opaque(self, room: str) -> None:
        """SECURITY.md R20."""
        entries, expected, applied = step(room, lambda root: None, lambda root: os.makedirs(f"{root}/a/b/c"))
        assert list(entries) == [b"a", b"a/b", b"a/b/c"] and applied == expected

    def test_a_step_cannot_make_a_directory_opaque(self, room: str) -> None:
        def base(root: str) -> None:
            os.mkdir(f"{root}/d")
            write(f"{root}/d/old")

        def action(root: str) -> None:
            write(f"{root}/d/new")
            os.setxattr(f"{root}/d", "user.overlay.opaque", b"y")
            os.setxattr(f"{root}/d", "trusted.overlay.opaque", b"y")

        entries, expected, applied = step(room, base, action)
        assert list(entries) == [b"d", b"d/new"] and applied == expected

    def test_nothing_is_no_layer(self, room: str) -> None:
        os.mkdir(f"{room}/upper")
        pipe = Pipe()
        assert not write_upper(f"{room}/upper", (), pipe) and pipe.data == b""

    def test_sockets_are_left_out(self, room: str) -> None:
        def action(root: str) -> None:
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(f"{root}/socket")

        entries, _, _ = step(room, lambda root: None, action)
        assert entries == {}

    def test_a_changed_root(self, room: str) -> None:
        entries, expected, applied = step(room, lambda root: None, lambda root: os.chmod(root, 0o700))
        assert list(entries) == [b""] and applied == expected

    def test_times_with_a_clock(self, room: str) -> None:
        os.mkdir(f"{room}/upper")
        for name, mtime in (("old", 100), ("fixed", 315532800), ("new", 2_000_000_000)):
            write(f"{room}/upper/{name}")
            os.utime(f"{room}/upper/{name}", (mtime, mtime))
        with_clock = {
            str(change.entry): change.entry.mtime for change in changes(f"{room}/upper", clock=1_000_000_000)
        }
        assert with_clock == {"/fixed": 1_000_000_000, "/new": 1_000_000_000, "/old": 100}


names = st.sampled_from(["a", "b", "c"])
actions = st.lists(
    st.tuples(
        st.sampled_from(["file", "dir", "link", "remove", "hardlink", "chmod", "rename"]), names, names, names
    ),
    max_size=12,
)


def play(root: str, script: list[tuple[str, str, str, str]]) -> None:
    """Do what can be done of `script`; what cannot is left out."""
    for what, one, two, three in script:
        path, other = f"{root}/{one}/{two}", f"{root}/{three}"
        try:
            os.makedirs(f"{root}/{one}", exist_ok=True)
            if what == "file":
                write(path, two)
            elif what == "dir":
                os.makedirs(f"{path}/{three}", exist_ok=True)
            elif what == "link":
                os.symlink(three, path)
            elif what == "hardlink":
                os.link(path, f"{root}/{three}-linked", follow_symlinks=False)
            elif what == "chmod":
                os.chmod(path, 0o711, follow_symlinks=True)
            elif what == "rename":
                os.rename(path, other)
            elif os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        except OSError:
            continue


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=actions, after=actions)
def test_a_diff_applied_is_what_the_step_saw(
    before: list[tuple[str, str, str, str]], after: list[tuple[str, str, str, str]]
) -> None:
    room = tempfile.mkdtemp(dir="/dev/shm")
    try:
        _, expected, applied = step(room, lambda root: play(root, before), lambda root: play(root, after))
        assert _without_split_links(applied) == _without_split_links(expected)
    finally:
        shutil.rmtree(room)


def _without_split_links(found: Shape) -> Shape:
    """A copied-up name leaves its hardlinks below (KERNEL.md 1.4): which names share an inode then differs
    by mount.
    """
    return {
        path: (*row[:3], row[3][0] if isinstance(row[3], tuple) else row[3], row[4])
        for path, row in found.items()
    }


class TestSnapshots:
    def test_a_chain_of_steps(self, room: str) -> None:
        with Snapshots(f"{room}/snapshots") as snapshots:
            with snapshots.prepare([]) as active:
                with mounted(active.lowers, active.upper, active.work, f"{room}/m") as root:
                    write(f"{root}/one", "1")
                first = active.commit()
            with snapshots.prepare([first.path]) as active:
                with mounted(active.lowers, active.upper, active.work, f"{room}/m") as root:
                    assert os.listdir(root) == ["one"]
                    os.unlink(f"{root}/one")
                    write(f"{root}/two", "2")
                second = active.commit("named")
            snapshots.settled(first.name)
            assert View([DirectoryLayer(first.path), DirectoryLayer(second.path)]).listdir(b"") == [b"two"]
            assert snapshots.existing("named") == second.path
        with Snapshots(f"{room}/snapshots") as snapshots:
            assert snapshots.names() == sorted([first.name, "named"])
            assert os.listdir(f"{room}/snapshots/.trash") == []
            assert len(os.listdir(f"{room}/snapshots/.live")) == 2

    def test_a_snapshot_that_nobody_recorded_goes_with_its_process(self, room: str) -> None:
        with Snapshots(f"{room}/snapshots") as snapshots, snapshots.prepare([]) as active:
            active.commit()
        with Snapshots(f"{room}/snapshots") as snapshots:
            assert snapshots.names() == []

    def test_the_merged_root_has_the_mode_of_the_root_below(self, room: str) -> None:
        os.mkdir(f"{room}/base")
        os.chmod(f"{room}/base", 0o1750)
        os.chown(f"{room}/base", 3, 4)
        with Snapshots(f"{room}/snapshots") as snapshots, snapshots.prepare([f"{room}/base"]) as active:
            with mounted(active.lowers, active.upper, active.work, f"{room}/m") as root:
                found = os.stat(root)
            assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o1750, 3, 4)
            assert list(changes(active.upper, active.lowers)) == []
