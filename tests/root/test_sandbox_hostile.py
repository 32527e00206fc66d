"""Images and neighbours that want out: mount points that are links, masks, races (SECURITY.md S14 to S18)."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from builder.sandbox.spec import Bind, File, Tmpfs

pytestmark = pytest.mark.root

FILES = (File("/etc/resolv.conf", b"nameserver 192.0.2.53\n"), File("/etc/hosts", b"127.0.0.1 localhost\n"))


@pytest.fixture
def victim(world: Any) -> str:
    """A directory of the host that no step may change, with names a mount point would have."""
    path = str(world.path("victim"))
    os.makedirs(path + "/shm")
    for name in ("resolv.conf", "hosts", "null"):
        with open(f"{path}/{name}", "w") as file:
            file.write("of the host")
    return path


def _targets(victim: str) -> list[str]:
    up = "../" * 12
    return [
        victim,
        up + victim,
        f"/proc/self/root{victim}",
        f"/proc/1/root{victim}",
        "/proc/self/cwd",
        "/missing/dir",
    ]


@pytest.mark.parametrize("name", ["proc", "sys", "dev", "etc", "run", "dev/shm"])
def test_directories_that_are_links(
    world: Any, victim: str, tree_of: Callable[[str], Any], name: str
) -> None:
    """SECURITY.md S17."""
    before = tree_of(victim)
    for number, target in enumerate(_targets(victim)):
        image = world.image(f"hostile{number}")
        os.makedirs(os.path.dirname(f"{image}/{name}"), exist_ok=True)
        os.symlink(target, f"{image}/{name}")
        root = world.overlay(image)
        exit_, _ = world.run(
            "true", root=root, mounts=(*FILES, File("/run/secrets/x", b"s"), Tmpfs("/run/y"))
        )
        assert exit_.status in (0, 125)
        assert tree_of(victim) == before, target
        upper = [entry for entry in tree_of(root.upper) if entry[0].split("/")[0] not in ("missing",)]
        assert upper == [], target


@pytest.mark.parametrize("name", ["etc/resolv.conf", "etc/hosts", "run/secrets/x"])
def test_files_that_are_links(world: Any, victim: str, tree_of: Callable[[str], Any], name: str) -> None:
    """SECURITY.md S17."""
    before = tree_of(victim)
    for number, target in enumerate(
        [f"{where}/{leaf}" for where in _targets(victim) for leaf in ("hosts", "new")]
    ):
        image = world.image(f"hostile{number}")
        os.makedirs(os.path.dirname(f"{image}/{name}"))
        os.symlink(target, f"{image}/{name}")
        root = world.overlay(image)
        exit_, _ = world.run("cat", "/" + name, root=root, mounts=(*FILES, File("/run/secrets/x", b"s")))
        assert exit_.status in (0, 125)
        assert tree_of(victim) == before, target
        assert tree_of(root.upper) == [], target


def test_a_resolv_conf_that_points_into_run(world: Any, tree_of: Callable[[str], Any]) -> None:
    """As with systemd-resolved: the file's place is made where the link leads, for the run only."""
    os.mkdir(world.path("image/etc"))
    os.symlink("../run/systemd/resolve/stub-resolv.conf", world.path("image/etc/resolv.conf"))
    sandbox = world.sandbox("cat", "/etc/resolv.conf", mounts=FILES)
    exit_, output = world.start(sandbox)
    assert (exit_.status, output) == (0, "nameserver 192.0.2.53\n")
    assert tree_of(sandbox.root.upper) == []


def test_links_in_a_circle(world: Any) -> None:
    os.mkdir(world.path("image/etc"))
    os.symlink("hosts", world.path("image/etc/hosts"))
    exit_, _ = world.run("true", mounts=FILES)
    assert exit_.status == 125
    assert "symbolic links" in exit_.error


def test_nothing_is_mounted_into_proc_or_sys(world: Any) -> None:
    os.symlink("/proc/sys", world.path("image/way-in"))
    os.symlink("/proc", world.path("image/door"))
    covered = [File(f"{way}/{name}", b"x") for way in ("/proc", "/door") for name in ("keys", "timer_list")]
    others = [Tmpfs(name) for name in ("/proc/self/attr", "/proc", "/sys/kernel", "/sys/firmware", "/way-in")]
    for mount in (*others, *covered):
        target = mount.target
        exit_, _ = world.run("true", mounts=(mount,))
        assert exit_.status == 125, target
        assert "inside /proc or /sys" in exit_.error


def test_a_file_where_a_directory_belongs(world: Any) -> None:
    for name in ("proc", "srv"):
        with open(world.path(f"image/{name}"), "w"):
            pass
    exit_, _ = world.run("true")
    assert (exit_.status, exit_.error) == (125, "/proc: mount: not a directory '/proc'")


@pytest.mark.parametrize("kind", ["file", "link", "other device"])
def test_masks_do_not_come_from_the_image(world: Any, victim: str, kind: str) -> None:
    """CVE-2025-31133: /dev/null of the image is not what /proc/kcore is covered with (S14)."""
    null = world.path("image/dev/null")
    os.mkdir(os.path.dirname(null))
    if kind == "file":
        with open(null, "w") as file:
            file.write("x")
    elif kind == "link":
        os.symlink("/proc/sys/kernel/core_pattern", null)
    else:
        os.mknod(null, 0o20666, os.makedev(1, 5))
    masked = "/proc/interrupts /proc/keys /proc/timer_list"
    assert world.sh(f"cat {masked}; [ -c /dev/null ] && head -c 1 /dev/null | wc -c").split() == ["0"]


def test_the_own_program_again(world: Any) -> None:
    """CVE-2019-5736's first step: whatever comes of it, it is no success and the interpreter is as it was."""
    import hashlib
    import sys

    def digest() -> str:
        with open(os.path.realpath(sys.executable), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()

    before = digest()
    with open(world.path("image/again"), "w") as file:
        file.write("#!/proc/self/exe\n")
    os.chmod(world.path("image/again"), 0o755)
    assert world.run("/again")[0].status != 0
    assert digest() == before


def test_mount_points_in_a_directory_that_others_change(
    world: Any, victim: str, tree_of: Callable[[str], Any]
) -> None:
    """A neighbour exchanges a directory of a shared cache for a link while mount points are made in it.

    SECURITY.md S18.
    """
    cache = world.path("cache")
    os.makedirs(cache + "/d")
    os.symlink(victim, cache + "/link")
    before = tree_of(victim)
    stop = threading.Event()

    def exchange() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        while not stop.is_set():
            libc.renameat2(-100, f"{cache}/d".encode(), -100, f"{cache}/link".encode(), 2)  # RENAME_EXCHANGE

    neighbour = threading.Thread(target=exchange)
    neighbour.start()
    try:
        for _ in range(150):
            mounts = (Bind(cache, "/cache"), File("/cache/d/new/file", b"x"))
            assert world.run("true", mounts=mounts)[0].status in (0, 125)
            assert tree_of(victim) == before
    finally:
        stop.set()
        neighbour.join()
