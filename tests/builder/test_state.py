"""The store's directory: versions, locks, leases, logs; and its database, which may be damaged or lost."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from builder import state as module
from builder.errors import CacheError, UsageError
from builder.events import Event, Warning_
from builder.state import NEVER, SCHEMA, StateDir, default_root
from oci.digest import Digest

A, B = Digest.of(b"a"), Digest.of(b"b")


def mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_new_store_is_private(state: StateDir) -> None:
    """SECURITY.md S60."""
    old = os.umask(0)
    try:
        with StateDir(state.root + "2") as made:
            made.steps().put("k", "v")
            assert {mode(made.root), mode(made.snapshots), mode(made.containers), mode(made.logs)} == {0o700}
            assert mode(os.path.join(made.root, "state.db")) == 0o600
    finally:
        os.umask(old)


def test_the_default_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.delenv("PYBUILD_ROOT", raising=False)
    assert default_root() == "/home/me/.local/share/pybuild"
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_root() == "/data/pybuild"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_root() == "/var/lib/pybuild"
    monkeypatch.setenv("PYBUILD_ROOT", "/else/where/")
    assert default_root() == "/else/where"


def test_a_newer_store_is_refused_and_left_alone(state: StateDir) -> None:
    """SECURITY.md R22."""
    Path(state.root, "schema").write_text(f"{SCHEMA + 1}\n")
    with pytest.raises(CacheError, match="newer pybuild") as caught:
        StateDir(state.root)
    assert "--root" in caught.value.hint
    assert Path(state.root, "schema").read_text() == f"{SCHEMA + 1}\n"


def test_an_older_store_is_migrated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SECURITY.md R22."""
    root = str(tmp_path / "store")
    StateDir(root).close()
    seen = []
    monkeypatch.setattr(module, "SCHEMA", SCHEMA + 2)
    monkeypatch.setattr(
        module, "MIGRATIONS", {n: lambda _, n=n: seen.append(n) for n in (SCHEMA, SCHEMA + 1)}
    )
    StateDir(root).close()
    StateDir(root).close()
    assert seen == [SCHEMA, SCHEMA + 1]
    monkeypatch.undo()
    with pytest.raises(CacheError):
        StateDir(root)


def test_a_migration_does_not_wait_for_ever(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCHEMA", SCHEMA + 1)
    monkeypatch.setattr(module, "_PATIENCE_S", 0.1)
    with pytest.raises(CacheError, match="older pybuild is using it"):
        StateDir(state.root)


def test_a_nonsense_version_is_an_error_not_a_new_store(state: StateDir) -> None:
    Path(state.root, "schema").write_text("seven")
    with pytest.raises(CacheError, match="seven"):
        StateDir(state.root)


def test_somebody_elses_directory_is_refused_unchanged(tmp_path: Path) -> None:
    """SECURITY.md S72."""
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        StateDir(str(tmp_path))
    assert os.listdir(tmp_path) == ["thesis.txt"]
    with pytest.raises(UsageError, match="no directory"):
        StateDir(str(tmp_path / "thesis.txt"))


def test_an_image_layout_may_become_a_store(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "index.json").write_text("{}")
    StateDir(str(tmp_path)).close()
    assert (tmp_path / "snapshots").is_dir()


def test_many_processes_make_one_store(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    code = f"from builder.state import StateDir\nwith StateDir({root!r}) as s: s.steps().put('k', 'v')"
    running = [subprocess.Popen([sys.executable, "-c", code], cwd=os.getcwd()) for _ in range(4)]
    assert [each.wait() for each in running] == [0, 0, 0, 0]
    with StateDir(root) as made:
        assert made.steps().get("k") == "v"


def test_a_lock_excludes_and_ends_with_its_block(state: StateDir) -> None:
    with state.lock("one") as held:
        assert held
        with state.lock("one", wait=False) as again:
            assert not again
        with state.lock("two", wait=False) as other:
            assert other
    with (
        state.lock("one", shared=True, wait=False) as first,
        state.lock("one", shared=True, wait=False) as second,
    ):
        assert first and second


def hold_a_lease(root: str, ready: object) -> None:
    with StateDir(root) as made, made.lease() as lease:
        lease.add([A])
        ready.set()  # type: ignore[attr-defined]
        threading.Event().wait()


def test_a_lease_protects_until_its_process_is_killed(state: StateDir) -> None:
    """SECURITY.md R08."""
    spawn = multiprocessing.get_context("fork")
    ready = spawn.Event()
    process = spawn.Process(target=hold_a_lease, args=(state.root, ready), daemon=True)
    process.start()
    assert ready.wait(60)
    with state.collecting() as leased:
        assert leased.protects(A, 0) and not leased.protects(B, 0)
        assert leased.protects(B, leased.since), "what came into being since may be half a build"
    process.kill()
    process.join()
    with state.collecting() as leased:
        assert not leased.protects(A, NEVER - 1)
    assert os.listdir(os.path.join(state.root, "leases")) == []


def test_blobs_made_under_a_lease_are_newer_than_it(state: StateDir) -> None:
    with state.lease():
        blob = Path(state.root, "blob")
        blob.touch()
        with state.collecting() as leased:
            assert leased.protects(B, os.stat(blob).st_ctime_ns)


def test_logs_are_private_and_old_ones_go(state: StateDir) -> None:
    """SECURITY.md S61."""
    for day in range(1, 8):
        Path(state.logs, f"2020010{day}-000000-abcdef").mkdir()
    made = state.new_build_logs()
    assert mode(made) == 0o700
    assert state.prune_logs(keep=3) == 5
    kept = ["20200106-000000-abcdef", "20200107-000000-abcdef", os.path.basename(made)]
    assert sorted(os.listdir(state.logs)) == kept


def test_tables_keep_what_was_put(state: StateDir) -> None:
    steps = state.steps()
    steps.put("k", "old")
    steps.put_many([("k", "new"), ("l", "other")])
    assert (steps.get("k"), steps.get("nothing")) == ("new", None)
    assert dict(steps.items()) == {"k": "new", "l": "other"}
    steps.delete(["l"])
    assert steps.get("l") is None
    content = state.content()
    content.put_many([(n.to_bytes(2, "big"), b"v%d" % n) for n in range(1200)])
    found = content.get_many(n.to_bytes(2, "big") for n in range(1100, 1300))
    assert found == {n.to_bytes(2, "big"): b"v%d" % n for n in range(1100, 1200)}


def test_use_is_written_when_flushed(state: StateDir) -> None:
    steps = state.steps()
    steps.put("k", "v")
    state.database.run(lambda db: db.execute("UPDATE steps SET used = 1"))
    steps.get("k")
    read = lambda: state.database.run(lambda db: db.execute("SELECT used FROM steps").fetchone()[0])  # noqa: E731
    assert read() == 1
    steps.flush()
    assert read() > 1


def test_every_thread_has_its_connection(state: StateDir) -> None:
    steps = state.steps()

    def work(n: int) -> None:
        for i in range(20):
            steps.put(f"{n}-{i}", "v")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(list(steps.items())) == 120


def test_a_connection_ends_with_its_thread(state: StateDir) -> None:
    """A server has thousands of threads in its life (SECURITY.md R27)."""

    def opened() -> int:
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return sum(
            os.readlink(each).startswith(state.database.path) for each in links if os.path.lexists(each)
        )

    state.steps().put("key", "value")
    before = opened()
    for _ in range(20):
        thread = threading.Thread(target=lambda: state.steps().get("key"))
        thread.start()
        thread.join()
    assert 0 < before <= opened() <= before + 2, "sqlite keeps a closed file for the next connection"
    state.database.close()
    assert opened() == 0 and state.steps().get("key") == "value"


@pytest.mark.parametrize("damage", ["garbage", "page", "empty", "gone"])
def test_a_damaged_or_lost_database_is_made_again(tmp_path: Path, damage: str) -> None:
    root = str(tmp_path / "store")
    with StateDir(root) as made:
        made.steps().put_many([(f"k{n}", "v" * 500) for n in range(200)])
    path = Path(root, "state.db")
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "page":
        path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    else:
        path.write_bytes(b"" if damage == "empty" else b"garbage " * 1000)
    heard: list[Event] = []
    with StateDir(root, heard.append) as made:
        steps = made.steps()
        assert steps.get("k1") is None
        steps.put("k1", "w")
        assert steps.get("k1") == "w"
    if damage in ("garbage", "page"):
        (warning,) = heard
        assert isinstance(warning, Warning_) and "damaged" in warning.message
        assert os.path.exists(warning.at)


def test_another_version_of_the_tables_is_emptied(state: StateDir) -> None:
    state.steps().put("k", "v")
    state.database.close()
    other = sqlite3.connect(os.path.join(state.root, "state.db"))
    other.executescript("PRAGMA user_version = 99; ALTER TABLE steps ADD COLUMN more TEXT")
    other.close()
    assert state.steps().get("k") is None
    state.steps().put("k", "v")


def test_a_database_that_cannot_be_used_says_so(state: StateDir) -> None:
    os.mkdir(os.path.join(state.root, "state.db"))
    with pytest.raises((CacheError, OSError)):
        state.steps().get("k")
