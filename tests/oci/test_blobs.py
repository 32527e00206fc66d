"""Blobs appear whole or not at all, whatever happens to their writer."""

from __future__ import annotations

import gc
import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from oci import media_types
from oci.blobs import BlobStore
from oci.digest import Digest
from oci.durable import write_all
from oci.errors import BlobNotFound, DigestMismatch, InvalidArchive, LimitExceeded
from oci.model import Descriptor

NOTHING = Digest.of(b"never stored")


def temporaries(store: BlobStore) -> list[str]:
    return os.listdir(store.temporary) if os.path.isdir(store.temporary) else []


def damage(store: BlobStore, digest: Digest, content: bytes) -> None:
    with open(store.path(digest), "wb") as file:
        file.write(content)


def test_round_trip(store: BlobStore) -> None:
    with store.writer() as writer:
        assert writer.write(b"hel") + writer.write(memoryview(b"lo")) == 5
        assert list(store) == []
        assert len(temporaries(store)) == 1
        digest = writer.commit()
    assert digest == Digest.of(b"hello")
    assert digest in store
    assert list(store) == [digest]
    assert store.size(digest) == 5
    assert store.read(digest) == b"hello"
    assert temporaries(store) == []


def test_looking_at_some_of_them_leaves_nothing_open(store: BlobStore) -> None:
    for number in range(3):
        store.put("text/plain", b"%d" % number)
    assert next(iter(store)) in store
    gc.collect()  # a listing that is not closed is a warning, and so a failure


def test_modes_keep_others_out(tmp_path: Path) -> None:
    """SECURITY.md S60."""
    os.umask(before := os.umask(0))
    os.umask(0)
    try:
        private, public = BlobStore(tmp_path / "a"), BlobStore(tmp_path / "b", private=False)
        digest = private.write(b"x")
        public.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(private.path(digest)).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(os.path.dirname(private.path(digest))).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(private.temporary).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(public.path(digest)).st_mode) == 0o644


def test_writing_again_changes_nothing_and_heals(store: BlobStore) -> None:
    digest = store.write(b"hello")
    damage(store, digest, b"h\0llo")
    assert store.write(b"hello") == digest
    assert store.read(digest) == b"hello"
    assert list(store) == [digest]


@pytest.mark.parametrize("expected", [NOTHING, Descriptor("a/b", Digest.of(b"hello"), 6)])
def test_unexpected_bytes_leave_no_trace(store: BlobStore, expected: Digest | Descriptor) -> None:
    with pytest.raises(DigestMismatch), store.writer() as writer:
        writer.write(b"hello")
        writer.commit(expected)
    assert list(store) == temporaries(store) == []


def test_an_error_leaves_no_trace(store: BlobStore) -> None:
    with pytest.raises(KeyboardInterrupt), store.writer() as writer:
        writer.write(b"hello")
        raise KeyboardInterrupt
    assert list(store) == temporaries(store) == []


def test_without_hashing_the_caller_knows(store: BlobStore) -> None:
    with store.writer(hashing=False) as writer:
        writer.write(b"hello")
        with pytest.raises(TypeError):
            writer.commit()
        assert writer.commit(Digest.of(b"hello")) in store


def test_sha512(store: BlobStore) -> None:
    with store.writer(algorithm="sha512") as writer:
        writer.write(b"hello")
        digest = writer.commit(Digest.of(b"hello", "sha512"))
    assert list(store) == [digest]
    assert store.read(digest) == b"hello"


def test_missing(store: BlobStore) -> None:
    assert NOTHING not in store
    for call in (store.open, store.size, store.read, store.verify):
        with pytest.raises(BlobNotFound, match=NOTHING.hex):
            call(NOTHING)
    assert store.delete(NOTHING) is False


@pytest.mark.parametrize("content", [b"", b"hell", b"hellO", b"hello!"])
def test_damage_is_found_by_every_reader(store: BlobStore, tmp_path: Path, content: bytes) -> None:
    """SECURITY.md S83."""
    digest = store.write(b"hello")
    damage(store, digest, content)
    with pytest.raises(DigestMismatch, match=f"damaged.*{Digest.of(content).hex}"):
        store.read(digest)
    with pytest.raises(DigestMismatch, match="damaged"):
        store.verify(digest)
    with store.open(digest) as reader, pytest.raises(DigestMismatch):
        reader.readinto(bytearray(100))  # type: ignore[attr-defined]
        reader.readinto(bytearray(100))  # type: ignore[attr-defined]
    with open(tmp_path / "out", "wb") as out, pytest.raises(DigestMismatch):
        store.send(digest, out.fileno())


def test_quarantine(store: BlobStore) -> None:
    """SECURITY.md R16."""
    digest = store.write(b"hello")
    damage(store, digest, b"x")
    aside = store.quarantine(digest)
    assert digest not in store
    with open(aside, "rb") as file:
        assert file.read() == b"x"
    assert list(store) == []


def test_delete(store: BlobStore) -> None:
    digest = store.write(b"hello")
    assert store.delete(digest) is True
    assert digest not in store


def test_read_is_capped(store: BlobStore) -> None:
    """SECURITY.md S80."""
    digest = store.write(b"x" * 100)
    with pytest.raises(LimitExceeded, match="100 bytes; at most 99"):
        store.read(digest, 99)


def test_document_checks_its_size(store: BlobStore) -> None:
    pointer = store.put(media_types.OCI_CONFIG, b"{}")
    assert store.document(pointer) == b"{}"
    with pytest.raises(DigestMismatch, match="promises 3"):
        store.document(Descriptor(pointer.media_type, pointer.digest, 3))


def test_names_that_are_no_digests_are_ignored(store: BlobStore) -> None:
    digest = store.write(b"x")
    for name in ("README", "A" * 64, "a" * 63):
        with open(os.path.join(os.path.dirname(store.path(digest)), name), "w"):
            pass
    assert list(store) == [digest]


def test_links_are_never_followed(store: BlobStore, tmp_path: Path) -> None:
    """SECURITY.md S61."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"hello")
    digest = Digest.of(b"hello")
    os.symlink(secret, store.path(digest))
    assert digest not in store
    with pytest.raises(InvalidArchive, match="symbolic link"):
        store.read(digest)
    os.rename(os.path.join(store.root, "blobs"), tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", os.path.join(store.root, "blobs"))
    with pytest.raises(InvalidArchive, match="symbolic link"):
        store.read(digest)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_files_are_blobs(store: BlobStore, make: object) -> None:
    digest = Digest.of(b"")
    make(store.path(digest))  # type: ignore[operator]
    assert digest not in store
    with pytest.raises(InvalidArchive, match="no regular file"):
        store.open(digest)


@pytest.mark.parametrize("verified", [True, False])
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_WRONLY | os.O_APPEND])
def test_send_to_a_file(store: BlobStore, tmp_path: Path, flags: int, verified: bool) -> None:
    content = os.urandom(3 << 20) + b"odd"
    digest = store.write(content)
    sender = store if verified else BlobStore(store.root)
    out = os.open(tmp_path / "out", flags | os.O_CREAT)
    os.write(out, b"before")
    moved: list[int] = []
    assert sender.send(digest, out, moved.append) == len(content) == sum(moved)
    os.write(out, b"after")
    os.close(out)
    assert (tmp_path / "out").read_bytes() == b"before" + content + b"after"


@pytest.mark.parametrize("verified", [True, False])
def test_send_to_a_pipe(store: BlobStore, verified: bool) -> None:
    content = os.urandom(1 << 20)
    digest = store.write(content)
    source, sink = os.pipe()
    got = []

    def receive() -> None:
        with open(source, "rb") as pipe:
            got.append(pipe.read())

    reader = threading.Thread(target=receive)
    reader.start()
    (store if verified else BlobStore(store.root)).send(digest, sink)
    os.close(sink)
    reader.join()
    assert got == [content]


def test_another_process_verifies_again(store: BlobStore, tmp_path: Path) -> None:
    """SECURITY.md S83: what leaves the store is verified, however well it once was written."""
    digest = store.write(bytes(1 << 20))
    with open(store.path(digest), "rb") as file:
        assert store.is_verified(digest, file.fileno())
        assert not BlobStore(store.root).is_verified(digest, file.fileno())


def test_what_changed_since_it_was_verified_is_verified_again(store: BlobStore, tmp_path: Path) -> None:
    digest = store.write(b"hello")
    damage(store, digest, b"hellO")
    with open(tmp_path / "out", "wb") as out, pytest.raises(DigestMismatch):
        store.send(digest, out.fileno())


def test_take(store: BlobStore, tmp_path: Path) -> None:
    digest = store.write(b"hello")
    other = BlobStore(tmp_path / "other")
    other.take(digest, store)
    other.take(digest, store)
    assert other.read(digest) == b"hello"
    damaged = store.write(b"fine")
    damage(store, damaged, b"torn")
    with pytest.raises(DigestMismatch):
        other.take(damaged, store)
    assert list(other) == [digest]
    assert temporaries(other) == []


def test_staging_is_invisible_until_published(store: BlobStore) -> None:
    known = store.write(b"known")
    with store.staging() as staging:
        new, other = staging.write(b"new"), staging.write(b"other")
        assert {known, new} <= {digest for digest in (known, new) if digest in staging}
        assert staging.read(known) == b"known"
        assert new not in store
        assert store.clean() == 0
        assert staging.publish({new, known}) == 1
    assert sorted(store) == sorted([known, new])
    assert other not in store
    assert temporaries(store) == []


def test_staging_vanishes_on_error(store: BlobStore) -> None:
    with pytest.raises(RuntimeError), store.staging() as staging:
        staging.write(b"new")
        raise RuntimeError
    assert list(store) == temporaries(store) == []


def test_many_writers_of_one_blob(store: BlobStore) -> None:
    """SECURITY.md R07."""
    content = os.urandom(100_000)
    threads = [threading.Thread(target=store.write, args=(content,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(store) == [Digest.of(content)]
    assert temporaries(store) == []


def test_clean_spares_the_living_even_while_they_start(store: BlobStore) -> None:
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            store.clean()

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for number in range(300):
            store.write(b"%d" % number)
    finally:
        stop.set()
        sweeper.join()
    assert len(list(store)) == 300


KILLED = """
import sys, time
from oci.blobs import BlobStore
store = BlobStore(sys.argv[1])
with store.{what} as thing:
    thing.write(b"half a blob")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("what", ["writer()", "staging()"])
def test_kill_leaves_nothing_visible(store: BlobStore, what: str) -> None:
    """SECURITY.md R02."""
    command = [sys.executable, "-c", KILLED.format(what=what), store.root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        assert store.clean() == 0
        assert len(temporaries(store)) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(store) == []
    assert len(temporaries(store)) == 1
    assert store.clean() == 1
    assert temporaries(store) == []
    assert store.clean() == 0


def test_clean_follows_no_links(store: BlobStore, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    os.makedirs(store.temporary, exist_ok=True)
    os.symlink(precious, os.path.join(store.temporary, "link"))
    store.clean()
    assert (precious / "file").exists()


def test_replace_is_one_step(store: BlobStore) -> None:
    """SECURITY.md R01."""
    path = os.path.join(store.root, "index.json")
    store.replace("index.json", b"one")
    with open(path, "rb") as old:
        store.replace("index.json", b"two")
        assert old.read() == b"one"
    with open(path, "rb") as new:
        assert new.read() == b"two"
    assert temporaries(store) == []


def test_a_full_disk_leaves_no_trace(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """SECURITY.md R05."""

    def full(fd: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), store.writer() as writer:
        monkeypatch.setattr(os, "write", full)
        writer.write(b"hello")
    assert list(store) == temporaries(store) == []


def test_order_of_durability(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """R01, R03. File flushed, renamed, its directory flushed: a power cut finds all of it or nothing."""
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(fd: int) -> None:
        events.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    def watched_rename(source: str, target: str) -> None:
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    store.write(b"hello")
    store.replace("index.json", b"{}")
    assert events == ["file", "rename", "directory"] * 2


def test_big_blobs_are_not_held_in_memory(store: BlobStore) -> None:
    """SECURITY.md R19."""
    chunk = bytes(1 << 20)
    hasher = hashlib.sha256()
    with store.writer() as writer:
        for _ in range(64):
            writer.write(chunk)
            hasher.update(chunk)
        digest = writer.commit(Digest("sha256", hasher.hexdigest()))
    with store.open(digest) as reader:
        assert sum(len(piece) for piece in iter(lambda: reader.read(1 << 20), b"")) == 64 << 20


def test_a_failing_write_names_its_file(tmp_path: Path) -> None:
    """What write(2) says has no name: a full disk would not be told which."""
    path = tmp_path / "file"
    path.touch()
    with open(path, "rb") as file, pytest.raises(OSError) as caught:
        write_all(file.fileno(), b"x")
    assert caught.value.filename == str(path)
    read, write = os.pipe()
    os.close(read)
    with pytest.raises(BrokenPipeError) as broken:
        write_all(write, b"x")
    os.close(write)
    assert broken.value.filename is None
