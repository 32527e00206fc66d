"""Steps in a copy of their layers: the same layer comes out as from an overlay, which is the judge."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import ResourceError
from builder.snapshot import copy
from builder.snapshot.active import CopiedActive
from builder.snapshot.copy import Copied
from builder.snapshot.diff import changes
from builder.snapshot.overlay import Snapshots
from oci.tar import Entry

pytestmark = pytest.mark.root

Act = Callable[[str], None]


@pytest.fixture
def room() -> Iterator[str]:
    path = tempfile.mkdtemp(dir="/dev/shm")
    yield path
    shutil.rmtree(path)


def write(path: str, text: str = "") -> None:
    with open(path, "w") as file:
        file.write(text)


def by_overlay(room: str, lowers: tuple[str, ...], act: Act) -> list[Entry]:
    upper, work, merged = (os.path.join(room, name) for name in ("upper", "work", "merged"))
    for path in (upper, work, merged):
        os.mkdir(path)
    options = f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work},index=off,metacopy=off"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, merged], check=True)
    try:
        act(merged)
    finally:
        subprocess.run(["umount", merged], check=True)
    return [each.entry for each in changes(upper, lowers, clock=1)]


def by_copy(room: str, lowers: tuple[str, ...], act: Act) -> list[Entry]:
    root, upper = os.path.join(room, "root"), os.path.join(room, "copied")
    os.mkdir(root)
    os.mkdir(upper)
    copied = Copied(lowers, root)
    act(root)
    copied.move_changes(upper)
    return [each.entry for each in changes(upper, lowers, clock=1)]


def both(room: str, base: Act, act: Act, more: Act = lambda root: None) -> list[Entry]:
    """The layer of `act` on two layers, `base` and what `more` adds to it; the same from both ways."""
    lowest, lower = os.path.join(room, "lowest"), os.path.join(room, "lower")
    os.mkdir(lowest)
    os.mkdir(lower)
    base(lowest)
    upper_of_more = os.path.join(room, "more")
    os.mkdir(upper_of_more)
    by_overlay(upper_of_more, (lowest,), more)
    lowers = (os.path.join(upper_of_more, "upper"), lowest)
    copied, expected = by_copy(room, lowers, act), by_overlay(room, lowers, act)
    assert copied == expected
    return copied


def furnish(root: str) -> None:
    for name in ("keep", "gone", "emptied", "again", "to-file", "sub/deep", "hidden"):
        os.makedirs(f"{root}/{name}")
        write(f"{root}/{name}/old", name)
    for name in ("to-dir", "mode", "grown", "linked", "touched", "swapped"):
        write(f"{root}/{name}", "x")
    os.link(f"{root}/linked", f"{root}/sub/linked-too")
    os.chown(f"{root}/keep/old", 7, 8)
    os.symlink("keep", f"{root}/link")
    os.setxattr(f"{root}/mode", "user.note", b"n")
    for path in (f"{root}/touched", f"{root}/keep"):
        os.utime(path, (5, 5))


def lay_over(root: str) -> None:
    """A second layer: a whiteout, an opaque directory, a change."""
    os.unlink(f"{root}/emptied/old")
    shutil.rmtree(f"{root}/hidden")
    os.mkdir(f"{root}/hidden")
    write(f"{root}/hidden/new", "new")
    write(f"{root}/sub/deep/more", "m")


def everything(root: str) -> None:
    shutil.rmtree(f"{root}/gone")
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
    os.link(f"{root}/linked", f"{root}/again/three")
    os.unlink(f"{root}/link")
    os.symlink("/etc/passwd", f"{root}/link")
    os.mkfifo(f"{root}/fifo", 0o600)
    os.mknod(f"{root}/device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.setxattr(f"{root}/one", "user.note", b"hello")
    os.setxattr(f"{root}/sub", "user.note", b"dir")
    write(f"{root}/ping", "p")
    os.setxattr(
        f"{root}/ping", "security.capability", bytes.fromhex("01" + "00000200040000" + "00" * 13)[:20]
    )
    with open(f"{root}/grown", "a") as file:
        file.write("more")
    os.utime(f"{root}/touched", (6, 6))
    os.rename(f"{root}/swapped", f"{root}/sub/deep/swapped")
    os.unlink(f"{root}/sub/deep/more")
    os.chmod(root, 0o750)


def test_everything_a_step_may_do(room: str) -> None:
    names = [bytes(entry.name) for entry in both(room, furnish, everything, lay_over)]
    assert {b"again/.wh..wh..opq", b".wh.gone", b"sub/deep/.wh.more", b"to-dir"} <= set(names)
    assert b"keep/old" not in names and b"emptied" not in names


def test_nothing_is_no_layer(room: str) -> None:
    assert both(room, furnish, lambda root: None, lay_over) == []


def test_reading_changes_nothing(room: str) -> None:
    def read(root: str) -> None:
        for here, _, files in os.walk(root):
            for name in files:
                if os.path.isfile(os.path.join(here, name)):
                    with open(os.path.join(here, name), "rb") as file:
                        file.read()

    assert both(room, furnish, read, lay_over) == []


def test_the_copy_is_what_the_overlay_shows(room: str) -> None:
    """Owners, modes, times, contents and attributes; and no hard link leads to a layer."""
    os.mkdir(f"{room}/base")
    furnish(f"{room}/base")
    os.mkdir(f"{room}/root")
    Copied((f"{room}/base",), f"{room}/root")
    for here, folders, files in os.walk(f"{room}/base"):
        for name in (*folders, *files):
            one = os.path.join(here, name)
            two = one.replace("/base/", "/root/", 1)
            left, right = os.lstat(one), os.lstat(two)
            same = ("st_mode", "st_uid", "st_gid", "st_mtime_ns")
            assert [getattr(left, each) for each in same] == [getattr(right, each) for each in same], name
            assert left.st_ino != right.st_ino and (stat.S_ISDIR(left.st_mode) or right.st_nlink == 1)
            assert os.listxattr(one, follow_symlinks=False) == os.listxattr(two, follow_symlinks=False)


def test_a_step_can_fake_no_mark(room: str) -> None:
    """A device 0:0 and overlay's attributes mean nothing when a step makes them."""
    os.mkdir(f"{room}/base")
    os.mkdir(f"{room}/base/d")
    write(f"{room}/base/d/old")
    for part in ("root", "upper"):
        os.mkdir(f"{room}/{part}")
    copied = Copied((f"{room}/base",), f"{room}/root", userxattr=True)
    os.mknod(f"{room}/root/d/old2", stat.S_IFCHR, 0)
    write(f"{room}/root/d/new")
    os.mkdir(f"{room}/root/e")
    for name in ("d", "e", "d/new"):
        os.setxattr(f"{room}/root/{name}", "user.overlay.opaque", b"y")
    copied.move_changes(f"{room}/upper")
    found = {
        bytes(each.entry.name): each.entry.xattrs
        for each in changes(f"{room}/upper", (f"{room}/base",), userxattr=True)
    }
    mark = ((b"user.overlay.opaque", b"y"),)
    assert found == {b"d": mark, b"d/new": mark, b"e": mark}


def test_a_new_directory_with_the_number_of_the_old(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that gives the number of an inode again: its birth tells them apart."""
    os.makedirs(f"{room}/base/d")
    write(f"{room}/base/d/old")
    for part in ("root", "upper"):
        os.mkdir(f"{room}/{part}")
    copied = Copied((f"{room}/base",), f"{room}/root")
    shutil.rmtree(f"{room}/root/d")
    os.mkdir(f"{room}/root/d")
    seen = copied._seen[b"d"]
    copied._seen[b"d"] = seen._replace(ino=os.stat(f"{room}/root/d").st_ino)
    copied.move_changes(f"{room}/upper")
    names = [bytes(each.entry.name) for each in changes(f"{room}/upper", (f"{room}/base",))]
    assert names == [b"d", b"d/.wh..wh..opq"]


def test_a_full_disk_says_why_so_much_is_copied(room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    os.mkdir(f"{room}/base")
    write(f"{room}/base/file", "x")
    os.mkdir(f"{room}/root")
    monkeypatch.setattr(copy, "copy_content", full)
    with pytest.raises(ResourceError) as caught:
        Copied((f"{room}/base",), f"{room}/root")
    assert "overlay" in caught.value.hint


def test_where_overlay_is_refused_steps_get_copies(room: str) -> None:
    """R23. The store on an overlay, as in a container: the kernel takes none as an upper directory."""
    for name in ("lower", "upper", "work", "store"):
        os.mkdir(f"{room}/{name}")
    options = f"lowerdir={room}/lower,upperdir={room}/upper,workdir={room}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, f"{room}/store"], check=True)
    try:
        with Snapshots(f"{room}/store/s", storage="auto") as snapshots, snapshots.prepare([]) as active:
            assert isinstance(active, CopiedActive)
            write(f"{active.merged}/new", "n")
            kept = active.commit()
            assert os.listdir(kept.path) == ["new"]
    finally:
        subprocess.run(["umount", f"{room}/store"], check=True)
    with Snapshots(f"{room}/s", storage="auto") as snapshots, snapshots.prepare([]) as active:
        assert not active.merged


names = st.sampled_from(["a", "b", "c"])
actions = st.lists(
    st.tuples(
        st.sampled_from(["file", "dir", "link", "remove", "hardlink", "chmod", "rename"]), names, names, names
    ),
    max_size=12,
)


def play(root: str, script: list[tuple[str, str, str, str]]) -> None:
    """Do what can be done; renaming a directory is left out, which overlay refuses."""
    for what, one, two, three in script:
        path, other = f"{root}/{one}/{two}", f"{root}/{three}"
        folder = os.path.isdir(path) and not os.path.islink(path)
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
            elif what == "chmod" and not folder:
                os.chmod(path, 0o711)
            elif what == "rename" and not folder:
                os.rename(path, other)
            elif what == "remove" and folder:
                shutil.rmtree(path)
            elif what == "remove":
                os.unlink(path)
        except OSError:
            continue


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=actions, between=actions, after=actions)
def test_any_step(before: Any, between: Any, after: Any) -> None:
    """SECURITY.md R23."""
    room = tempfile.mkdtemp(dir="/dev/shm")
    try:
        both(
            room,
            lambda root: play(root, before),
            lambda root: play(root, after),
            lambda root: play(root, between),
        )
    finally:
        shutil.rmtree(room)
