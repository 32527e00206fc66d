"""Bodies of blobs on a real socket: what arrives, what is held back, and what ends the waiting."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from oci.ahead import Ahead
from oci.blobs import BlobStore
from oci.digest import Digest
from oci.errors import DigestMismatch
from oci.registry.body import _HASHED_PIECE, FileBody

arrived: list[bytes] = []
SIZES = (0, 1, _HASHED_PIECE - 1, _HASHED_PIECE, _HASHED_PIECE + 1, 3 * _HASHED_PIECE)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    near.settimeout(10)
    with near, far:
        yield near, far


def sent(body: FileBody, pair: tuple[socket.socket, socket.socket]) -> bytes:
    """What arrives of a body; also in `arrived`, for `write` may raise."""
    near, far = pair
    came = bytearray()

    def receive() -> None:
        while piece := far.recv(1 << 16):
            came.extend(piece)

    reader = threading.Thread(target=receive)
    reader.start()
    try:
        body.write(near, lambda count: None)
    finally:
        near.shutdown(socket.SHUT_WR)
        reader.join()
        arrived.append(bytes(came))
    return bytes(came)


def finished(store: BlobStore, digest: Digest) -> Ahead:
    """A child that has hashed a blob."""
    child = Ahead(store, (digest,))
    os.waitid(os.P_PID, child._child.pid, os.WEXITED | os.WNOWAIT)
    return child


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("offset", [0, 1, _HASHED_PIECE])
def test_what_is_hashed_ahead_or_on_the_way_arrives(
    store: BlobStore, pair: tuple[socket.socket, socket.socket], size: int, offset: int, ahead: bool
) -> None:
    content = os.urandom(size)
    digest = store.write(content)
    offset = min(offset, size)
    fd = store.open_fd(digest)
    with finished(store, digest) as child:
        verdict = child.verdict(digest) if ahead else None
        body = FileBody(fd, offset, size - offset, digest=digest, verdict=verdict)
        assert sent(body, pair) == content[offset:]
    assert body.sent == size - offset
    assert pair[0].gettimeout() == 10
    os.close(fd)


def test_a_file_that_is_cut_short_is_damaged(
    store: BlobStore, pair: tuple[socket.socket, socket.socket]
) -> None:
    content = os.urandom(_HASHED_PIECE * 2)
    digest = store.write(content)
    os.truncate(store.path(digest), _HASHED_PIECE)
    fd = store.open_fd(digest)
    with pytest.raises(DigestMismatch, match="is damaged"):
        sent(FileBody(fd, 0, len(content), digest=digest), pair)
    os.close(fd)


def test_a_peer_that_takes_nothing_is_not_waited_for(
    store: BlobStore, pair: tuple[socket.socket, socket.socket]
) -> None:
    content = os.urandom(8 << 20)
    digest = store.write(content)
    fd = store.open_fd(digest)
    near, _ = pair
    near.settimeout(0.2)
    with pytest.raises(TimeoutError, match="timed out"):
        FileBody(fd, 0, len(content), digest=digest).write(near, lambda count: None)
    assert near.gettimeout() == 0.2
    os.close(fd)


def test_a_shutdown_ends_the_waiting(store: BlobStore, pair: tuple[socket.socket, socket.socket]) -> None:
    content = os.urandom(8 << 20)
    digest = store.write(content)
    fd = store.open_fd(digest)
    near, _ = pair
    timer = threading.Timer(0.2, near.shutdown, (socket.SHUT_RDWR,))
    timer.start()
    with pytest.raises(BrokenPipeError):
        FileBody(fd, 0, len(content), digest=digest).write(near, lambda count: None)
    timer.join()
    os.close(fd)


@pytest.mark.parametrize("ahead", [True, False])
def test_what_is_damaged_is_never_complete(
    store: BlobStore, pair: tuple[socket.socket, socket.socket], ahead: bool
) -> None:
    content = bytearray(os.urandom(2 * _HASHED_PIECE))
    digest = store.write(bytes(content))
    content[0] ^= 1
    Path(store.path(digest)).write_bytes(content)
    fd = store.open_fd(digest)
    with finished(store, digest) as child:
        verdict = child.verdict(digest) if ahead else None
        with pytest.raises(DigestMismatch, match="is damaged"):
            sent(FileBody(fd, 0, len(content), digest=digest, verdict=verdict), pair)
    assert arrived[-1] == content[:_HASHED_PIECE]
    os.close(fd)


def test_a_child_that_was_killed_leaves_the_hashing_to_the_sender(
    store: BlobStore, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(2 * _HASHED_PIECE)
    digest = store.write(content)
    monkeypatch.setattr(Ahead, "_judged", lambda *_: signal.pause())
    fd = store.open_fd(digest)
    with Ahead(store, (digest,)) as child:
        while not child._shared[1]:
            os.sched_yield()
        verdict = child.verdict(digest)
        os.kill(child._child.pid, signal.SIGKILL)
        assert sent(FileBody(fd, 0, len(content), digest=digest, verdict=verdict), pair) == content
    os.close(fd)
