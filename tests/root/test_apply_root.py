"""What only root may unpack: owners, devices, capabilities, overlay's own marks."""

from __future__ import annotations

import io
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from oci.apply import apply
from oci.apply.metadata import Metadata
from oci.tar import Entry, Kind, TarReader, TarWriter

pytestmark = pytest.mark.root

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
"""cap_net_bind_service=ep, version 2 (capabilities(7), File capability extended attribute masking)."""

ENTRIES = [
    Entry(b"", Kind.DIRECTORY, 0o711, 10, 20, mtime=1),
    Entry(b"bin", Kind.DIRECTORY, 0o2755, 0, 5, mtime=2),
    Entry(b"bin/su", Kind.FILE, 0o4755, 1000, 1000, 3, mtime=3),
    Entry(b"bin/wall", Kind.FILE, 0o2755, 0, 5, 3, mtime=4),
    Entry(b"bin/closed", Kind.FILE, 0o600, 7, 0, 3, mtime=4),
    Entry(b"bin/ping", Kind.FILE, 0o755, 33, 33, 3, mtime=5, xattrs=((b"security.capability", CAPABILITY),)),
    Entry(b"bin/big", Kind.FILE, 0o644, 1 << 22, 3_000_000_000, 3, mtime=6),
    Entry(
        b"bin/link", Kind.SYMLINK, 0o777, 5, 6, mtime=7, link=b"su", xattrs=((b"trusted.note", b"on a link"),)
    ),
    Entry(b"dev", Kind.DIRECTORY, 0o755, mtime=8),
    Entry(b"dev/null", Kind.CHAR, 0o666, 0, 5, mtime=9, major=1, minor=3),
    Entry(b"dev/disk", Kind.BLOCK, 0o660, 0, 6, mtime=10, major=8, minor=300),
    Entry(b"dev/pipe", Kind.FIFO, 0o620, 1, 2, mtime=11),
]


def archive(entries: list[Entry]) -> bytes:
    out: list[bytes] = []
    tar = TarWriter(out.append)
    for entry in entries:
        tar.add(entry, b"x" * entry.size)
    tar.finish()
    return b"".join(out)


def read_back(root: str) -> list[Entry]:
    """The tree as entries, in the order of ENTRIES."""
    return [_entry(root, entry.name) for entry in ENTRIES]


def _entry(root: str, name: bytes) -> Entry:
    path = os.path.join(os.fsencode(root), name)
    s = os.lstat(path)
    kinds = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY, stat.S_IFLNK: Kind.SYMLINK}
    kinds |= {stat.S_IFCHR: Kind.CHAR, stat.S_IFBLK: Kind.BLOCK, stat.S_IFIFO: Kind.FIFO}
    kind = kinds[stat.S_IFMT(s.st_mode)]
    link = os.readlink(path) if kind is Kind.SYMLINK else b""
    size = s.st_size if kind is Kind.FILE else 0
    attributes = sorted(x for x in os.listxattr(path, follow_symlinks=False) if x != "security.selinux")
    xattrs = tuple((x.encode(), os.getxattr(path, x, follow_symlinks=False)) for x in attributes)
    device = os.major(s.st_rdev), os.minor(s.st_rdev)
    return Entry(
        name, kind, stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid, size, int(s.st_mtime), link, *device, xattrs
    )


@pytest.fixture
def place() -> Iterator[str]:
    import shutil
    import tempfile

    base = tempfile.mkdtemp(dir="/dev/shm")
    yield base
    shutil.rmtree(base)


@pytest.mark.parametrize("style", ["overlay", "plain"])
def test_owners_modes_devices_capabilities_and_times(place: str, style: str) -> None:
    """SECURITY.md S49."""
    stats = apply(TarReader(io.BytesIO(archive(ENTRIES))), place, style=style)  # type: ignore[arg-type]
    assert stats.notes == ()
    assert read_back(place) == ENTRIES


def test_gnu_tar_finds_no_difference(place: str) -> None:
    data = archive(ENTRIES)
    apply(TarReader(io.BytesIO(data)), place)
    command = ["tar", "-d", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", place]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_gnu_tar_unpacks_ours_alike(place: str) -> None:
    data = archive(ENTRIES)
    command = ["tar", "-xp", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-C", place]
    subprocess.run(command, input=data, check=True, capture_output=True)
    assert read_back(place) == ENTRIES


def test_the_last_of_two_owners_wins_over_what_is_there(place: str) -> None:
    apply(TarReader(io.BytesIO(archive(ENTRIES))), place, style="plain")
    plain = [
        replace(entry, uid=0, gid=0, mode=0o755, xattrs=()) for entry in ENTRIES if entry.kind is Kind.FILE
    ]
    apply(TarReader(io.BytesIO(archive(plain))), place, style="plain")
    assert [_entry(place, entry.name) for entry in plain] == plain


def test_whiteouts_are_devices_that_overlay_understands(place: str) -> None:
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{place}/{name}")
    low = [
        Entry(b"d/a", Kind.FILE),
        Entry(b"d/b", Kind.FILE),
        Entry(b"o/x", Kind.FILE),
        Entry(b"r/y", Kind.FILE),
    ]
    high = [Entry(b"d/.wh.a", Kind.FILE), Entry(b"o/.wh..wh..opq", Kind.FILE), Entry(b"o/new", Kind.FILE)]
    high += [Entry(b".wh.r", Kind.FILE), Entry(b"r/z", Kind.FILE)]
    apply(TarReader(io.BytesIO(archive(low))), f"{place}/lower")
    apply(TarReader(io.BytesIO(archive(high))), f"{place}/upper")
    assert os.getxattr(f"{place}/upper/o", "trusted.overlay.opaque") == b"y"
    options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, f"{place}/merged"], check=True)
    try:
        seen = {name: sorted(os.listdir(f"{place}/merged/{name}")) for name in os.listdir(f"{place}/merged")}
    finally:
        subprocess.run(["umount", f"{place}/merged"], check=True)
    assert seen == {"d": ["b"], "o": ["new"], "r": ["z"]}


def test_device_zero_is_no_way_to_forge_a_whiteout(place: str) -> None:
    stats = apply(TarReader(io.BytesIO(archive([Entry(b"etc", Kind.CHAR)]))), place)
    assert os.listdir(place) == []
    assert "/etc is character device 0:0" in stats.notes[0]


def unmapped(place: str, code: str) -> str:
    """`code` run by an ordinary user namespace's root, who has one id only."""
    os.chown(place, 1000, 1000)
    import sys

    command = [
        "setpriv",
        "--reuid=1000",
        "--regid=1000",
        "--clear-groups",
        "unshare",
        "-Ur",
        sys.executable,
        "-c",
        code,
    ]
    data = archive(ENTRIES)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1", "PLACE": place}
    done = subprocess.run(command, input=data, capture_output=True, check=False, env=environment)
    return (done.stdout + done.stderr).decode()


def test_rootless_owners_are_told_and_devices_noted(place: str) -> None:
    """SECURITY.md S46, S49."""
    said = unmapped(
        place,
        "import os, sys; from oci.apply import apply; from oci.tar import TarReader\n"
        "told = []\n"
        "stats = apply(TarReader(sys.stdin.buffer), os.environ['PLACE'], userxattr=True,\n"
        "              unmapped=lambda path, entry: told.append(path.decode()))\n"
        "print(sorted(told)); print(*stats.notes, sep='\\n')\n",
    )
    told, *notes = said.splitlines()
    left_out = ["dev/disk", "dev/null"]
    owned = [e.name.decode() for e in ENTRIES if (e.uid, e.gid) != (0, 0) and e.name.decode() not in left_out]
    assert told == str(sorted(owned))
    assert [note.split(",")[0] for note in notes] == [
        "/bin/link keeps no trusted.note: Operation not permitted",
        "/dev/null is a device",
        "/dev/disk is a device",
    ]
    assert stat.S_IMODE(os.lstat(f"{place}/bin/su").st_mode) == 0o4755


def test_rootless_without_a_record_of_owners_is_an_error(place: str) -> None:
    said = unmapped(
        place,
        "import os, sys; from oci.apply import apply; from oci.tar import TarReader\n"
        "apply(TarReader(sys.stdin.buffer), os.environ['PLACE'], userxattr=True)\n",
    )
    assert "owner 1000:1000 of /bin/su has no id in this user namespace" in said


def test_s44_a_label_of_another_machine_is_dropped(tmp_path: Path) -> None:
    """Root could set it where no SELinux is loaded."""
    label = ((b"security.selinux", b"system_u:object_r:etc_t:s0"), (b"security.pybuild", b"kept"))
    folder = tmp_path / "root"
    folder.mkdir()
    entries = [Entry(b"file", Kind.FILE, 0o644, 0, 0, 1, xattrs=label)]
    apply(TarReader(io.BytesIO(archive(entries))), str(folder))
    if "security.pybuild" not in os.listxattr(folder / "file"):
        pytest.skip("this file system keeps no security attributes")
    before = tmp_path / "own"
    before.touch()
    own = "security.selinux" in os.listxattr(before)  # what the kernel gives every file
    assert own or "security.selinux" not in os.listxattr(folder / "file")


def test_s43_what_became_a_link_is_not_given_a_mode(tmp_path: Path) -> None:
    """A pipe just made that somebody exchanges: the link's target keeps its mode."""
    victim = tmp_path / "victim"
    victim.touch(0o600)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "pipe").symlink_to(victim)
    fd = os.open(tmp_path / "inside", os.O_RDONLY | os.O_DIRECTORY)
    directory = SimpleNamespace(fd=fd, plain=True, child=lambda base: base)
    with suppress(OSError):
        Metadata(None, None).set_by_name(directory, b"pipe", Entry(b"pipe", Kind.FIFO, 0o777))  # type: ignore[arg-type]
    os.close(fd)
    assert victim.stat().st_mode & 0o777 == 0o600
