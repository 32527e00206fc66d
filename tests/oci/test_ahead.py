"""Hashing ahead: what the child says, and that nothing is taken for right that is not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from oci import ahead
from oci.ahead import Ahead
from oci.blobs import BlobStore
from oci.digest import Digest


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


def finished(store: BlobStore, *digests: Digest) -> Ahead:
    """A child that has come to its own end."""
    child = Ahead(store, digests)
    os.waitid(os.P_PID, child._child.pid, os.WEXITED | os.WNOWAIT)
    return child


def is_right(child: Ahead, store: BlobStore, digest: Digest) -> bool:
    fd = store.open_fd(digest)
    try:
        verdict = child.verdict(digest)
        return verdict is not None and verdict.is_right(fd)
    finally:
        os.close(fd)


def test_all_is_hashed(store: BlobStore) -> None:
    digests = [store.write(os.urandom(2_000_000)), store.write(b"small"), store.write(b"")]
    with finished(store, *digests) as child:
        assert all(is_right(child, store, each) for each in digests)


def test_a_damaged_blob_is_not_right(store: BlobStore) -> None:
    digest = store.write(b"content")
    Path(store.path(digest)).write_bytes(b"CONTENT")
    with finished(store, digest) as child:
        assert not is_right(child, store, digest)


def _replace(path: Path) -> None:
    path.rename(path.with_suffix(".old"))
    path.write_bytes(b"CONTENT")


@pytest.mark.parametrize("change", [_replace, lambda path: os.utime(path, (1, 1))])
def test_a_file_that_changed_since_is_not_right(store: BlobStore, change: Callable[[Path], None]) -> None:
    digest = store.write(b"content")
    with finished(store, digest) as child:
        change(Path(store.path(digest)))
        assert not is_right(child, store, digest)


def test_a_missing_blob_is_left_to_whoever_sends_it(store: BlobStore) -> None:
    missing, here = Digest.of(b"not here"), store.write(b"here")
    with finished(store, missing, here) as child:
        verdict = child.verdict(missing)
        assert verdict is not None and not verdict.is_right(0)
        assert is_right(child, store, here)


def test_a_killed_child_is_not_waited_for(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ahead, "_judged", lambda *_: signal.pause())
    digest = store.write(b"content")
    with Ahead(store, (digest,)) as child:
        while not child._shared[1]:
            os.sched_yield()
        os.kill(child._child.pid, signal.SIGKILL)
        assert not is_right(child, store, digest)


def test_nothing_is_left_of_a_child(store: BlobStore) -> None:
    before = os.listdir("/proc/self/fd")
    child = finished(store, store.write(b"content"))
    pid = child._child.pid
    child.close()
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_little_is_not_worth_a_child(store: BlobStore) -> None:
    assert ahead.begun(store, {store.write(b"content"): ahead.WORTHWHILE - 1}) is None
