"""Trees of mount points, and the removal of what a step had to make (the making: tests/root)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from builder.sandbox.spec import Bind, File, Overlay, Sandbox, Tmpfs
from builder.sandbox.stubs import remove_stubs, stub_tree


def _sandbox(*mounts: Bind | Tmpfs | File) -> Sandbox:
    return Sandbox(Overlay(("/l",)), ("true",), mounts=mounts)


def _entries(top: str) -> set[str]:
    return {str(path.relative_to(top)) + ("/" if path.is_dir() else "") for path in Path(top).rglob("*")}


def test_a_tree_has_every_mount_point(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mounts = (
        File("/etc/hosts", b""),
        Bind(str(tmp_path / "file"), "/a/f"),
        Bind(str(tmp_path), "/a/d/"),
        Tmpfs("//t/./x"),
    )
    old = os.umask(0o077)
    try:
        top = stub_tree(str(tmp_path / "stubs"), _sandbox(*mounts))
    finally:
        os.umask(old)
    assert _entries(top) == {"proc/", "sys/", "dev/", "etc/", "etc/hosts", "a/", "a/f", "a/d/", "t/", "t/x/"}
    assert os.stat(top).st_mode & 0o777 == os.stat(top + "/a/d").st_mode & 0o777 == 0o755
    assert os.stat(top + "/a/f").st_mode & 0o777 == 0o644


def test_one_tree_for_the_same_mount_points(tmp_path: Path) -> None:
    folder = str(tmp_path)
    first = stub_tree(folder, _sandbox(File("/etc/hosts", b"a")))
    assert stub_tree(folder, _sandbox(File("/etc/hosts", b"b"), File("/dev/pipes/x", b""))) == first
    assert stub_tree(folder, _sandbox(Tmpfs("/etc/hosts"))) != first
    assert stub_tree(folder, _sandbox(Tmpfs("/a/../../out"))) == stub_tree(folder, _sandbox())


def test_many_at_once_make_one(tmp_path: Path) -> None:
    trees: list[str] = []
    threads = [
        threading.Thread(target=lambda: trees.append(stub_tree(str(tmp_path), _sandbox()))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(trees)) == 1
    assert os.listdir(tmp_path) == [os.path.basename(trees[0])]


def _made(base: Path, path: str) -> tuple[bytes, bytes, int, int]:
    seen = os.lstat(base / path)
    return (bytes(base), path.encode(), seen.st_dev, seen.st_ino)


def test_only_what_was_made_is_removed(tmp_path: Path) -> None:
    """SECURITY.md S34."""
    base = tmp_path / "upper"
    for folder in ("run/secrets", "kept/full", "swapped"):
        (base / folder).mkdir(parents=True)
    for file in ("run/secrets/x", "kept/full/of", "written", "another"):
        (base / file).touch()
    made = [
        _made(base, name)
        for name in (
            "run", "run/secrets", "run/secrets/x", "kept", "kept/full", "swapped", "written", "another"
        )
    ]  # fmt: skip
    (base / "new").touch()
    (base / "new").rename(base / "another")  # as empty as ours was
    (base / "written").write_text("by the step")
    (base / "swapped").rmdir()
    (tmp_path / "victim").mkdir()
    (base / "swapped").symlink_to(tmp_path / "victim")
    os.utime(base, (1, 1))
    stayed = remove_stubs(made, [])
    assert sorted(os.path.relpath(path, base) for path in stayed) == [
        "another",
        "kept",
        "kept/full",
        "swapped",
        "written",
    ]
    assert not (base / "run").exists()
    assert (tmp_path / "victim").exists()
    assert os.stat(base).st_mtime == 1


def test_removal_follows_no_link(tmp_path: Path) -> None:
    """CVE-2024-23652: a parent that became a link must not lead to a file of the host (S34)."""
    base, victim = tmp_path / "upper", tmp_path / "victim"
    for folder in (base / "d", victim):
        folder.mkdir(parents=True)
        (folder / "x").touch()
    made = [_made(base, "d/x")]
    (base / "d").rename(base / "aside")
    (base / "d").symlink_to(victim)
    assert remove_stubs(made, []) == [str(base / "d/x")]
    assert (victim / "x").exists()
